//! Extensible priorities (RFC 9218): what a client says, and what a response says instead.
//!
//! Both say it in a structured field, a Dictionary (RFC 8941 §3.2). What can't be parsed says nothing; members that are
//! unknown, of another type or out of range are ignored (RFC 9218 §4).

use http::{HeaderMap, HeaderName, HeaderValue};

/// RFC 9218 §5.
pub(super) const PRIORITY: HeaderName = HeaderName::from_static("priority");

/// How urgent a response is, and whether a part of it is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Priority {
    /// 0 to 7; 0 is served first.
    pub(super) urgency: u8,
    /// Whether it shares the connection with others of the same urgency, instead of being sent as one piece.
    pub(super) is_incremental: bool,
}

impl Default for Priority {
    /// RFC 9218 §4.1 and §4.2.
    fn default() -> Self {
        Self { urgency: 3, is_incremental: false }
    }
}

impl Priority {
    /// This priority, but for what is said of it. RFC 9218 §8: so a response can override what the client wants.
    #[must_use]
    pub(super) fn with(self, said: Said) -> Self {
        Self {
            urgency: said.urgency.unwrap_or(self.urgency),
            is_incremental: said.is_incremental.unwrap_or(self.is_incremental),
        }
    }
}

/// What a Priority field says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    urgency: Option<u8>,
    is_incremental: Option<bool>,
}

impl Said {
    /// What a field section says.
    pub(super) fn in_fields(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(PRIORITY).iter();
        match (lines.next(), lines.next()) {
            (None, _) => Self::default(),
            (Some(line), None) => Self::read(line.as_bytes()),
            (Some(_), Some(_)) => {
                let lines: Vec<&[u8]> = headers.get_all(PRIORITY).iter().map(HeaderValue::as_bytes).collect();
                Self::read(&lines.join(&b","[..]))
            }
        }
    }

    /// What a field value says.
    pub(super) fn read(value: &[u8]) -> Self {
        let mut said = Self::default();
        let mut parser = Parser { rest: value };
        let understood = parser.dictionary(|key, item| match (key, item) {
            (b"u", Item::Integer(urgency @ 0..=7)) => said.urgency = Some(urgency as u8),
            (b"i", Item::Boolean(is_incremental)) => said.is_incremental = Some(is_incremental),
            _ => {}
        });
        if understood.is_some() { said } else { Self::default() }
    }
}

/// What a member of a Dictionary is, as far as priorities need to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Integer(i64),
    Boolean(bool),
    Other,
}

/// RFC 8941 §4.2, without keeping what nobody asks for. None: malformed.
struct Parser<'b> {
    rest: &'b [u8],
}

impl<'b> Parser<'b> {
    fn dictionary(&mut self, mut member: impl FnMut(&[u8], Item)) -> Option<()> {
        self.skip(b" ");
        while !self.rest.is_empty() {
            let key = self.key()?;
            let item = if self.eat(b'=') { self.item_or_list()? } else { Item::Boolean(true) };
            self.parameters()?;
            member(key, item);
            self.skip(b" \t");
            if self.rest.is_empty() {
                break;
            }
            if !self.eat(b',') {
                return None;
            }
            self.skip(b" \t");
            if self.rest.is_empty() {
                return None;
            }
        }
        Some(())
    }

    fn item_or_list(&mut self) -> Option<Item> {
        if !self.eat(b'(') {
            return self.bare_item();
        }
        loop {
            self.skip(b" ");
            if self.eat(b')') {
                return Some(Item::Other);
            }
            self.bare_item()?;
            self.parameters()?;
            if !matches!(self.rest.first(), Some(b' ' | b')')) {
                return None;
            }
        }
    }

    fn parameters(&mut self) -> Option<()> {
        while self.eat(b';') {
            self.skip(b" ");
            self.key()?;
            if self.eat(b'=') {
                self.bare_item()?;
            }
        }
        Some(())
    }

