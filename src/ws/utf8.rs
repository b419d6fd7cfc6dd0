//! UTF-8 that comes in pieces (RFC 6455 §8.1): a sequence may be cut anywhere, and what can't become valid any more is found
//! at once.

/// What is known of text of which not all has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Utf8 {
    /// The start of a sequence whose end has yet to come.
    part: [u8; 4],
    len: u8,
}

impl Utf8 {
    /// Looks at the next piece. False: it is not UTF-8.
    #[inline]
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> bool {
        while self.len > 0 {
            let Some((first, rest)) = bytes.split_first() else { return true };
            self.part[usize::from(self.len)] = *first;
            self.len += 1;
            bytes = rest;
            match std::str::from_utf8(&self.part[..usize::from(self.len)]) {
                Ok(_) => self.len = 0,
                // A sequence has four bytes at most, so this ends.
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return false,
            }
        }
        match std::str::from_utf8(bytes) {
            Ok(_) => true,
            Err(error) if error.error_len().is_none() => {
                let tail = &bytes[error.valid_up_to()..];
                self.part[..tail.len()].copy_from_slice(tail);
                // At most three bytes.
                self.len = tail.len() as u8;
                true
            }
            Err(_) => false,
        }
    }

    /// Whether text may end here.
    pub(super) fn is_whole(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_text_cut_anywhere() {
        let text = "a\u{80}\u{7FF}\u{800}\u{FFFF}\u{10000}\u{10FFFF}z";

        for first in 0..=text.len() {
            for second in first..=text.len() {
                let mut utf8 = Utf8::default();
                let bytes = text.as_bytes();
                assert!(utf8.take(&bytes[..first]) && utf8.take(&bytes[first..second]) && utf8.take(&bytes[second..]));
                assert!(utf8.is_whole());
            }
        }
    }

    /// Surrogates, what is longer than need be, and what is beyond U+10FFFF: each is found with the byte that makes it so.
    #[test]
    fn finds_what_can_not_become_valid_at_once() {
        for bad in [&b"\xED\xA0"[..], b"\xC0", b"\xE0\x80", b"\xF0\x80", b"\xF4\x90", b"\xF8", b"\x80", b"\xC3\x28"] {
            let mut utf8 = Utf8::default();
            let (last, before) = bad.split_last().expect("bytes");
            for byte in before {
                assert!(utf8.take(&[*byte]), "{bad:?}");
            }
            assert!(!utf8.take(&[*last]), "{bad:?}");
        }
    }

    #[test]
    fn a_sequence_without_its_end_is_not_whole() {
        let mut utf8 = Utf8::default();

        assert!(utf8.take(b"\xF0\x9F\x98"));

        assert!(!utf8.is_whole());
    }
}
