//! What came in: head, content, who sent it, and what routing found.

use std::{fmt, net::SocketAddr, ops::Range, sync::Arc};

use http::{HeaderMap, Method, Uri, Version};

use super::{Body, Exchange};

/// The two ends of a connection, shared by all its requests.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// The client's address; none for unix sockets and memory.
    pub client: Option<SocketAddr>,
    /// The address the client reached; none for unix sockets and memory.
    pub server: Option<SocketAddr>,
    /// Whether the connection is encrypted.
    pub is_tls: bool,
}

/// A request on its way to an answer.
#[derive(Debug)]
pub struct Request {
    /// The method, a case-sensitive token (RFC 9110 §9.1).
    pub method: Method,
    /// The target: origin form, absolute form, or `*` (RFC 9112 §3.2).
    pub uri: Uri,
    /// The version it came by.
    pub version: Version,
    /// The field section.
    pub headers: HeaderMap,
    /// The content.
    pub body: Body,
    /// Who is connected.
    pub peer: Arc<Peer>,
    /// What the carrier can do.
    pub exchange: Exchange,
    /// Path parameters, in the order of the pattern. Empty before routing.
    pub params: Params,
    /// How many bytes of the path the mounts on the way have taken.
    pub root_len: usize,
}

impl Request {
    /// Makes a request as a client without a connection would send it. For tests and for requests made inside.
    pub fn new(method: Method, uri: Uri) -> Self {
        Self {
            method,
            uri,
            version: Version::HTTP_11,
            headers: HeaderMap::new(),
            body: Body::Empty,
            peer: Arc::new(Peer::default()),
            exchange: Exchange::default(),
            params: Params::default(),
            root_len: 0,
        }
    }

    /// The part of the target's path that is still to be routed, percent-encoded as it was sent.
    pub fn path(&self) -> &str {
        &self.uri.path()[self.root_len..]
    }
}

/// One path parameter: a piece of the path as it was sent, or its decoded text.
#[derive(Clone)]
pub enum Param {
    /// Nothing had to be decoded: a range of [`Uri::path`].
    Raw(Range<u32>),
    /// The decoded text.
    Decoded(Box<str>),
}

/// Path parameters in the order of the pattern.
#[derive(Clone, Default)]
pub struct Params(Vec<Param>);

impl Params {
    /// Collects parameters.
    pub fn new(params: Vec<Param>) -> Self {
        Self(params)
    }

    /// The text of parameter `index`; `path` is the path that was matched.
    pub fn find<'a>(&'a self, index: usize, path: &'a str) -> Option<&'a str> {
        Some(match self.0.get(index)? {
            Param::Raw(range) => &path[range.start as usize..range.end as usize],
            Param::Decoded(text) => text,
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Params({})", self.0.len())
    }
}
