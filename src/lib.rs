//! HTTPy's server: it knows HTTP and does not know Python.
//!
//! The crate has one narrow waist, [`message`] and [`handler`]. Above it lives what answers a request ([`middleware`], [`route`], [`ws`]);
//! below it lives what carries one ([`conn`], [`listen`], [`proto`]). [`server`] manages connections without naming a
//! protocol, and [`app`] puts the parts together. `tests/architecture.rs` holds the table of who may import whom.
//!
//! A request walks through ten stops; each file on the way opens with its number:
//! 1 `listen/tcp.rs` · 2 `server.rs` · 3 `listen/tls.rs` · 4 `proto/negotiate.rs` · 5 `proto/h1.rs` · 6 `handler.rs` ·
//! 7 `middleware/*` · 8 `route/` · 9 `endpoint/*`, or the door to Python · 10 `proto/h1.rs`, back out.

pub mod app;
pub mod config;
pub mod conn;
pub mod error;
pub mod handler;
pub mod listen;
pub mod message;
pub mod metrics;
pub mod middleware;
mod platform;
pub mod proto;
pub mod route;
pub mod server;
pub mod ws;

pub use app::App;
pub use config::Config;
pub use error::{Error, Kind};
pub use handler::{Handler, Middleware, Next, Reply, Stack};
pub use message::{Body, Request, Response};
