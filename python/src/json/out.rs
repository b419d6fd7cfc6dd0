//! The bytes that are written. Room is made once per item, and what is short is stored as whole words.
//!
//! Rules:
//! 1. Every function makes the room it needs, so all are safe to call. Behind the text there may be room that holds the
//!    rest of such a word.
//! 2. A text is looked at while it is copied: what needs no escape, which is almost all, is read once.
//! 3. A byte needs an escape if `scan` says so.

use std::mem::MaybeUninit;

use super::layout::Ascii;
use super::scan::{copy_plain, has_mark, is_mark, marks};

/// A short piece of what was written: no more than [`LONGEST_PIECE`] bytes.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    start: usize,
    length: usize,
}

const LONGEST_PIECE: usize = 32;

pub(super) struct Out {
    bytes: Vec<u8>,
}

impl Out {
    #[inline]
    pub(super) fn new(bytes: Vec<u8>) -> Out {
        Out { bytes }
    }

    #[inline]
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    #[inline]
    pub(super) fn push(&mut self, byte: u8) {
        self.put([byte], 1);
    }

    #[inline]
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Replaces the last byte.
    #[inline]
    pub(super) fn replace_last(&mut self, byte: u8) {
        if let Some(last) = self.bytes.last_mut() {
            *last = byte;
        }
    }

    /// Appends the first `length` of `bytes`.
    #[inline]
    pub(super) fn put<const N: usize>(&mut self, bytes: [u8; N], length: usize) {
        debug_assert!(length <= N);
        let end = self.room(N);
        // SAFETY: there is room for N bytes, of which the first `length` are then set.
        unsafe {
            end.cast::<[u8; N]>().write(bytes);
            self.advance(length.min(N));
        }
    }

    /// What was written from `start` on, if it is short enough for a piece.
    #[inline]
    pub(super) fn piece(&self, start: usize) -> Option<Piece> {
        let length = self.len().checked_sub(start)?;
        (length <= LONGEST_PIECE).then_some(Piece { start, length })
    }

    /// Appends a piece again.
    ///
    /// # Safety
    /// It is of this `Out`.
    #[inline]
    pub(super) unsafe fn repeat(&mut self, piece: Piece) {
        let end = self.room(LONGEST_PIECE);
        // SAFETY: there is room for 32 bytes behind the end, and so behind `start`, as an `Out` never becomes shorter. They
        // are moved as one value, as both places may overlap, of bytes that may not be set; of the piece itself all are.
        unsafe {
            let bytes = self.bytes.as_ptr().add(piece.start).cast::<[MaybeUninit<u8>; LONGEST_PIECE]>().read();
            end.cast::<[MaybeUninit<u8>; LONGEST_PIECE]>().write(bytes);
            self.advance(piece.length);
        }
    }

    /// Appends a text in quotes, and `after`, if it needs no escape. Otherwise appends nothing and returns false.
    ///
    /// # Safety
    /// The text's `str` has to be alive.
    #[inline]
    pub(super) unsafe fn quote_ascii(&mut self, text: Ascii, after: u8) -> bool {
        let length = text.len();
        if length >= 8 {
            // SAFETY: by the caller's word it lives for as long as the slice does.
            return self.quote(unsafe { text.bytes() }, after);
        }
        // SAFETY: less than eight bytes, and alive by the caller's word.
        let word = unsafe { text.short_word() };
        // Spaces above the text, as zeros would need escapes.
        if marks(word | SPACES << (8 * length)) != 0 {
            return false;
        }
        let end = self.room(16);
        // SAFETY: there is room for 16 bytes, and of 7 + 3 at most all are set here.
        unsafe {
            end.write(b'"');
            end.add(1).cast::<[u8; 8]>().write(word.to_le_bytes());
            end.add(1 + length).cast::<[u8; 2]>().write([b'"', after]);
            self.advance(length + 3);
        }
        true
    }

    /// As `quote_ascii`, of any UTF-8.
    #[inline]
    pub(super) fn quote(&mut self, text: &[u8], after: u8) -> bool {
        let length = text.len();
        let end = self.room(length + 3);
        // SAFETY: there is room for the text and three bytes, and all are set here.
        unsafe {
            if has_mark_while_copied(text, end.add(1)) {
                return false;
            }
            end.write(b'"');
            end.add(1 + length).cast::<[u8; 2]>().write([b'"', after]);
            self.advance(length + 3);
        }
        true
    }

