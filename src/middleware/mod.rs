//! Walk 7/10. Before: handler.rs. After: route/router.rs.
//!
//! Middleware in Rust, one file each.

mod in_flight;
mod timeout;

pub use in_flight::InFlight;
pub use timeout::{Timeout, within};
