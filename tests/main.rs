//! The Rust tests, one binary.

mod architecture;
mod h1;
mod h2;
mod limits;
mod memory;
mod plug_in;
mod support;
mod tls;
mod ws;
