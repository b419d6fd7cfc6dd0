//! HTTP/2 in raw frames: what is sent, and what comes back.

mod attacks;
mod content;
mod heads;
mod messages;
mod patience;
mod priorities;
mod push;
mod standing;
