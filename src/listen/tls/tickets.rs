//! Session tickets (RFC 5077, RFC 8446 §4.6.1): what a client needs to resume its session, encrypted for the server itself.
//!
//! 1. Whoever has a ticket's key can read what was said over TLS 1.2 in sessions that got such a ticket. So a key is used for
//!    [`PERIOD`], understood for another one, and then forgotten.
//! 2. Each period has a secret, from which the secret of the next is made (HMAC-SHA-256), but not that of the last. So
//!    processes that once had the same one go on understanding each other's tickets without a word, and none can go back.
//! 3. The keys also depend on what clients are asked for. A ticket says that a client's certificate was checked; where that
//!    means another thing by now it is as good as none.
//! 4. Tickets are sealed with AES-256-GCM and random nonces: 2^32 tickets a key (NIST SP 800-38D §8.3), 200,000 a second.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    error::Unspecified,
    hmac, rand,
};
use rustls::server::ProducesTickets;

use crate::{
    config::TicketSecret,
    error::{Error, Kind},
};

/// How long tickets are made with one key. 6 h, as rustls does it and most others: a ticket is then good for 6 to 12.
const PERIOD: Duration = Duration::from_secs(6 * 60 * 60);

/// By so many periods a secret is moved on, some 70 years; more can only mean a clock that is wrong.
const MOST_PERIODS: u64 = 100_000;

/// A ticket begins with the name of its key.
const NAME_BYTES: usize = 16;

/// Longest ticket that is looked at. 16 KiB: it holds a client's certificates, and clients send what they want.
const MOST_BYTES: usize = 16 * 1024;

impl TicketSecret {
    /// Makes a secret that nobody else knows.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn random() -> Result<Self, Error> {
        Self::random_at(period(SystemTime::now()))
    }

    /// The secret of the present period, made of this one.
    ///
    /// # Errors
    /// If this one is as old as can't be, and the system has no randomness for a new one.
    pub fn present(&self) -> Result<Self, Error> {
        self.at(period(SystemTime::now()))
    }

    fn random_at(period: u64) -> Result<Self, Error> {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes)
            .map_err(|_| Error::new(Kind::Start, "the system has no randomness for session tickets"))?;
        Ok(Self { period, bytes })
    }

    /// The secret of a period; this one for periods that are over.
    fn at(&self, period: u64) -> Result<Self, Error> {
        let steps = period.saturating_sub(self.period);
        if steps > MOST_PERIODS {
            return Self::random_at(period);
        }
        let bytes = (0..steps).fold(self.bytes, |bytes, _| derive(&bytes, "next", &[]));
        Ok(Self { period: self.period + steps, bytes })
    }
}

/// Makes one secret of another.
fn derive(secret: &[u8; 32], purpose: &str, context: &[u8]) -> [u8; 32] {
    let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    mac.update(b"httpy session tickets: ");
    mac.update(purpose.as_bytes());
    mac.update(&[0]);
    mac.update(context);
    let mut made = [0; 32];
    made.copy_from_slice(mac.sign().as_ref());
    made
}

fn period(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / PERIOD.as_secs()
}

/// Makes and reads tickets.
pub(super) struct Tickets {
    context: Vec<u8>,
    keys: Mutex<Keys>,
}

struct Keys {
    secret: TicketSecret,
    present: Key,
    /// None in the first period.
    last: Option<Key>,
}

struct Key {
    name: [u8; NAME_BYTES],
    seal: RandomizedNonceKey,
}

impl Tickets {
    /// Tickets of these keys. `context` is what else they depend on.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub(super) fn new(secret: Option<&TicketSecret>, context: Vec<u8>) -> Result<Self, Error> {
        let secret = secret.map_or_else(TicketSecret::random, TicketSecret::present)?;
        let refused = |_| Error::new(Kind::Bug, "a key for session tickets was refused");
        let present = Key::new(&secret, &context).map_err(refused)?;
        Ok(Self { context, keys: Mutex::new(Keys { secret, present, last: None }) })
    }

    fn encrypt_at(&self, now: SystemTime, plain: &[u8]) -> Option<Vec<u8>> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.turn(period(now), &self.context)?;
        keys.present.encrypt(plain).ok()
    }

    fn decrypt_at(&self, now: SystemTime, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > MOST_BYTES {
            return None;
        }
        let (name, sealed) = ticket.split_at_checked(NAME_BYTES)?;
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.turn(period(now), &self.context)?;
        // The name is no secret: it is in every ticket.
        let key = [Some(&keys.present), keys.last.as_ref()].into_iter().flatten().find(|key| key.name == name)?;
        key.decrypt(sealed).ok()
    }
}

impl Keys {
    /// Goes on to a period. Nothing happens if it has begun already.
    fn turn(&mut self, period: u64, context: &[u8]) -> Option<()> {
        let steps = period.saturating_sub(self.secret.period);
        if steps == 0 {
            return Some(());
        }
        // Of the period before, even if nothing was asked for in it: another process may have made tickets.
        let last = self.secret.at(period - 1).ok()?;
        let present = last.at(period).ok()?;
        self.last = Some(Key::new(&last, context).ok()?);
        self.present = Key::new(&present, context).ok()?;
        self.secret = present;
        Some(())
    }
}

impl Key {
    fn new(secret: &TicketSecret, context: &[u8]) -> Result<Self, Unspecified> {
        let mut name = [0; NAME_BYTES];
        name.copy_from_slice(&derive(&secret.bytes, "name", context)[..NAME_BYTES]);
        let seal = RandomizedNonceKey::new(&AES_256_GCM, &derive(&secret.bytes, "key", context))?;
        Ok(Self { name, seal })
    }

