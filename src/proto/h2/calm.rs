//! How many frames a client may send that do nothing, and how many streams it may reset.
//!
//! Such frames are rare between honest peers and cheap for an attacker. Counted are those that neither ask for anything nor
//! bring content: SETTINGS, PING (CVE-2019-9512, -9515), PRIORITY (-9513), empty DATA (-9518), WINDOW_UPDATE, CONTINUATION,
//! and types nobody knows. Each takes one from an allowance to which requests and content add, and time does. Resets have
//! an allowance of their own (CVE-2023-44487), to which only time adds: a request that was reset is no use to anybody.
//!
//! The clock is read only when an allowance is used up.

use tokio::time::Instant;

/// 100 frames a second that do nothing are nothing.
const FRAMES_PER_S: u32 = 100;

/// 33, as in nghttp2. A browser resets what a page has under way when one leaves it.
const RESETS_PER_S: u32 = 33;

/// What a client may do for nothing.
pub(super) struct Allowances {
    pub(super) frames: Allowance,
    pub(super) resets: Allowance,
}

impl Allowances {
    pub(super) fn new(max_idle_frames: u32, max_resets: u32) -> Self {
        Self { frames: Allowance::new(max_idle_frames, FRAMES_PER_S), resets: Allowance::new(max_resets, RESETS_PER_S) }
    }
}

/// A number that taking makes smaller, and giving and time make larger, up to what it was at the start.
pub(super) struct Allowance {
    left: u32,
    max: u32,
    per_s: u32,
    /// Since when time has to be added.
    since: Instant,
}

impl Allowance {
    fn new(max: u32, per_s: u32) -> Self {
        Self { left: max, max, per_s, since: Instant::now() }
    }

    /// Takes one. False: there is none.
    pub(super) fn take(&mut self) -> bool {
        if self.left == 0 {
            let now = Instant::now();
            let earned = (now - self.since).as_secs_f64() * f64::from(self.per_s);
            if earned < 1.0 {
                return false;
            }
            self.since = now;
            // The cast saturates.
            self.left = (earned as u32).min(self.max);
        }
        self.left -= 1;
        true
    }

    pub(super) fn give(&mut self, n: u32) {
        self.left = self.left.saturating_add(n).min(self.max);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn take_all(allowance: &mut Allowance) -> u32 {
        std::iter::from_fn(|| allowance.take().then_some(())).count() as u32
    }

    #[tokio::test(start_paused = true)]
    async fn lasts_for_as_many_as_it_is_and_time_adds_to_it() {
        let mut allowance = Allowance::new(100, 10);

        assert_eq!(take_all(&mut allowance), 100);
        tokio::time::advance(Duration::from_millis(99)).await;
        assert_eq!(take_all(&mut allowance), 0);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(take_all(&mut allowance), 1);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(take_all(&mut allowance), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_adds_to_it_up_to_what_it_was() {
        let mut allowance = Allowance::new(100, 10);

        allowance.give(1000);
        assert_eq!(take_all(&mut allowance), 100);
        allowance.give(5);
        assert_eq!(take_all(&mut allowance), 5);
    }
}
