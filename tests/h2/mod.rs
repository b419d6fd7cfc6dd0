//! HTTP/2 in raw frames: what is sent, and what comes back.

mod content;
mod heads;
mod messages;
