//! What is sent back.

use http::{HeaderValue, StatusCode, header};

use super::Body;

/// A response: status, fields and content.
pub type Response = http::Response<Body>;

/// Makes a plain text response.
pub fn text(status: StatusCode, content: impl Into<Body>) -> Response {
    let mut response = Response::new(content.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// A refusal as applications see errors: `{"detail": "..."}`.
pub fn refusal(status: StatusCode, detail: &'static str) -> Response {
    let mut response = Response::new(Body::from(format!("{{\"detail\":\"{detail}\"}}")));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
