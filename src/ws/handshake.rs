//! The opening handshake: whether a request asks for a WebSocket, whether it may have one, and the answer that gives it one
//! (RFC 6455 §4.2, and RFC 8441 for HTTP/2 and later).
//!
//! Rules:
//! 1. A request that does not ask in every way that it has to is no handshake: by HTTP/1.1 that is GET, `Upgrade: websocket` and
//!    `Connection: upgrade`, and by HTTP/2 an extended CONNECT for `websocket`.
//! 2. What is wrong with a handshake is answered in HTTP, and says what.
//! 3. The application decides after that, and may answer anything else instead.

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::{
    deflate::{self, Agreed},
    sender::{Policy, Sender},
    session::{Receiver, Session},
    shared::Shared,
};
use crate::{
    config::Config,
    error::{Error, Kind},
    message::{Body, Feature, Request, Response, Switch, text},
};

/// RFC 6455 §1.3: what makes the proof that a server has understood the key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The only version there is (RFC 6455 §4.1).
const VERSION: &str = "13";

/// 100. Clients offer one or two; a head has room for ten thousand, which would take long to compare, and much memory.
const MAX_SUBPROTOCOLS: usize = 100;

/// 6. From here on comparing one by one costs more than a hash.
const FEW_FIELDS: usize = 6;

/// 16 bytes, in base64.
const KEY_LEN: usize = 24;

/// Whether a request asks for a WebSocket.
pub fn is_asked(request: &Request) -> bool {
    if !request.exchange.supports(Feature::WebSocket) {
        return false;
    }
    match request.exchange.protocol() {
        Some(protocol) => protocol == "websocket",
        None => {
            request.method == Method::GET
                && has_field(&request.headers, &header::UPGRADE)
                && has_token(&request.headers, &header::UPGRADE, "websocket")
                && has_token(&request.headers, &header::CONNECTION, "upgrade")
        }
    }
}

/// Whether there is a field of this name. Where there are few, comparing their names costs less than finding one by its hash:
/// 30 instead of 115 instructions for a head of one field.
fn has_field(headers: &HeaderMap, name: &HeaderName) -> bool {
    if headers.keys_len() <= FEW_FIELDS {
        headers.keys().any(|other| other == name)
    } else {
        headers.contains_key(name)
    }
}

/// The answer to a request that could have asked for a WebSocket, and has to (RFC 9110 §15.5.22).
pub fn upgrade_required() -> Response {
    let mut response = text(StatusCode::UPGRADE_REQUIRED, "This is a WebSocket (RFC 6455)");
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response
}

/// Whether a request comes from one of these origins, or from none: only browsers say where a request comes from, and only they
/// send another's cookies with it (RFC 6455 §10.2). An origin is `scheme://host`, with a port if it is not the scheme's own.
///
/// `same` allows the origin that the request is for, whatever its scheme: a proxy may end TLS.
pub fn is_origin_allowed(headers: &HeaderMap, allowed: &[String], same: bool) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let (Some(origin), None) = (origins.next(), origins.next()) else {
        return headers.get(header::ORIGIN).is_none();
    };
    let Ok(origin) = origin.to_str() else { return false };
    if allowed.iter().any(|allowed| allowed == "*" || allowed.trim_end_matches('/').eq_ignore_ascii_case(origin)) {
        return true;
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let of_origin = origin.split_once("://").map(|(_, host)| host);
    same && host.zip(of_origin).is_some_and(|(host, of_origin)| host.eq_ignore_ascii_case(of_origin))
}

/// A handshake that is right, and that the application has yet to answer.
#[derive(Debug)]
pub struct Opening {
    /// What proves by HTTP/1.1 that the key was understood. None: by later versions there is nothing to prove.
    proof: Option<HeaderValue>,
    subprotocols: Vec<String>,
    compression: Option<(Agreed, HeaderValue)>,
}