    /// Appends a text without quotes, with escapes where it needs them.
    #[cold]
    #[inline(never)]
    pub(super) fn escape(&mut self, text: &[u8]) {
        let mut rest = &text[copy_plain(text, &mut self.bytes)..];
        while let Some((&byte, tail)) = rest.split_first() {
            self.escape_character(byte.into());
            let length = copy_plain(tail, &mut self.bytes);
            rest = &tail[length..];
        }
    }

    /// Appends one character of the basic plane as an escape.
    #[inline]
    fn escape_character(&mut self, character: u16) {
        let short = match character {
            0x22 => b'"',
            0x5C => b'\\',
            0x0A => b'n',
            0x0D => b'r',
            0x09 => b't',
            0x08 => b'b',
            0x0C => b'f',
            _ => {
                let digit = |shift: u16| b"0123456789abcdef"[usize::from(character >> shift & 15)];
                self.put([b'\\', b'u', digit(12), digit(8), digit(4), digit(0)], 6);
                return;
            }
        };
        self.put([b'\\', short], 2);
    }

    /// Appends a text of code points in quotes, with escapes where it needs them or has lone surrogates, and `after`.
    pub(super) fn quote_characters<T: Copy + Into<u32>>(&mut self, text: &[T], after: u8) {
        self.push(b'"');
        for &character in text {
            let character: u32 = character.into();
            let tail = |shift: u32| 0x80 | (character >> shift & 0x3F) as u8;
            match character {
                0..0x80 if is_mark(character as u8) => self.escape_character(character as u16),
                0..0x80 => self.push(character as u8),
                0x80..0x800 => self.put([0xC0 | (character >> 6) as u8, tail(0)], 2),
                0xD800..0xE000 => self.escape_character(character as u16),
                0x800..0x10000 => self.put([0xE0 | (character >> 12) as u8, tail(6), tail(0)], 3),
                _ => self.put([0xF0 | (character >> 18) as u8, tail(12), tail(6), tail(0)], 4),
            }
        }
        self.put([b'"', after], 2);
    }

    /// Appends an integer and a comma.
    #[inline]
    pub(super) fn integer(&mut self, value: i64) {
        if (0..10_000).contains(&value) {
            let (digits, zeros) = four_digits(value as u32);
            let word = (u64::from(digits) | u64::from(b',') << 32) >> (8 * zeros);
            self.put(word.to_le_bytes(), 5 - zeros);
        } else {
            self.large_integer(value);
        }
    }

    #[inline(never)]
    fn large_integer(&mut self, value: i64) {
        let magnitude = value.unsigned_abs();
        if magnitude >= 100_000_000 {
            self.short(itoa::Buffer::new().format(value).as_bytes());
            return;
        }
        let (digits, zeros) = eight_digits(magnitude as u32);
        let end = self.room(16);
        // SAFETY: there is room for 16 bytes, and of 1 + 8 + 1 at most all are set here.
        unsafe {
            end.write(b'-');
            let sign = usize::from(value < 0);
            end.add(sign).cast::<[u8; 8]>().write((digits >> (8 * zeros)).to_le_bytes());
            end.add(sign + 8 - zeros).write(b',');
            self.advance(sign + 9 - zeros);
        }
    }

    /// Appends a finite float and a comma.
    #[inline]
    pub(super) fn float(&mut self, value: f64) {
        let magnitude = value.abs();
        if magnitude < 999_999.0 {
            // SAFETY: finite, not negative, and below 10^8.
            let hundredths: u32 = unsafe { (magnitude * 100.0 + 0.5).to_int_unchecked() };
            // If this division, which IEEE 754 rounds correctly, gives the value, then the decimal reads back as it. No
            // shorter one does, as no two decimals of up to 15 digits read as the same float.
            if f64::from(hundredths) / 100.0 == magnitude {
                self.hundredths(value.is_sign_negative(), hundredths);
                return;
            }
        }
        self.short(zmij::Buffer::new().format_finite(value).as_bytes());
    }

    /// Appends a decimal of two places, of which the second is left out if it is zero, and a comma.
    #[inline]
    fn hundredths(&mut self, is_negative: bool, hundredths: u32) {
        debug_assert!(hundredths < 100_000_000);
        let (digits, zeros) = eight_digits(hundredths);
        let zeros = zeros.min(5);
        let has_second = digits >> 56 != u64::from(b'0');
        let end = self.room(24);
        // SAFETY: there is room for 24 bytes, and of 1 + 6 + 1 + 2 + 1 at most all are set here.
        unsafe {
            end.write(b'-');
            let sign = usize::from(is_negative);
            end.add(sign).cast::<[u8; 8]>().write((digits >> (8 * zeros)).to_le_bytes());
            let point = end.add(sign + 6 - zeros);
            // '.', both places, ','.
            let rest = u64::from(b'.') | (digits >> 48) << 8;
            let places = 2 + usize::from(has_second);
            point.cast::<[u8; 8]>().write(rest.to_le_bytes());
            point.add(places).write(b',');
            self.advance(sign + 6 - zeros + places + 1);
        }
    }

