//! Walk 7/10. Before: handler.rs. After: route/router.rs.
//!
//! Middleware in Rust: one file each.

mod access_log;
mod https_redirect;
mod in_flight;
mod timeout;

pub use access_log::{AccessLog, Format, Sink};
pub use https_redirect::HttpsRedirect;
pub use in_flight::InFlight;
pub use timeout::{Timeout, within};
