//! Sends requests that came without encryption to the same place with it.
//!
//! 1. 308 (RFC 9110 §15.4.9): unlike 301 it lets nobody make a GET of a POST.
//! 2. The host is the one that the request names, since a server has many names and knows few of them. So only what is
//!    certainly a host is taken: anything that a client might read otherwise, or as more than a host, is a 400.
//! 3. Path and query stay as they were sent. They follow a host, so that `//evil.example` is a path and nothing else.

use std::net::Ipv6Addr;

use http::{HeaderValue, StatusCode, header};

use crate::{
    handler::{Middleware, Next, Reply},
    message::{Request, Response, text},
};

/// The port of `https` that need not be written (RFC 9110 §4.2.2).
const DEFAULT_PORT: u16 = 443;

/// Redirects what is not encrypted.
pub struct HttpsRedirect {
    port: u16,
}

impl HttpsRedirect {
    /// Redirects to a port, as clients see it.
    pub fn new(port: u16) -> Self {
        Self { port }
    }

    fn redirect(&self, request: &Request) -> Response {
        let Some(location) = self.location(request) else {
            return text(
                StatusCode::BAD_REQUEST,
                "this server is reached by https://, and the request names no host\n",
            );
        };
        let mut response = text(StatusCode::PERMANENT_REDIRECT, "use https://\n");
        response.headers_mut().insert(header::LOCATION, location);
        response
    }

    fn location(&self, request: &Request) -> Option<HeaderValue> {
        let host = match request.uri.authority() {
            Some(authority) => authority.as_str(),
            None => request.headers.get(header::HOST)?.to_str().ok()?,
        };
        let host = host_of(host)?;
        let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
        // `OPTIONS *` is about the server, and is no place.
        let target = if target.starts_with('/') { target } else { "/" };
        let location = match self.port {
            DEFAULT_PORT => format!("https://{host}{target}"),
            port => format!("https://{host}:{port}{target}"),
        };
        HeaderValue::try_from(location).ok()
    }
}

impl Middleware for HttpsRedirect {
    fn call(&self, request: Request, next: Next) -> Reply {
        if request.peer.is_tls { next.run(request) } else { self.redirect(&request).into() }
    }
}

/// The host of `host` or `host:port`; none if it is anything but a name as the DNS has it, or an address.
fn host_of(authority: &str) -> Option<&str> {
    let is_bracketed = authority.starts_with('[');
    let length = if is_bracketed { authority.find(']')? + 1 } else { authority.find(':').unwrap_or(authority.len()) };
    let (host, port) = authority.split_at(length);
    let is_host = if is_bracketed {
        host[1..length - 1].parse::<Ipv6Addr>().is_ok()
    } else {
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    };
    let is_port = port.is_empty() || port.strip_prefix(':')?.bytes().all(|byte| byte.is_ascii_digit());
    (is_host && is_port).then_some(host)
}

#[cfg(test)]
mod tests {
    use http::{Method, Uri};

    use super::*;

    fn location(port: u16, host: Option<&'static str>, target: &'static str) -> Result<String, StatusCode> {
        let mut request = Request::new(Method::GET, Uri::from_static(target));
        if let Some(host) = host {
            request.headers.insert(header::HOST, HeaderValue::from_static(host));
        }
        let response = HttpsRedirect::new(port).redirect(&request);
        match response.headers().get(header::LOCATION) {
            Some(location) if response.status() == StatusCode::PERMANENT_REDIRECT => {
                Ok(location.to_str().expect("text").to_owned())
            }
            _ => Err(response.status()),
        }
    }

    #[test]
    fn keeps_host_path_and_query() {
        for (port, host, target, expected) in [
            (443, "example.org", "/", "https://example.org/"),
            (443, "example.org:80", "/a/b?c=d&e", "https://example.org/a/b?c=d&e"),
            (443, "example.org:", "/a%20b?%2F", "https://example.org/a%20b?%2F"),
            (8443, "example.org:8000", "/a", "https://example.org:8443/a"),
            (8443, "192.0.2.1", "/", "https://192.0.2.1:8443/"),
            (443, "[2001:db8::1]:8000", "/", "https://[2001:db8::1]/"),
            (8443, "[::ffff:192.0.2.1]", "/", "https://[::ffff:192.0.2.1]:8443/"),
            (443, "other.example", "http://example.org:8000/a?b", "https://example.org/a?b"),
            (443, "example.org", "*", "https://example.org/"),
        ] {
            assert_eq!(location(port, Some(host), target).as_deref(), Ok(expected), "{host} {target}");
        }
    }

    #[test]
    fn a_path_that_looks_like_a_host_stays_a_path() {
        for target in ["//evil.example", "//evil.example/..", "/\\evil.example", "/@evil.example", "/.evil.example"] {
            let expected = format!("https://example.org{target}");
            assert_eq!(location(443, Some("example.org"), target), Ok(expected));
        }
    }

    #[test]
    fn refuses_hosts_that_could_be_read_as_something_else() {
        for host in [
            "",
            ":80",
            "user@evil.example",
            "example.org@evil.example",
            "example.org:80@evil.example",
            "example.org/evil",
            "example.org\\evil",
            "example.org?evil",
            "example.org#evil",
            "example.org evil",
            "example.org,evil.example",
            "example.org:80:90",
            "example.org:http",
            "exa%6dple.org",
            "[",
            "[]",
            "[::1",
            "[::1]evil.example",
            "[::1]:80:90",
            "[evil.example]",
            "::1",
        ] {
            assert_eq!(location(443, Some(host), "/"), Err(StatusCode::BAD_REQUEST), "{host}");
        }
        assert_eq!(location(443, None, "/"), Err(StatusCode::BAD_REQUEST));
    }
}
