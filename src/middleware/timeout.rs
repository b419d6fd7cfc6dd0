//! How long an answer may take.

use std::time::Duration;

use http::StatusCode;

use crate::{
    handler::{Middleware, Next, Reply},
    message::{Request, Response, refusal},
};

/// Answers 503 (RFC 9110 §15.6.4) in place of what takes longer.
pub struct Timeout(pub Duration);

impl Middleware for Timeout {
    fn call(&self, request: Request, next: Next) -> Reply {
        within(self.0, next.run(request), || refusal(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable"))
    }
}

/// Limits how long `reply` may take, and puts the response of `late` in its place if it takes longer.
///
/// What is late is dropped, which cancels its work as if the client had gone away. What is there already costs nothing.
pub fn within(limit: Duration, reply: Reply, late: impl FnOnce() -> Response + 'static) -> Reply {
    match reply {
        Reply::Later(response) => Reply::later(async move {
            let answered = tokio::time::timeout(limit, response).await;
            answered.unwrap_or_else(|_| late())
        }),
        now => now,
    }
}