    /// Name, nonce, what is sealed, tag.
    fn encrypt(&self, plain: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let mut sealed = plain.to_vec();
        let nonce = self.seal.seal_in_place_append_tag(Aad::empty(), &mut sealed)?;
        Ok([&self.name[..], nonce.as_ref(), &sealed].concat())
    }

    fn decrypt(&self, sealed: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN).ok_or(Unspecified)?;
        let mut plain = sealed.to_vec();
        let length = self.seal.open_in_place(Nonce::try_assume_unique_for_key(nonce)?, Aad::empty(), &mut plain)?.len();
        plain.truncate(length);
        Ok(plain)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        2 * PERIOD.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.encrypt_at(SystemTime::now(), plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.decrypt_at(SystemTime::now(), ticket)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: TicketSecret = TicketSecret { period: 1000, bytes: [7; 32] };

    fn tickets(context: &[u8]) -> Tickets {
        tickets_of(&SECRET, context)
    }

    /// Tickets as a process has them that was started in the secret's own period.
    fn tickets_of(secret: &TicketSecret, context: &[u8]) -> Tickets {
        let present = Key::new(secret, context).expect("a key");
        Tickets { context: context.to_vec(), keys: Mutex::new(Keys { secret: secret.clone(), present, last: None }) }
    }

    /// So many periods after the secret's own began, and a second.
    fn at(periods: f64) -> SystemTime {
        UNIX_EPOCH + PERIOD * 1000 + PERIOD.mul_f64(periods) + Duration::from_secs(1)
    }

    #[test]
    fn reads_its_own_tickets_and_those_of_who_has_the_same_secret() {
        let (mine, theirs) = (tickets(b""), tickets(b""));

        let ticket = mine.encrypt_at(at(0.0), b"a session").expect("a ticket");

        assert_eq!(mine.decrypt_at(at(0.0), &ticket).as_deref(), Some(&b"a session"[..]));
        assert_eq!(theirs.decrypt_at(at(0.0), &ticket).as_deref(), Some(&b"a session"[..]));
        assert!(!ticket.windows(9).any(|window| window == b"a session"));
    }

    #[test]
    fn reads_none_of_another_secret_or_context() {
        let ticket = tickets(b"one").encrypt_at(at(0.0), b"a session").expect("a ticket");
        let other = TicketSecret { bytes: [8; 32], ..SECRET };

        assert_eq!(tickets(b"two").decrypt_at(at(0.0), &ticket), None);
        assert_eq!(tickets_of(&other, b"one").decrypt_at(at(0.0), &ticket), None);
    }

    #[test]
    fn reads_none_that_was_changed_or_cut() {
        let tickets = tickets(b"");
        let ticket = tickets.encrypt_at(at(0.0), b"a session").expect("a ticket");

        for place in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[place] ^= 1;
            assert_eq!(tickets.decrypt_at(at(0.0), &changed), None, "byte {place}");
            assert_eq!(tickets.decrypt_at(at(0.0), &ticket[..place]), None, "cut at {place}");
        }
    }

    #[test]
    fn reads_tickets_of_the_last_period_and_no_older_ones() {
        let tickets = tickets(b"");
        let ticket = tickets.encrypt_at(at(0.5), b"a session").expect("a ticket");

        assert!(tickets.decrypt_at(at(1.9), &ticket).is_some());
        assert!(tickets.decrypt_at(at(2.0), &ticket).is_none());
        assert!(tickets.decrypt_at(at(0.5), &ticket).is_none(), "the key is forgotten, whatever the clock says");
    }

    #[test]
    fn processes_stay_together_however_busy_and_whenever_started() {
        let (busy, idle) = (tickets(b""), tickets(b""));
        for hour in 0..60 {
            busy.encrypt_at(at(f64::from(hour) / 6.0), b"a session").expect("a ticket");
        }

        let ticket = busy.encrypt_at(at(10.5), b"a session").expect("a ticket");

        assert!(idle.decrypt_at(at(11.5), &ticket).is_some());
        let late = tickets_of(&SECRET.at(1010).expect("a secret"), b"");
        assert!(late.decrypt_at(at(10.6), &ticket).is_some());
    }

    #[test]
    fn a_secret_moves_on_and_never_back() {
        let later = SECRET.at(1003).expect("a secret");

        assert_eq!(later.period, 1003);
        assert_ne!(later.bytes, SECRET.bytes);
        assert_eq!(later, SECRET.at(1001).and_then(|secret| secret.at(1003)).expect("a secret"));
        assert_eq!(later.at(5).expect("a secret"), later);
        let wrong_clock = SECRET.at(u64::MAX).expect("a secret");
        assert_eq!(wrong_clock.period, u64::MAX);
    }

    #[test]
    fn a_ticket_at_the_limit_is_read_and_a_longer_one_is_not() {
        let tickets = tickets(b"");
        let overhead = NAME_BYTES + NONCE_LEN + AES_256_GCM.tag_len();

        for (bytes, is_read) in [(MOST_BYTES - overhead, true), (MOST_BYTES - overhead + 1, false)] {
            let ticket = tickets.encrypt_at(at(0.0), &vec![1; bytes]).expect("a ticket");
            assert_eq!(tickets.decrypt_at(at(0.0), &ticket).is_some(), is_read);
        }
    }

    #[test]
    fn tells_nothing_of_its_secrets() {
        assert_eq!(format!("{SECRET:?} {:?}", tickets(b"")), "TicketSecret(1000, ...) Tickets");
    }
}