    fn key(&mut self) -> Option<&'b [u8]> {
        if !matches!(self.rest.first(), Some(b'a'..=b'z' | b'*')) {
            return None;
        }
        Some(self.take_while(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*')))
    }

    fn bare_item(&mut self) -> Option<Item> {
        match self.rest.first()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b'?' => {
                let value = match self.rest.get(1)? {
                    b'0' => false,
                    b'1' => true,
                    _ => return None,
                };
                self.rest = &self.rest[2..];
                Some(Item::Boolean(value))
            }
            b':' => {
                self.rest = &self.rest[1..];
                self.take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='));
                self.eat(b':').then_some(Item::Other)
            }
            b'A'..=b'Z' | b'a'..=b'z' | b'*' => {
                self.take_while(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte));
                Some(Item::Other)
            }
            _ => None,
        }
    }

    /// RFC 8941 §3.3.1: at most 15 digits, so that nothing overflows.
    fn number(&mut self) -> Option<Item> {
        let sign = if self.eat(b'-') { -1 } else { 1 };
        let digits = self.take_while(|byte| byte.is_ascii_digit());
        if digits.is_empty() || digits.len() > 15 {
            return None;
        }
        if self.eat(b'.') {
            let fraction = self.take_while(|byte| byte.is_ascii_digit());
            return (digits.len() <= 12 && matches!(fraction.len(), 1..=3)).then_some(Item::Other);
        }
        let number = digits.iter().fold(0_i64, |number, digit| number * 10 + i64::from(digit - b'0'));
        Some(Item::Integer(sign * number))
    }

    fn string(&mut self) -> Option<Item> {
        self.rest = &self.rest[1..];
        loop {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            match byte {
                b'"' => return Some(Item::Other),
                b'\\' => match self.rest.split_first()? {
                    (b'"' | b'\\', rest) => self.rest = rest,
                    _ => return None,
                },
                b' '..=b'~' => {}
                _ => return None,
            }
        }
    }

    fn skip(&mut self, bytes: &[u8]) {
        self.take_while(|byte| bytes.contains(&byte));
    }

    fn eat(&mut self, byte: u8) -> bool {
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn take_while(&mut self, holds: impl Fn(u8) -> bool) -> &'b [u8] {
        let end = self.rest.iter().position(|&byte| !holds(byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(value: &str) -> (u8, bool) {
        let priority = Priority::default().with(Said::read(value.as_bytes()));
        (priority.urgency, priority.is_incremental)
    }

    /// RFC 9218 §4 and §5, with the examples there.
    #[test]
    fn reads_urgency_and_incremental() {
        for (value, expected) in [
            ("", (3, false)),
            ("u=0", (0, false)),
            ("u=7", (7, false)),
            ("i", (3, true)),
            ("u=5, i", (5, true)),
            ("i=?1,u=1", (1, true)),
            ("u=5, i=?0", (5, false)),
            ("u=1, u=2", (2, false)),
            ("u=1;x=2;y, i;z=\"a\"", (1, true)),
        ] {
            assert_eq!(of(value), expected, "{value:?}");
        }
    }

    /// RFC 9218 §4: unknown members, members of another type and values out of range are ignored, the rest counts.
    #[test]
    fn ignores_what_it_does_not_know() {
        for value in [
            "u=8, i",
            "u=-1, i",
            "u=1.5, i",
            "u=?1, i",
            "u=\"1\", i",
            "u=(1 2), i",
            "u, i",
            "i, a=:aGk=:",
            "i, b=(a \"\\\"b\" ?0;x);y",
            "i, *c=tok/en",
            "i=5, i",
        ] {
            assert_eq!(of(value), (3, true), "{value:?}");
        }
    }

    /// RFC 8941 §4.2: where parsing fails the whole field is ignored.
    #[test]
    fn a_malformed_field_says_nothing() {
        for value in [
            "u=1,",
            "u=1 i",
            "U=1",
            "u=",
            "u=1, i=?2",
            "u=1, a=\"",
            "u=1, a=\"\\a\"",
            "u=1, a=(1",
            "u=1, a=(1,2)",
            "u=1, a=:a",
            "u=1, a=1234567890123456",
            "u=1, a=1.",
            "u=1, =1",
            "u=1\n",
            "u=1, a=ä",
        ] {
            assert_eq!(of(value), (3, false), "{value:?}");
        }
    }

    #[test]
    fn several_lines_are_one_field_and_a_response_overrides_what_it_names() {
        let mut request = HeaderMap::new();
        request.append(PRIORITY, HeaderValue::from_static("u=1"));
        request.append(PRIORITY, HeaderValue::from_static("i"));
        let mut response = HeaderMap::new();
        response.append(PRIORITY, HeaderValue::from_static("u=6"));

        let asked = Priority::default().with(Said::in_fields(&request));

        assert_eq!(asked, Priority { urgency: 1, is_incremental: true });
        assert_eq!(asked.with(Said::in_fields(&response)), Priority { urgency: 6, is_incremental: true });
        assert_eq!(asked.with(Said::in_fields(&HeaderMap::new())), asked);
    }

    proptest! {
        #[test]
        fn takes_any_bytes(value in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Said::read(&value);
        }

        #[test]
        fn reads_what_is_put_after_any_other_members(urgency in 0_u8..8, name in "[a-h][a-z0-9_.*-]{1,8}", token in "[a-zA-Z*][a-zA-Z0-9:/]{0,8}") {
            let value = format!("{name}={token}, u={urgency}");

            prop_assert_eq!(of(&value), (urgency, false));
        }
    }
}
