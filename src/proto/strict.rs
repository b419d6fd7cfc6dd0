//! What is refused in an HTTP/1.x message: the one decision table.
//!
//! hyper's parser forgives what RFC 9112 allows a recipient to forgive (a bare LF, `Transfer-Encoding` beside
//! `Content-Length`, ...), and what it forgave can't be seen in the parsed request any more. But wherever two recipients on
//! one path can disagree about where a message ends, or whom it is for, a request can be smuggled past the first to the
//! second. So:
//!
//! 1. Every byte passes here before hyper gets it (`h1/intake.rs`): heads line by line (`head.rs`, `target.rs`), chunked
//!    framing and trailer sections byte by byte (`chunks.rs`). The verdict is the same however the bytes are cut.
//! 2. Everything refused is a [`Refusal`], one row of its table: the status, what was wrong, where that is written. A new
//!    rule is a new row, the line of code that finds it, and a test in `tests/h1/strict.rs`.
//! 3. A refusal answers and ends the connection: where the next message begins is unknown, or a matter of opinion.
//! 4. hyper still checks what it gets. Nothing here makes it believe more than it would.
//!
//! Measured (`cargo bench --bench strict`, AMD EPYC): 30 ns for the 40 bytes of wrk's head, 85 ns for an API client's 235,
//! 145 ns for a browser's 620.

mod bytes;
mod chunks;
mod head;
mod target;

pub(super) use target::is_host;

use http::StatusCode;

pub(in crate::proto) use self::{
    chunks::{Chunks, Walked},
    head::{Framing, Head, Seen},
};
use crate::config::Config;

/// Makes the type and its table in one, so that neither has a row that the other lacks.
macro_rules! decision_table {
    ($($(#[$comment:meta])* $name:ident => $status:ident, $says:literal;)*) => {
        /// Why a message is refused. The first reason found counts, in the order of the bytes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(in crate::proto) enum Refusal { $($(#[$comment])* $name,)* }

        impl Refusal {
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$name,)*];

            /// What to answer, and what to say.
            pub(in crate::proto) fn answer(self) -> (StatusCode, &'static str) {
                match self { $(Self::$name => (StatusCode::$status, $says),)* }
            }
        }
    };
}

