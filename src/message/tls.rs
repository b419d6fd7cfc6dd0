//! What is known of an encrypted connection once its handshake is done.

/// What both sides of a TLS connection agreed on, and who the client says it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSession {
    /// The version, as OpenSSL and Python write it: `TLSv1.2`, `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite, by its name with IANA.
    pub cipher: &'static str,
    /// The host name the client asked for (SNI, RFC 6066 §3), in lower case.
    pub server_name: Option<String>,
    /// The protocol both agreed on (ALPN, RFC 7301).
    pub alpn: Option<Vec<u8>>,
    /// Whether the client resumed an earlier session, so that no certificates were sent and none checked anew.
    pub is_resumed: bool,
    /// The client's certificate in DER, checked. None if it has none, or was not asked for one.
    pub peer_certificate: Option<Vec<u8>>,
}
