//! What a server counts of connections that it closed because of their clients, for whoever shows it.
//!
//! A count is a word that grows. Nothing here is on the way of a request that does what it should.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Connections whose handshake failed (TLS): no protocol or certificate in common, or no TLS at all.
    HandshakesFailed,
    /// Connections whose handshake took longer than `handshake_timeout`.
    HandshakesLate,
    /// HTTP/2 connections closed for frames that do nothing (`h2_max_idle_frames`).
    H2IdleFrames,
    /// HTTP/2 connections closed for streams that were reset (`h2_max_resets`).
    H2Resets,
    /// HTTP/2 connections closed for what h2 itself counts: streams reset before anybody saw them, pieces of heads, tiny or empty
    /// DATA frames.
    H2Floods,
    /// HTTP/2 connections closed for a frame that must not be, or not there (RFC 9113 §5.4.1).
    H2Violations,
    /// HTTP/2 connections closed for a head that did not end within `head_timeout`.
    H2HeadsLate,
    /// HTTP/2 connections closed, and streams reset, whose client took nothing of what was to be sent (`write_timeout`).
    H2ReadersLate,
    /// HTTP/2 requests refused because their content came too slowly (`body_min_rate`).
    H2ContentLate,
    /// HTTP/2 connections closed because their client gave no sign of life (`h2_ping_timeout`).
    H2Silent,
}

impl Counted {
    /// Everything that is counted, with its name.
    pub const NAMES: [(&'static str, Counted); 10] = [
        ("handshakes_failed", Counted::HandshakesFailed),
        ("handshakes_late", Counted::HandshakesLate),
        ("h2_idle_frames", Counted::H2IdleFrames),
        ("h2_resets", Counted::H2Resets),
        ("h2_floods", Counted::H2Floods),
        ("h2_violations", Counted::H2Violations),
        ("h2_heads_late", Counted::H2HeadsLate),
        ("h2_readers_late", Counted::H2ReadersLate),
        ("h2_content_late", Counted::H2ContentLate),
        ("h2_silent", Counted::H2Silent),
    ];
}

/// The counts of one server, since its start.
#[derive(Debug, Default)]
pub struct Metrics([AtomicU64; Counted::NAMES.len()]);

impl Metrics {
    /// Counts one more.
    pub fn count(&self, what: Counted) {
        self.0[what as usize].fetch_add(1, Relaxed);
    }

    /// How many there were.
    pub fn get(&self, what: Counted) -> u64 {
        self.0[what as usize].load(Relaxed)
    }

    /// All counts, by their names.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Counted::NAMES.iter().map(|(name, what)| (*name, self.get(*what)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_each_by_itself() {
        let metrics = Metrics::default();

        for (number, (_, what)) in Counted::NAMES.iter().enumerate() {
            (0..=number).for_each(|_| metrics.count(*what));
        }

        let all: Vec<u64> = metrics.all().map(|(_, count)| count).collect();
        assert_eq!(all, (1..=Counted::NAMES.len() as u64).collect::<Vec<_>>());
    }
}
