//! The one error of the core, sorted by who can fix it.

use std::{any::Any, borrow::Cow, error::Error as StdError, fmt};

/// Who can fix an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The operator: a port, a certificate, a configuration value.
    Start,
    /// The client broke the protocol.
    Peer,
    /// The application failed to answer.
    Handler,
    /// Something was too big, too slow or too many.
    Limit,
    /// The network failed, or the client went away.
    Io,
    /// HTTPy itself is wrong.
    Bug,
}

/// What went wrong, in one line: lower-case, no full stop, no secrets.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: Cow<'static, str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Makes an error without a cause.
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Attaches the cause; loggers print the chain, `Display` does not.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Who can fix it.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// What a caught panic says, for the log.
pub fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_the_message_and_keeps_the_cause() {
        let error = Error::new(Kind::Start, "port 80 can't be bound").because(std::io::Error::other("denied"));

        assert_eq!(error.to_string(), "port 80 can't be bound");
        assert_eq!(error.source().map(ToString::to_string), Some("denied".to_owned()));
        assert_eq!(error.kind(), Kind::Start);
    }

    #[test]
    fn reads_the_message_of_a_panic() {
        let message = |panic: fn()| {
            let panic = std::panic::catch_unwind(panic).expect_err("a panic");
            panic_message(&*panic).to_owned()
        };

        assert_eq!(message(|| panic!("plain")), "plain");
        assert_eq!(message(|| panic!("with {}", 1)), "with 1");
        assert_eq!(message(|| std::panic::panic_any(1)), "no message");
    }
}
