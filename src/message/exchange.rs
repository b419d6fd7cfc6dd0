//! What only some versions of HTTP can do, asked for in one place.
//!
//! A feature that the carrying protocol lacks is a no-op that says so, never an error. A carrier claims a feature only
//! when it carries it: HTTP/1.1 claims trailers, WebSocket, and early hints if the operator says so, and any protocol claims
//! TLS where the connection has it.

use std::{fmt, sync::Arc};

use http::{HeaderMap, uri::PathAndQuery};

/// Something a protocol may or may not carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Feature {
    /// Several requests share the connection at the same time (HTTP/2 and later).
    Multiplexing = 1 << 0,
    /// Server push (RFC 9113 §8.4).
    Push = 1 << 1,
    /// 103 Early Hints (RFC 8297).
    EarlyHints = 1 << 2,
    /// A trailer section after the response's content (RFC 9110 §6.5). Whether the client wants one is for
    /// [`Request::supports`](super::Request::supports) to say.
    Trailers = 1 << 3,
    /// WebSocket (RFC 6455, 8441, 9220).
    WebSocket = 1 << 4,
    /// Extensible priorities (RFC 9218).
    Priority = 1 << 5,
    /// The server offers HTTP/3 on this origin.
    Http3 = 1 << 6,
    /// The connection is encrypted.
    Tls = 1 << 7,
}

impl Feature {
    /// Every feature, with the name applications use for it.
    pub const NAMES: [(&'static str, Feature); 8] = [
        ("multiplexing", Feature::Multiplexing),
        ("push", Feature::Push),
        ("early_hints", Feature::EarlyHints),
        ("trailers", Feature::Trailers),
        ("websocket", Feature::WebSocket),
        ("priority", Feature::Priority),
        ("http3", Feature::Http3),
        ("tls", Feature::Tls),
    ];

    /// Finds a feature by its name.
    pub fn find(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, feature)| *feature)
    }
}

/// A set of [`Feature`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(u8);

impl Features {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// The set with `feature` added.
    #[must_use]
    pub const fn with(self, feature: Feature) -> Self {
        Self(self.0 | feature as u8)
    }

    /// Whether `feature` is in the set.
    pub const fn has(self, feature: Feature) -> bool {
        self.0 & feature as u8 != 0
    }
}

/// The side of a request that belongs to the protocol carrying it.
#[derive(Clone, Default)]
pub struct Exchange {
    features: Features,
    carrier: Option<Arc<dyn Carrier>>,
    protocol: Option<&'static str>,
}

/// What a protocol can send for a request besides its response. Called from any thread; none of it waits.
pub trait Carrier: Send + Sync {
    /// Sends the fields ahead of the response, as 103 Early Hints (RFC 8297). Returns whether they were sent.
    fn early_hints(&self, fields: HeaderMap) -> bool;

    /// Promises a response (RFC 9113 §8.4), which then comes from the whole application as if the client had asked for
    /// it. Returns whether it was promised.
    fn push(&self, promise: Promise) -> bool;
}

/// A request that the server makes in the client's place: always a safe one without content.
#[derive(Clone, Debug)]
pub struct Promise {
    /// Path and query. Scheme and authority are those of the request that promises.
    pub target: PathAndQuery,
    /// The fields of the promised request. None are taken over from the request that promises.
    pub headers: HeaderMap,
    /// Whether it is a HEAD request. Else it is GET.
    pub is_head: bool,
}

impl Exchange {
    /// Describes a carrier that can do nothing besides the response.
    pub const fn new(features: Features) -> Self {
        Self { features, carrier: None, protocol: None }
    }

    /// Describes what the carrier of this request can do, and names it.
    pub fn carried(features: Features, carrier: Arc<dyn Carrier>) -> Self {
        Self { features, carrier: Some(carrier), protocol: None }
    }

    /// Says what the client asks to speak in place of HTTP.
    #[must_use]
    pub const fn with_protocol(mut self, protocol: &'static str) -> Self {
        self.protocol = Some(protocol);
        self
    }

    /// What the client asks to speak in place of HTTP on the bytes of this request and its response: the `:protocol` of an
    /// extended CONNECT (RFC 8441 §4). By HTTP/1.1 it asks with fields.
    pub const fn protocol(&self) -> Option<&'static str> {
        self.protocol
    }

    /// Names the carrier.
    #[must_use]
    pub fn with_carrier(self, carrier: Arc<dyn Carrier>) -> Self {
        Self { carrier: Some(carrier), ..self }
    }

    /// Whether the carrier of this request can do `feature`. Applications ask
    /// [`Request::supports`](super::Request::supports), which also looks at what the client said.
    pub const fn supports(&self, feature: Feature) -> bool {
        self.features.has(feature)
    }

    /// Sends the fields, usually `Link`, ahead of the response as 103 Early Hints (RFC 8297).
    ///
    /// Returns whether they were sent: not if the carrier has no such thing, and not once the response has begun.
    pub fn early_hints(&self, fields: HeaderMap) -> bool {
        let carrier = self.carrier.as_ref().filter(|_| self.supports(Feature::EarlyHints));
        carrier.is_some_and(|carrier| carrier.early_hints(fields))
    }

    /// Pushes: promises the client a response that it did not ask for yet (RFC 9113 §8.4).
    ///
    /// Returns whether it was promised: not if the carrier has no such thing, if the client does not want it or has
    /// enough of it, and not once the response has ended.
    pub fn push(&self, promise: Promise) -> bool {
        let carrier = self.carrier.as_ref().filter(|_| self.supports(Feature::Push));
        carrier.is_some_and(|carrier| carrier.push(promise))
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Exchange").field(&self.features).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_in_and_nothing_else() {
        let features = Features::NONE.with(Feature::Trailers).with(Feature::Tls);

        let has: Vec<_> =
            Feature::NAMES.iter().filter(|(_, feature)| features.has(*feature)).map(|(name, _)| *name).collect();

        assert_eq!(has, ["trailers", "tls"]);
    }

    #[test]
    fn every_name_finds_its_feature_and_no_other_name_does() {
        for (name, feature) in Feature::NAMES {
            assert_eq!(Feature::find(name), Some(feature));
        }
        assert_eq!(Feature::find("teleport"), None);
    }

    #[test]
    fn what_a_carrier_does_not_claim_is_not_asked_of_it() {
        struct Anything;
        impl Carrier for Anything {
            fn early_hints(&self, _: HeaderMap) -> bool {
                true
            }
            fn push(&self, _: Promise) -> bool {
                true
            }
        }
        let promise = || Promise { target: PathAndQuery::from_static("/a"), headers: HeaderMap::new(), is_head: false };
        let hints = Exchange::carried(Features::NONE.with(Feature::EarlyHints), Arc::new(Anything));
        let nobody = Exchange::new(Features::NONE.with(Feature::EarlyHints).with(Feature::Push));

        assert_eq!((hints.early_hints(HeaderMap::new()), hints.push(promise())), (true, false));
        assert_eq!((nobody.early_hints(HeaderMap::new()), nobody.push(promise())), (false, false));
    }
}
