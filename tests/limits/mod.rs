//! Limits on how much happens at the same time, and how long it takes. Those on single messages are in `h1/limits.rs`.

mod connections;
mod in_flight;
mod panics;
