//! Walk 7/10. Before: handler.rs. After: route/.
//!
//! Middleware that needs no application: one file each.

mod access_log;

pub use access_log::{AccessLog, Format, Sink};
