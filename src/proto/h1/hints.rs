//! 103 Early Hints on HTTP/1.1 (RFC 8297), which hyper does not know.
//!
//! 1. Only where the operator says that clients take them (`h1_early_hints`): some take an interim response for the response,
//!    and then the one behind it for the answer to their next request (RFC 8297 §3).
//! 2. They are written past hyper. It answers one request at a time, and has handed everything of the last response to the
//!    wire when it asks for the next one. If the wire could not take all of what hyper has since (100 Continue), hints wait,
//!    or are left out in the end: who does not read is not in a hurry.
//! 3. There are none once the response has begun.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    task::Waker,
};

use futures_util::task::AtomicWaker;
use http::{HeaderMap, HeaderName, header};

use super::wire::Wire;
use crate::message::{Carrier, Promise};

/// 16 KiB of hints that have yet to be written, as much as the head of a response may have elsewhere. More come from a
/// handler that does not know what it does, on a thread of its own.
const MOST_BYTES: usize = 16 * 1024;

/// The hints of one request: put down by a handler, from any thread, and written by the connection's task.
#[derive(Default)]
pub(super) struct Hints {
    ahead: Mutex<Ahead>,
    /// Wakes the connection's task.
    waker: AtomicWaker,
}

#[derive(Default)]
struct Ahead {
    /// What has yet to be written.
    bytes: Vec<u8>,
    /// Whether the response has begun.
    is_over: bool,
}

impl Hints {
    /// Has `waker` woken by further hints.
    pub(super) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Writes what there is. `is_over` says that the response follows.
    pub(super) fn write(&self, wire: &Wire, is_over: bool) {
        let mut ahead = self.lock();
        if !ahead.bytes.is_empty() && wire.put_between(&ahead.bytes) {
            ahead.bytes = Vec::new();
        }
        ahead.is_over = is_over;
    }

    fn lock(&self) -> MutexGuard<'_, Ahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Carrier for Hints {
    fn early_hints(&self, fields: HeaderMap) -> bool {
        let head = encode(&fields);
        let mut ahead = self.lock();
        if ahead.is_over || ahead.bytes.len() + head.len() > MOST_BYTES {
            return false;
        }
        ahead.bytes.extend_from_slice(&head);
        drop(ahead);
        self.waker.wake();
        true
    }

    fn push(&self, _: Promise) -> bool {
        false
    }
}

fn encode(fields: &HeaderMap) -> Vec<u8> {
    let mut head = b"HTTP/1.1 103 Early Hints\r\n".to_vec();
    for (name, value) in fields.iter().filter(|(name, _)| !is_framing(name)) {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// RFC 9112 §6, RFC 9110 §7.6.1: an interim response has no content, and says nothing of the connection.
fn is_framing(name: &HeaderName) -> bool {
    let framing =
        [header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::TRAILER, header::UPGRADE];
    framing.contains(name) || name == "keep-alive"
}