impl Opening {
    /// Reads the handshake of a request that [asks](is_asked) for a WebSocket.
    ///
    /// # Errors
    /// The response that says what is wrong with it.
    pub fn read(request: &Request, config: &Config) -> Result<Self, Box<Response>> {
        let headers = &request.headers;
        let bad = |says: &'static str| Box::new(text(StatusCode::BAD_REQUEST, says));
        if !request.body.is_empty() && request.exchange.protocol().is_none() {
            return Err(bad("a WebSocket handshake has no content (RFC 6455 section 4.1)"));
        }
        if only(headers, &header::SEC_WEBSOCKET_VERSION) != Some(VERSION) {
            // RFC 6455 §4.4.
            let says = "the version of WebSocket here is 13 (RFC 6455 section 4.4)";
            let mut response = text(StatusCode::UPGRADE_REQUIRED, says);
            response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
            response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            return Err(Box::new(response));
        }
        let proof = match request.exchange.protocol() {
            Some(_) => None,
            None => {
                let key = only(headers, &header::SEC_WEBSOCKET_KEY).filter(|key| is_key(key));
                let says = "Sec-WebSocket-Key is not 16 bytes in base64 (RFC 6455 section 4.1)";
                Some(prove(key.ok_or_else(|| bad(says))?))
            }
        };
        let Some(subprotocols) = read_subprotocols(headers) else {
            return Err(bad("Sec-WebSocket-Protocol is not a list of different tokens (RFC 6455 section 4.1)"));
        };
        let compression = config.ws_compression.then(|| {
            let offers = headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS).iter();
            deflate::negotiate(offers.filter_map(|line| line.to_str().ok()), config.ws_compression_window_bits)
        });
        Ok(Self { proof, subprotocols, compression: compression.flatten() })
    }

    /// The subprotocols that the client offers, the preferred first.
    pub fn subprotocols(&self) -> &[String] {
        &self.subprotocols
    }

    /// Makes the response that opens the WebSocket, and both ends that the application gets of it. They work from the moment on
    /// that the response is sent.
    ///
    /// # Errors
    /// `Kind::Handler` if the client has not offered the subprotocol, or a field is one that the handshake itself sends.
    pub fn accept(
        self,
        subprotocol: Option<&str>,
        headers: HeaderMap,
        policy: Policy,
        config: &std::sync::Arc<Config>,
    ) -> Result<(Response, Sender, Receiver), Error> {
        if let Some(name) = headers.keys().find(|name| is_reserved(name)) {
            return Err(Error::new(Kind::Handler, format!("the field {name} is the handshake's own")));
        }
        let mut response = Response::new(Body::Empty);
        *response.headers_mut() = headers;
        if let Some(chosen) = subprotocol {
            // RFC 6455 §4.2.2: one of the client's, or none.
            if !self.subprotocols.iter().any(|offered| offered == chosen) {
                let offered =
                    if self.subprotocols.is_empty() { "none".to_owned() } else { self.subprotocols.join(", ") };
                let says = format!("the client has not offered the subprotocol {chosen:?}; it offers {offered}");
                return Err(Error::new(Kind::Handler, says));
            }
            let value = HeaderValue::from_str(chosen)
                .map_err(|error| Error::new(Kind::Handler, "a subprotocol is a token").because(error))?;
            response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, value);
        }
        match self.proof {
            Some(proof) => {
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
                response.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, proof);
            }
            // RFC 8441 §5.
            None => *response.status_mut() = StatusCode::OK,
        }
        let agreed = self.compression.map(|(agreed, answer)| {
            response.headers_mut().insert(header::SEC_WEBSOCKET_EXTENSIONS, answer);
            agreed
        });
        let shared = Shared::new(config.ws_max_queue_bytes, policy);
        let session = Session::new(shared.clone(), config.clone(), agreed);
        response.extensions_mut().insert(Switch::new(session));
        Ok((response, Sender::new(shared.clone()), Receiver::new(shared)))
    }
}

/// What the application may not say: it would contradict the handshake, or end it.
fn is_reserved(name: &HeaderName) -> bool {
    [
        header::CONNECTION,
        header::UPGRADE,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::SEC_WEBSOCKET_ACCEPT,
        header::SEC_WEBSOCKET_EXTENSIONS,
        header::SEC_WEBSOCKET_KEY,
        header::SEC_WEBSOCKET_PROTOCOL,
        header::SEC_WEBSOCKET_VERSION,
    ]
    .contains(name)
}

/// The value of a field that has one line.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut lines = headers.get_all(name).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    line.to_str().ok()
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|word| word.trim().eq_ignore_ascii_case(token))
}