decision_table! {
    // The request line.

    RequestLine => BAD_REQUEST,
        "the request line is not a method, a target and a version, one space apart (RFC 9112 section 3)";
    /// At the start of a connection there is no answer: who speaks something else could not read it.
    NotHttp => BAD_REQUEST, "neither the request target nor the version is one of HTTP (RFC 9112 section 3)";
    Method => BAD_REQUEST, "the method is not a token (RFC 9110 section 9.1)";
    Version => BAD_REQUEST, "the version is malformed (RFC 9112 section 2.3)";
    VersionUnsupported => HTTP_VERSION_NOT_SUPPORTED, "the versions here are 1.1 and 1.0 (RFC 9110 section 15.6.6)";
    TargetTooLong => URI_TOO_LONG, "the request target is too long (max_target_bytes)";
    /// See `target.rs` for which, and what browsers are forgiven.
    TargetCharacter => BAD_REQUEST,
        "the request target holds a character that has to be encoded (RFC 3986 section 3)";
    TargetFragment => BAD_REQUEST, "the request target has a fragment (RFC 9112 section 3.2)";
    TargetEscape => BAD_REQUEST, "the request target's percent-encoding is malformed (RFC 3986 section 2.1)";
    TargetForm => BAD_REQUEST, "the request target has no form this method takes (RFC 9112 section 3.2)";
    /// No `Allow` could follow a 405: it is not a resource that refuses, this server is no proxy.
    Connect => NOT_IMPLEMENTED, "CONNECT is for proxies (RFC 9110 section 9.3.6)";

    // Lines.

    /// A recipient may take LF alone for a line's end; not every one does.
    BareLf => BAD_REQUEST, "a line ends in LF without CR (RFC 9112 section 2.2)";
    BareCr => BAD_REQUEST, "a line holds CR without LF (RFC 9112 section 2.2)";
    ControlCharacter => BAD_REQUEST, "a line holds a control character (RFC 9110 section 5.5)";
    SpaceBeforeFields => BAD_REQUEST, "white space before the first field (RFC 9112 section 2.2)";
    /// A server may also replace the fold by a space; what stands before it and behind it may not.
    FoldedLine => BAD_REQUEST, "a field line is folded (RFC 9112 section 5.2)";
    SpaceBeforeColon => BAD_REQUEST, "white space between a field's name and its colon (RFC 9112 section 5.1)";
    FieldName => BAD_REQUEST, "a field's name is not a token with a colon behind it (RFC 9110 section 5.1)";
    FieldTooLong => REQUEST_HEADER_FIELDS_TOO_LARGE, "a field line is too long (max_field_bytes)";
    HeadTooLarge => REQUEST_HEADER_FIELDS_TOO_LARGE, "the request head is too large (max_head_bytes)";
    TooManyFields => REQUEST_HEADER_FIELDS_TOO_LARGE, "there are too many field lines (max_fields)";

    // Whom the message is for.

    HostMissing => BAD_REQUEST, "the Host field is missing (RFC 9112 section 3.2)";
    HostRepeated => BAD_REQUEST, "the Host field is repeated (RFC 9112 section 3.2)";
    HostEmpty => BAD_REQUEST, "the Host field names no host, and http needs one (RFC 9110 section 4.2.1)";
    HostInvalid => BAD_REQUEST, "the Host field is no host and port (RFC 9112 section 3.2)";

    // Where the message ends.

    /// Stricter than the RFC, which allows to take equal values for one.
    LengthRepeated => BAD_REQUEST, "the Content-Length field is repeated (RFC 9112 section 6.3)";
    /// Stricter than the RFC: `+5`, `  5` and `05` are numbers to some and something else to others.
    LengthInvalid => BAD_REQUEST, "the Content-Length field is no plain number (RFC 9110 section 8.6)";
    /// The RFC allows to let the coding win. It is nearly always an attempt at smuggling.
    LengthAndCoding => BAD_REQUEST, "there are both Content-Length and Transfer-Encoding (RFC 9112 section 6.1)";
    CodingTooNew => BAD_REQUEST, "Transfer-Encoding is not for version 1.0 (RFC 9112 section 6.1)";
    CodingRepeated => BAD_REQUEST, "chunked or the Transfer-Encoding field is repeated (RFC 9112 section 6.1)";
    CodingMisplaced => BAD_REQUEST, "chunked is not the last transfer coding (RFC 9112 section 6.3)";
    /// Stricter than the RFC, for the reason that padded lengths are refused.
    CodingPadded => BAD_REQUEST, "the Transfer-Encoding field is empty or padded (RFC 9112 section 6.1)";
    CodingUnknown => NOT_IMPLEMENTED, "the only transfer coding here is chunked (RFC 9112 section 6.1)";
    ExpectationUnknown => EXPECTATION_FAILED,
        "the only expectation here is 100-continue (RFC 9110 section 10.1.1)";

    // Chunked content.

    ChunkSize => BAD_REQUEST, "a chunk's size is no plain hexadecimal number (RFC 9112 section 7.1)";
    ChunkExtension => BAD_REQUEST, "a chunk extension is malformed (RFC 9112 section 7.1.1)";
    ChunkExtensionsTooLong => BAD_REQUEST, "the chunk extensions are too long (RFC 9112 section 7.1.1)";
    ChunkEnd => BAD_REQUEST, "a chunk does not end where its size says (RFC 9112 section 7.1)";
    TrailerForbidden => BAD_REQUEST, "the trailer section holds a field of the head (RFC 9110 section 6.5.1)";
    TrailersTooLarge => REQUEST_HEADER_FIELDS_TOO_LARGE,
        "the trailer section is too large (max_head_bytes, max_fields)";

    // Time. `h1/patience.rs` finds these.

    HeadLate => REQUEST_TIMEOUT, "the request head took too long (head_timeout)";
    ContentLate => REQUEST_TIMEOUT, "the content came too slowly (body_min_rate, body_timeout)";
}

/// How large things may be.
#[derive(Clone, Copy, Debug)]
pub(in crate::proto) struct Limits {
    pub(in crate::proto) target: usize,
    pub(in crate::proto) field: usize,
    pub(in crate::proto) head: usize,
    pub(in crate::proto) fields: usize,
}

impl From<&Config> for Limits {
    fn from(config: &Config) -> Self {
        Self {
            target: config.max_target_bytes,
            field: config.max_field_bytes,
            head: config.max_head_bytes,
            fields: config.max_fields,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tests that say so are files of another program, which can't see this table.
    #[test]
    fn every_row_has_a_test_with_raw_bytes() {
        let tests = concat!(
            include_str!("../../tests/h1/strict.rs"),
            include_str!("../../tests/h1/limits.rs"),
            include_str!("../../tests/h1/patience.rs"),
        );
        for refusal in Refusal::ALL {
            let (_, says) = refusal.answer();
            assert!(tests.contains(&format!("\"{says}\"")), "no test for {refusal:?}");
        }
    }
}
