//! The Rust tests, one binary.

mod architecture;
mod h1;
mod h2;
mod limits;
mod plug_in;
mod support;
mod tls;
mod ws;
