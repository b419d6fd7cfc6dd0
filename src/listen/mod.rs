//! Where connections come from.

mod listening;
mod memory;
#[cfg(unix)]
mod ready;
mod tcp;
mod tls;
#[cfg(unix)]
mod unix;

pub use listening::Listening;
pub use memory::{MemoryConnector, memory};
pub use tcp::Tcp;
pub use tls::{Certificate, Credentials, Tls, dev_certificate};
#[cfg(unix)]
pub use unix::Unix;