    /// Appends a few bytes, which is not worth the call of `memcpy`, and a comma.
    #[inline]
    fn short(&mut self, bytes: &[u8]) {
        let length = bytes.len();
        let end = self.room(length + 1);
        // SAFETY: there is room for the bytes and one more, and all are set here.
        unsafe {
            copy(bytes, end);
            end.add(length).write(b',');
            self.advance(length + 1);
        }
    }

    /// Makes room for `count` more bytes, and returns where they go.
    #[inline]
    fn room(&mut self, count: usize) -> *mut u8 {
        if self.bytes.capacity() - self.bytes.len() < count {
            self.grow(count);
        }
        // SAFETY: the length is never more than the capacity.
        unsafe { self.bytes.as_mut_ptr().add(self.bytes.len()) }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, count: usize) {
        self.bytes.reserve(count);
    }

    /// # Safety
    /// There is room for `count` bytes, and they are set.
    #[inline]
    unsafe fn advance(&mut self, count: usize) {
        // SAFETY: by the caller's word.
        unsafe { self.bytes.set_len(self.bytes.len() + count) };
    }
}

const SPACES: u64 = u64::from_le_bytes([b' '; 8]);

/// Copies a text, and returns whether a byte of it needs an escape.
///
/// # Safety
/// `to` has room for the text.
#[inline]
unsafe fn has_mark_while_copied(text: &[u8], to: *mut u8) -> bool {
    let Some(last) = text.last_chunk::<16>() else {
        // SAFETY: by the caller's word.
        unsafe { copy(text, to) };
        return has_mark_in_short(text);
    };
    let (chunks, _) = text.as_chunks::<16>();
    let mut at = 0;
    for chunk in chunks {
        // SAFETY: a chunk of the text, so there is room.
        unsafe { to.add(at).cast::<[u8; 16]>().write(*chunk) };
        if has_mark(chunk) {
            return true;
        }
        at += 16;
    }
    // What is behind the last whole chunk, with bytes before that were copied already.
    // SAFETY: the last 16 bytes of the text, so there is room.
    unsafe { to.add(text.len() - 16).cast::<[u8; 16]>().write(*last) };
    has_mark(last)
}

/// Whether one of less than 16 bytes needs an escape.
#[inline]
fn has_mark_in_short(text: &[u8]) -> bool {
    if let (Some(front), Some(back)) = (text.first_chunk::<8>(), text.last_chunk::<8>()) {
        return marks(u64::from_le_bytes(*front)) | marks(u64::from_le_bytes(*back)) != 0;
    }
    has_mark(text)
}

/// Copies bytes: short ones as two words that overlap.
///
/// # Safety
/// `to` has room for them.
#[inline]
unsafe fn copy(bytes: &[u8], to: *mut u8) {
    let length = bytes.len();
    // SAFETY: each word lies within the bytes, and there is as much room.
    unsafe {
        if let (Some(front), Some(back)) = (bytes.first_chunk::<16>(), bytes.last_chunk::<16>()) {
            if length > 32 {
                to.copy_from_nonoverlapping(bytes.as_ptr(), length);
                return;
            }
            to.cast::<[u8; 16]>().write(*front);
            to.add(length - 16).cast::<[u8; 16]>().write(*back);
        } else if let (Some(front), Some(back)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
            to.cast::<[u8; 8]>().write(*front);
            to.add(length - 8).cast::<[u8; 8]>().write(*back);
        } else if let (Some(front), Some(back)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
            to.cast::<[u8; 4]>().write(*front);
            to.add(length - 4).cast::<[u8; 4]>().write(*back);
        } else {
            for (at, byte) in bytes.iter().enumerate() {
                to.add(at).write(*byte);
            }
        }
    }
}

/// The decimal digits of a number below 10^8, the first in the lowest byte, and how many zeros are in front (seven of
/// the eight at most). Splits four, two and one digits off at once: "SIMD within a register".
#[inline]
fn eight_digits(number: u32) -> (u64, usize) {
    debug_assert!(number < 100_000_000);
    let (high, low) = (u64::from(number / 10_000), u64::from(number % 10_000));
    let fours = high | low << 32;
    // 10486 / 2^20 and 103 / 2^10 are a hundredth and a tenth, close enough for four and two digits.
    let hundreds = ((fours * 10_486) >> 20) & 0x0000_007F_0000_007F;
    let twos = hundreds | (fours - hundreds * 100) << 16;
    let tens = ((twos * 103) >> 10) & 0x000F_000F_000F_000F;
    let digits = tens | (twos - tens * 10) << 8;
    let zeros = ((digits | 1 << 56).trailing_zeros() / 8) as usize;
    (digits | 0x3030_3030_3030_3030, zeros)
}

