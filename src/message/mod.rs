//! The waist: what a carrier hands up and an answerer hands back.

mod body;
mod exchange;
mod params;
mod request;
mod response;
mod stream;
mod switch;
mod tls;

pub use body::{Body, TooLarge};
pub use exchange::{Carrier, Exchange, Feature, Features, Promise};
pub use params::Params;
pub use request::{Parts, Peer, Request, accepts_trailers};
pub use response::{Response, refusal, text};
pub use stream::{ByteStream, Stream};
pub use switch::{BothWays, Switch, Tunnel};
pub use tls::TlsSession;
