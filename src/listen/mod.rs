//! Where connections come from.

mod memory;
mod tcp;
#[cfg(unix)]
mod unix;

pub use memory::{MemoryConnector, memory};
pub use tcp::{Tcp, bind};
#[cfg(unix)]
pub use unix::Unix;