/// As `eight_digits`, of a number below 10^4.
#[inline]
fn four_digits(number: u32) -> (u32, usize) {
    debug_assert!(number < 10_000);
    let hundreds = (number * 10_486) >> 20;
    let twos = hundreds | (number - hundreds * 100) << 16;
    let tens = ((twos * 103) >> 10) & 0x000F_000F;
    let digits = tens | (twos - tens * 10) << 8;
    let zeros = ((digits | 1 << 24).trailing_zeros() / 8) as usize;
    (digits | 0x3030_3030, zeros)
}

#[cfg(test)]
mod tests {
    use super::{Out, eight_digits, four_digits};
    use crate::json::scan::plain;

    fn written(write: impl FnOnce(&mut Out)) -> String {
        let mut out = Out::new(Vec::new());
        write(&mut out);
        String::from_utf8(out.into_bytes()).expect("what is written is UTF-8")
    }

    /// Numbers of every length and size, neither random nor regular.
    fn numbers() -> impl Iterator<Item = u64> {
        let mut state = 1_u64;
        (0..200_000).map(move |step| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> (step % 64)
        })
    }

    #[test]
    fn digits_are_those_of_the_number() {
        for number in (0..100_000_000).step_by(997).chain(0..100_000).chain([99_999_999, 10_000_000]) {
            let (digits, zeros) = eight_digits(number);

            let expected = format!("{number:08}");
            assert_eq!(digits.to_le_bytes(), expected.as_bytes());
            assert_eq!(zeros, 8 - number.to_string().len());
            if number < 10_000 {
                let (digits, zeros) = four_digits(number);
                assert_eq!(digits.to_le_bytes(), expected.as_bytes()[4..]);
                assert_eq!(zeros, 4 - number.to_string().len());
            }
        }
    }

    #[test]
    fn integers_are_spelt_as_itoa_spells_them() {
        let ends = [0, 9, 10, 99_999_999, 100_000_000, i64::MAX, i64::MIN];
        for number in numbers().map(|number| number as i64).chain(ends) {
            for number in [number, number.wrapping_neg()] {
                assert_eq!(written(|out| out.integer(number)), format!("{number},"));
            }
        }
    }

    #[test]
    fn floats_are_spelt_as_zmij_spells_them() {
        let bits = numbers().map(f64::from_bits).filter(|float| float.is_finite());
        let decimals = numbers().flat_map(|number| {
            let whole = (number % 200_000_000) as f64;
            [whole, whole / 2.0, whole / 10.0, whole / 100.0, whole / 1000.0, (whole / 100.0).next_up()]
        });
        let ends = [0.0, 0.01, 0.005, 0.1, 999_998.99, 999_999.0, 1e6, 5e-324, f64::MAX];
        for float in bits.chain(decimals).chain(ends) {
            for float in [float, -float] {
                let expected = format!("{},", zmij::Buffer::new().format_finite(float));
                assert_eq!(written(|out| out.float(float)), expected);
            }
        }
    }

    #[test]
    fn a_text_is_quoted_only_if_all_of_it_is_plain() {
        for length in 0..70 {
            for place in 0..=length {
                for byte in 0..=255_u8 {
                    let mut text = vec![b'x'; length];
                    if let Some(slot) = text.get_mut(place) {
                        *slot = byte;
                    }

                    let mut out = Out::new(b"before".to_vec());
                    let quoted = out.quote(&text, b',');

                    let is_plain = plain(&text) == length;
                    assert_eq!(quoted, is_plain, "{byte:#x} at {place} of {length}");
                    let expected =
                        if is_plain { [b"before\"", &text[..], b"\","].concat() } else { b"before".to_vec() };
                    assert_eq!(out.into_bytes(), expected);
                }
            }
        }
    }

    #[test]
    fn repeats_what_it_just_wrote() {
        for length in 0..=32 {
            let text: String = ('A'..).take(length).collect();

            let repeated = written(|out| {
                out.extend(text.as_bytes());
                let piece = out.piece(0).expect("it is short");
                // SAFETY: it is of this `Out`.
                unsafe {
                    out.repeat(piece);
                    out.repeat(piece);
                }
            });

            assert_eq!(repeated, text.repeat(3));
        }
    }
}