fn is_key(key: &str) -> bool {
    key.len() == KEY_LEN && STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

/// RFC 6455 §4.2.2.
fn prove(key: &str) -> HeaderValue {
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), GUID].concat());
    HeaderValue::try_from(STANDARD.encode(hash)).expect("base64 is visible ASCII")
}

/// RFC 6455 §4.1: tokens, all different. None: they are not, or there are very many.
fn read_subprotocols(headers: &HeaderMap) -> Option<Vec<String>> {
    let mut found: Vec<String> = Vec::new();
    for line in headers.get_all(header::SEC_WEBSOCKET_PROTOCOL) {
        for name in line.to_str().ok()?.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let is_new = name.bytes().all(is_token_byte) && !found.iter().any(|other| other == name);
            if !is_new || found.len() == MAX_SUBPROTOCOLS {
                return None;
            }
            found.push(name.to_owned());
        }
    }
    Some(found)
}

/// RFC 9110 §5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::message::{Exchange, Features};

    fn request(fields: &[(&'static str, &str)]) -> Request {
        let mut request = Request::new(Method::GET, "/ws".parse().unwrap());
        request.exchange = Exchange::new(Features::NONE.with(Feature::WebSocket));
        for (name, value) in fields {
            request.headers.append(*name, value.parse().unwrap());
        }
        request
    }

    const GOOD: [(&str, &str); 5] = [
        ("host", "a"),
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    /// GOOD with a field in another way, or not at all.
    fn with(name: &'static str, value: Option<&'static str>) -> Request {
        let others = GOOD.into_iter().filter(|(other, _)| *other != name);
        request(&others.chain(value.map(|value| (name, value))).collect::<Vec<_>>())
    }

    fn accept(opening: Opening, subprotocol: Option<&str>) -> Result<Response, Error> {
        let config = Arc::new(Config::default());
        opening.accept(subprotocol, HeaderMap::new(), Policy::Wait, &config).map(|(response, _, _)| response)
    }

    /// RFC 6455 §1.3.
    #[test]
    fn proves_that_it_has_understood_the_key() {
        let opening = Opening::read(&request(&GOOD), &Config::default()).unwrap();

        let response = accept(opening, None).unwrap();

        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers()["upgrade"], "websocket");
        assert_eq!(response.headers()["connection"], "Upgrade");
    }

    #[test]
    fn is_asked_only_in_every_way() {
        assert!(is_asked(&request(&GOOD)));
        assert!(is_asked(&with("connection", Some("keep-alive, Upgrade"))));
        assert!(is_asked(&with("upgrade", Some("WebSocket"))));

        assert!(!is_asked(&with("upgrade", None)));
        assert!(!is_asked(&with("upgrade", Some("h2c"))));
        assert!(!is_asked(&with("connection", None)));
        assert!(!is_asked(&with("connection", Some("close"))));
        let mut post = request(&GOOD);
        post.method = Method::POST;
        assert!(!is_asked(&post));
        let mut old = request(&GOOD);
        old.exchange = Exchange::default();
        assert!(!is_asked(&old));
    }

    #[test]
    fn says_what_is_wrong() {
        let status = |request: &Request| Opening::read(request, &Config::default()).unwrap_err().status().as_u16();

        for key in [
            None,
            Some("short"),
            Some("dGhlIHNhbXBsZSBub25jZQ="),
            Some("dGhlIHNhbXBsZSBub25jZSEh!!"),
            Some("@@@@@@@@@@@@@@@@@@@@@@=="),
        ] {
            assert_eq!(status(&with("sec-websocket-key", key)), 400, "{key:?}");
        }
        for version in [None, Some("8"), Some("14"), Some("13, 8"), Some("x")] {
            assert_eq!(status(&with("sec-websocket-version", version)), 426, "{version:?}");
        }
        let refusal = Opening::read(&with("sec-websocket-version", Some("8")), &Config::default()).unwrap_err();
        assert_eq!(refusal.headers()["sec-websocket-version"], "13");
        for protocols in ["a b", "a, a", "a,\"b\""] {
            assert_eq!(status(&with("sec-websocket-protocol", Some(protocols))), 400, "{protocols}");
        }
        let mut content = request(&GOOD);
        content.body = Body::from("content");
        assert_eq!(status(&content), 400);
        let mut twice = request(&GOOD);
        twice.headers.append("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==".parse().unwrap());
        assert_eq!(status(&twice), 400);
    }

    #[test]
    fn the_subprotocol_is_one_that_was_offered() {
        let offered = || {
            let mut request = with("sec-websocket-protocol", Some("chat, superchat"));
            request.headers.append("sec-websocket-protocol", "third".parse().unwrap());
            Opening::read(&request, &Config::default()).unwrap()
        };

        assert_eq!(offered().subprotocols(), ["chat", "superchat", "third"]);
        assert_eq!(accept(offered(), Some("superchat")).unwrap().headers()["sec-websocket-protocol"], "superchat");
        assert!(!accept(offered(), None).unwrap().headers().contains_key("sec-websocket-protocol"));
        let error = accept(offered(), Some("other")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the client has not offered the subprotocol \"other\"; it offers chat, superchat, third"
        );
    }

    #[test]
    fn subprotocols_are_not_without_number() {
        let offered = |n: u32| {
            let names: Vec<String> = (0..n).map(|n| format!("p{n}")).collect();
            let mut request = request(&GOOD);
            request.headers.insert("sec-websocket-protocol", names.join(", ").parse().unwrap());
            Opening::read(&request, &Config::default()).map(|opening| opening.subprotocols().len())
        };

        assert_eq!(offered(100).unwrap(), 100);
        assert_eq!(offered(101).unwrap_err().status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn the_application_has_no_say_in_the_handshakes_own_fields() {
        let opening = Opening::read(&request(&GOOD), &Config::default()).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("sec-websocket-accept", "x".parse().unwrap());

        let error = opening.accept(None, headers, Policy::Wait, &Arc::new(Config::default())).map(drop).unwrap_err();

        assert_eq!(error.to_string(), "the field sec-websocket-accept is the handshake's own");
    }

    /// RFC 8441 §5: the status is 200, and there is no key to prove anything with.
    #[test]
    fn by_http_2_there_is_nothing_to_prove() {
        let mut asked = request(&[("host", "a"), ("sec-websocket-version", "13")]);
        asked.method = Method::CONNECT;
        asked.exchange = Exchange::new(Features::NONE.with(Feature::WebSocket)).with_protocol("websocket");
        assert!(is_asked(&asked));

        let response = accept(Opening::read(&asked, &Config::default()).unwrap(), None).unwrap();

        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.headers().is_empty());
        asked.exchange = Exchange::new(Features::NONE.with(Feature::WebSocket)).with_protocol("other");
        assert!(!is_asked(&asked));
    }

    #[test]
    fn compression_is_agreed_on_unless_it_is_off() {
        let mut request = request(&GOOD);
        request.headers.insert("sec-websocket-extensions", "permessage-deflate".parse().unwrap());
        let off = Config { ws_compression: false, ..Config::default() };

        let on = accept(Opening::read(&request, &Config::default()).unwrap(), None).unwrap();
        let off = accept(Opening::read(&request, &off).unwrap(), None).unwrap();

        assert!(on.headers()["sec-websocket-extensions"].to_str().unwrap().starts_with("permessage-deflate"));
        assert!(!off.headers().contains_key("sec-websocket-extensions"));
    }

    #[test]
    fn origins_are_compared_whole() {
        let from = |origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert("host", "example.com:8000".parse().unwrap());
            if let Some(origin) = origin {
                headers.insert("origin", origin.parse().unwrap());
            }
            headers
        };
        let allowed = ["https://app.example.com".to_owned(), "http://localhost:3000/".to_owned()];
        let is = |origin, same| is_origin_allowed(&from(origin), &allowed, same);

        assert!(is(None, false));
        assert!(is(Some("https://app.example.com"), false));
        assert!(is(Some("HTTPS://APP.EXAMPLE.COM"), false));
        assert!(is(Some("http://localhost:3000"), false));
        assert!(is(Some("https://example.com:8000"), true));
        assert!(!is(Some("https://example.com:8000"), false));
        assert!(!is(Some("https://app.example.com.evil.com"), true));
        assert!(!is(Some("http://app.example.com"), true));
        assert!(!is(Some("null"), true));
        assert!(is_origin_allowed(&from(Some("null")), &["*".to_owned()], false));
        let mut two = from(Some("https://app.example.com"));
        two.append("origin", "https://evil.com".parse().unwrap());
        assert!(!is_origin_allowed(&two, &allowed, false));
    }
}
