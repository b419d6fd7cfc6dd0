//! The table of protocols. A protocol is one file and one row.

mod date;
mod h1;
mod h2;
mod linger;
mod negotiate;
mod priority;
mod strict;

use std::rc::Rc;

pub use h1::H1;
pub use h2::H2;
pub use negotiate::Negotiate;

use crate::{conn::Protocol, message::Stream};

/// How the first bytes of a connection look to a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looks {
    /// Certainly this protocol.
    Like,
    /// Certainly not this protocol.
    Unlike,
    /// More bytes are needed to tell.
    Unsure,
}

/// One row of the table.
#[derive(Clone)]
pub struct Row {
    /// The ALPN protocol id (RFC 7301), as registered with IANA.
    pub alpn: &'static [u8],
    /// Tells by the first bytes of a connection without ALPN. Rows are asked in order; the last one
    /// takes all.
    pub looks: fn(&[u8]) -> Looks,
    /// What speaks it.
    pub protocol: Rc<dyn Protocol<Stream>>,
}

/// Every protocol HTTPy speaks over a byte stream, most particular first.
pub fn table() -> Vec<Row> {
    let h1 = Rc::new(H1::default());
    vec![
        Row { alpn: b"h2", looks: H2::looks, protocol: Rc::new(H2) },
        Row { alpn: b"http/1.1", looks: |_| Looks::Like, protocol: h1.clone() },
        // Clients that offer nothing else are there: `curl --http1.0`.
        Row { alpn: b"http/1.0", looks: |_| Looks::Unlike, protocol: h1 },
    ]
}
