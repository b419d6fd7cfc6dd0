//! WebSocket (RFC 6455), with compression (RFC 7692), over whatever carries a byte stream (RFC 8441, RFC 9220).
//!
//! ```text
//! a request ──► handshake.rs ──► the application: accept, or any other answer
//!                                    │ accept
//!            sender.rs, Receiver ◄───┴───► session.rs, run by the carrier as a `Tunnel`
//!                      └── shared.rs ──────┘
//!                                          frame.rs, decoder.rs, utf8.rs, deflate.rs
//! ```
//!
//! Where the carrier has messages instead of bytes, relay.rs is in the session's place.

mod decoder;
mod deflate;
mod frame;
mod handshake;
mod message;
mod relay;
mod sender;
mod session;
mod shared;
mod utf8;

pub use handshake::{Opening, is_asked, is_origin_allowed, upgrade_required};
pub use message::{Close, Kind, Message, Prepared};
pub use relay::{Outgoing, Relay};
pub use sender::{Policy, Refused, Sender};
pub use session::Receiver;
