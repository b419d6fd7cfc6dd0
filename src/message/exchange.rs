//! What only some versions of HTTP can do, asked for in one place.
//!
//! A feature that the carrying protocol lacks is a no-op that says so, never an error. A carrier claims a feature only
//! when it carries it: HTTP/1.1 claims trailers, and any protocol claims TLS where the connection has it.

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
#[derive(Clone, Copy, Debug, Default)]
pub struct Exchange {
    features: Features,
}

impl Exchange {
    /// Describes what the carrier of this request can do.
    pub const fn new(features: Features) -> Self {
        Self { features }
    }

    /// Whether the carrier of this request can do `feature`. Applications ask
    /// [`Request::supports`](super::Request::supports), which also looks at what the client said.
    pub const fn supports(&self, feature: Feature) -> bool {
        self.features.has(feature)
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
}
