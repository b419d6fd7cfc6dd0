//! Where connections come from.

mod listening;
mod memory;
#[cfg(unix)]
mod ready;
mod tcp;
#[cfg(unix)]
mod unix;

pub use listening::Listening;
pub use memory::{MemoryConnector, memory};
pub use tcp::Tcp;
#[cfg(unix)]
pub use unix::Unix;
