//! The values of path parameters, as routing found them.

/// Four, because deeper resources are rare: `/{owner}/{repository}/{branch}/{path:path}` still fits.
const INLINE: usize = 4;

/// The values that a path has for its pattern's parameters, in the order of the pattern.
///
/// While nothing had to be decoded the values are ranges of the path, which therefore is given again to read them: this
/// type borrows nothing and can travel with the request. Up to four values need no allocation; decoding needs one.
#[derive(Clone, Debug, Default)]
pub struct Params {
    first: [Span; INLINE],
    more: Vec<Span>,
    count: usize,
    /// All values, one after the other, if the path had anything to decode.
    decoded: Option<Box<str>>,
}

/// A range of bytes; half the size of `Range<usize>`.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u32,
    end: u32,
}

impl Params {
    /// The value of the parameter at `index`, counted from 0; none past the last one.
    ///
    /// `path` is the path that was looked up.
    #[inline]
    pub fn get<'a>(&'a self, path: &'a str, index: usize) -> Option<&'a str> {
        if index >= self.count {
            return None;
        }
        let span = self.first.get(index).or_else(|| self.more.get(index - INLINE))?;
        // A mount that was reached without a slash leaves an empty path, which was looked up as `/`.
        self.decoded.as_deref().unwrap_or(path).get(span.start as usize..span.end as usize).or(Some(""))
    }

    /// The casts lose nothing: `Table::find` refuses paths longer than `u32`, and decoding only shortens.
    #[inline]
    pub(crate) fn push(&mut self, start: usize, end: usize) {
        let span = Span { start: start as u32, end: end as u32 };
        match self.first.get_mut(self.count) {
            Some(place) => *place = span,
            None => self.more.push(span),
        }
        self.count += 1;
    }

    /// All values, one after the other, where the path had anything to decode: the ranges are of this text then.
    pub(crate) fn set_decoded(&mut self, decoded: String) {
        self.decoded = Some(decoded.into());
    }
}
