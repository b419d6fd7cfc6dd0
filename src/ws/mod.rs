//! WebSocket (RFC 6455), with compression (RFC 7692), over whatever carries a byte stream (RFC 8441, RFC 9220).
//!
//! ```text
//! a request ──► handshake.rs ──► the application: accept, or any other answer
//!                                    │ accept
//!            sender.rs, Receiver ◄───┴───► session.rs, run by the carrier as a `Tunnel`
//!                      └── shared.rs ──────┘
//!            rooms.rs                      frame.rs, decoder.rs, utf8.rs, deflate.rs
//!               └── bus.rs, packet.rs: other processes, through hub.rs or redis.rs
//! ```
//!
//! Where the carrier has messages instead of bytes, relay.rs is in the session's place.

mod bus;
mod decoder;
mod deflate;
mod frame;
mod handshake;
mod hub;
mod message;
mod packet;
mod redis;
mod relay;
mod rooms;
mod sender;
mod session;
mod shared;
mod utf8;

pub use handshake::{Opening, is_asked, is_origin_allowed, upgrade_required};
pub use hub::Hub;
pub use message::{Close, Kind, Message, Prepared};
pub use redis::RedisUrl;
pub use relay::{Outgoing, Relay};
pub use rooms::{MAX_ROOM_MESSAGE_BYTES, MAX_ROOM_NAME_BYTES, RoomError, Rooms};
pub use sender::{Policy, Refused, Sender};
pub use session::Receiver;
