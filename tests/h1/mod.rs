//! HTTP/1.1 and 1.0 (RFC 9112), byte for byte.

mod closing;
mod content;
mod drain;
mod heads;
mod hints;
mod limits;
mod messages;
mod patience;
mod rest;
mod streaming;
mod strict;
