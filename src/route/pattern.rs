//! A path pattern: what `"/users/{id:int}"` is read into, what its parts accept, and how its URL is built again.
//!
//! Rules
//! 1. A pattern is text, not percent-encoded: `/café` is the path `/caf%C3%A9`, and `%` in a pattern is a percent sign.
//! 2. `/` separates segments. A segment is a literal, or one parameter with an optional literal before and after it.
//! 3. `{id:int}`, `<int:id>` are one thing; so are `{id}`, `<id>`, `:id`; so are `{rest:path}`, `<path:rest>`, `*rest`.
//! 4. A `path` parameter is a whole segment and the last one.
//! 5. Parameter names are identifiers, because they become Python parameter names, and occur once.

use std::cmp::Reverse;
use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// A parsed path pattern.
///
/// `Display` writes the canonical spelling, which parses to an equal pattern.
///
/// ```
/// use httpy::route::Pattern;
///
/// let pattern = Pattern::parse("/users/<int:id>/files/*rest")?;
///
/// assert_eq!(pattern.to_string(), "/users/{id:int}/files/{rest:path}");
/// assert_eq!(pattern.build(&[("id", "7"), ("rest", "a b/c")]).unwrap(), "/users/7/files/a%20b/c");
/// # Ok::<(), httpy::route::PatternError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    segments: Vec<Segment>,
}

/// What text a parameter accepts. The value stays text; whoever asked for an `int` converts it.
///
/// The variants are in the order in which they are tried: the one that accepts less comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Converter {
    /// ASCII digits, at most 4300 of them.
    Int,
    /// ASCII digits, optionally a point and more digits.
    Float,
    /// Hexadecimal digits in groups of 8-4-4-4-12.
    Uuid,
    /// One segment that is not empty; the default.
    Str,
    /// The rest of the path, slashes included; may be empty.
    Path,
}

/// One part of a pattern between slashes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Segment {
    Literal(Box<str>),
    Parameter(Parameter),
}

/// A parameter and its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Parameter {
    pub(super) name: Box<str>,
    pub(super) shape: Shape,
}

/// What a parameter's segment looks like, whatever its name. Ordered: the more specific shape is less.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub(super) converter: Converter,
    pub(super) prefix: Box<str>,
    pub(super) suffix: Box<str>,
}

impl Pattern {
    /// Reads a pattern in any of the spellings.
    ///
    /// # Errors
    /// Says what was found, what was expected and at which character.
    pub fn parse(pattern: &str) -> Result<Self, PatternError> {
        Parser { pattern }.parse()
    }

    /// The parameters in the order in which they are written, which is the order of [`Params`](super::Params).
    pub fn parameters(&self) -> impl Iterator<Item = (&str, Converter)> {
        self.named().map(|parameter| (&*parameter.name, parameter.shape.converter))
    }

    /// Builds the percent-encoded path that this pattern matches with the given values, by name.
    ///
    /// # Errors
    /// Names the parameter that is missing, unknown, or whose value it does not accept. The segments `.` and `..` are
    /// refused, because clients remove them, encoded or not, before they send a path (RFC 3986 §5.2.4, §6.2.2.3).
    pub fn build(&self, values: &[(&str, &str)]) -> Result<String, BuildError> {
        if let Some((name, _)) = values.iter().find(|(name, _)| self.named().all(|parameter| *parameter.name != **name))
        {
            return Err(BuildError::Unknown { parameter: (*name).to_owned() });
        }
        let mut path = String::new();
        for segment in &self.segments {
            let is_first = path.is_empty();
            path.push('/');
            match segment {
                Segment::Literal(text) => path.extend(utf8_percent_encode(text, ENCODED_IN_SEGMENT)),
                Segment::Parameter(parameter) => path.push_str(&parameter.fill(values, is_first)?),
            }
        }
        Ok(path)
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The whole path, if there is only one that this pattern matches.
    pub(super) fn static_path(&self) -> Option<String> {
        self.named().next().is_none().then(|| self.to_string())
    }

    fn named(&self) -> impl Iterator<Item = &Parameter> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Literal(_) => None,
            Segment::Parameter(parameter) => Some(parameter),
        })
    }
}

impl Parameter {
    /// The encoded segment, or segments, with this parameter's value among `values`.
    fn fill(&self, values: &[(&str, &str)], is_first: bool) -> Result<String, BuildError> {
        let Some((_, value)) = values.iter().find(|(name, _)| *self.name == **name) else {
            return Err(BuildError::Missing { parameter: self.name.to_string() });
        };
        let unfit =
            |expected| BuildError::Unfit { parameter: self.name.to_string(), value: (*value).to_owned(), expected };
        let Shape { converter, prefix, suffix } = &self.shape;
        if !converter.accepts(value) {
            return Err(unfit(converter.expects()));
        }
        let text = format!("{prefix}{value}{suffix}");
        if *converter != Converter::Path {
            return match text.as_str() {
                "." | ".." => Err(unfit("a segment other than `.` and `..`, which clients remove from paths")),
                _ => Ok(utf8_percent_encode(&text, ENCODED_IN_SEGMENT).to_string()),
            };
        }
        // RFC 3986 §4.2: a reference that starts with `//` names a host, so `//evil.example` must not come out of here.
        if is_first && text.starts_with('/') {
            return Err(unfit("no leading slash, because `//` would start a host name"));
        }
        if text.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err(unfit("segments other than `.` and `..`, which clients remove from paths"));
        }
        Ok(utf8_percent_encode(&text, ENCODED_IN_PATH).to_string())
    }
}

impl Shape {
    /// The parameter's value in a decoded segment, if the segment has this shape.
    #[inline]
    pub(super) fn value<'t>(&self, segment: &'t str) -> Option<&'t str> {
        // Comparing with an empty `Box<str>` gives glibc's AVX-512 `memcmp` a dangling pointer. It reads no byte of it, but
        // the suppressed fault costs 100 ns on AMD EPYC; hence the checks.
        let mut value = segment;
        if !self.prefix.is_empty() {
            value = value.strip_prefix(&*self.prefix)?;
        }
        if !self.suffix.is_empty() {
            value = value.strip_suffix(&*self.suffix)?;
        }
        self.converter.accepts(value).then_some(value)
    }
}

impl Ord for Shape {
    /// Converter first, then the longer literal text, so that `1{x:int}` is tried before `{x:int}`. The rest of the key
    /// only makes the order independent of the order of registration.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        fn key(shape: &Shape) -> impl Ord + '_ {
            let (prefix, suffix) = (shape.prefix.len(), shape.suffix.len());
            (shape.converter, Reverse(prefix + suffix), Reverse(prefix), &shape.prefix, &shape.suffix)
        }
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Shape {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Converter {
    /// The name in a pattern: `int` in `{id:int}`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::Float => "float",
            Self::Uuid => "uuid",
            Self::Str => "str",
            Self::Path => "path",
        }
    }

    /// `string` is how Flask spells `str`.
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "int" => Self::Int,
            "float" => Self::Float,
            "uuid" => Self::Uuid,
            "str" | "string" => Self::Str,
            "path" => Self::Path,
            _ => return None,
        })
    }

    #[inline]
    fn accepts(self, value: &str) -> bool {
        match self {
            Self::Int => is_digits(value) && value.len() <= MAX_INT_DIGITS,
            Self::Float => match value.split_once('.') {
                Some((whole, fraction)) => is_digits(whole) && is_digits(fraction),
                None => is_digits(value),
            },
            Self::Uuid => is_uuid(value),
            Self::Str => !value.is_empty(),
            Self::Path => true,
        }
    }

    fn expects(self) -> &'static str {
        match self {
            Self::Int => "1 to 4300 digits (int)",
            Self::Float => "digits, optionally a point and more digits (float)",
            Self::Uuid => "hexadecimal digits in groups of 8-4-4-4-12 (uuid)",
            Self::Str => "text that is not empty (str)",
            Self::Path => "a path (path)",
        }
    }
}

fn is_digits(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_uuid(value: &str) -> bool {
    value.len() == 36
        && value.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::Parameter(Parameter { name, shape: Shape { converter: Converter::Str, prefix, suffix } }) => {
                    write!(f, "/{prefix}{{{name}}}{suffix}")?;
                }
                Segment::Parameter(Parameter { name, shape: Shape { converter, prefix, suffix } }) => {
                    write!(f, "/{prefix}{{{name}:{}}}{suffix}", converter.name())?;
                }
            }
        }
        Ok(())
    }
}

/// Reads one pattern. Every part it looks at is a slice of `pattern`, so that an error can say where it is.
struct Parser<'p> {
    pattern: &'p str,
}

impl<'p> Parser<'p> {
    fn parse(&self) -> Result<Pattern, PatternError> {
        let Some(rest) = self.pattern.strip_prefix('/') else {
            return Err(self.error(self.pattern, "a pattern starts with `/`"));
        };
        if rest.starts_with('/') {
            // RFC 3986 §3.3, §4.2: `//` starts an authority, so a link to such a path leads to another host.
            return Err(self.error(rest, "a pattern starts with one `/`; `//` would start a host name"));
        }
        if let Some(at) = rest.find(['?', '#']) {
            return Err(
                self.error(&rest[at..], "found `?` or `#`; a pattern holds the path only, no query or fragment")
            );
        }
        let mut segments: Vec<Segment> = Vec::new();
        let mut names: Vec<&str> = Vec::new();
        let mut unfinished_path: Option<&str> = None;
        for text in rest.split('/') {
            if let Some(path) = unfinished_path {
                return Err(self.error(path, "a `path` parameter takes the rest of the path, so it must come last"));
            }
            let (segment, name) = self.segment(text)?;
            if let Some(name) = name {
                if names.contains(&name) {
                    return Err(self.error(name, format!("parameter `{name}` is named twice")));
                }
                names.push(name);
            }
            if matches!(&segment, Segment::Parameter(Parameter { shape, .. }) if shape.converter == Converter::Path) {
                unfinished_path = Some(text);
            }
            segments.push(segment);
        }
        Ok(Pattern { segments })
    }

    /// One segment, and the name of the parameter in it.
    fn segment(&self, text: &'p str) -> Result<(Segment, Option<&'p str>), PatternError> {
        if let Some(name) = text.strip_prefix(':') {
            return self.parameter("", name, Converter::Str, "");
        }
        if let Some(name) = text.strip_prefix('*') {
            return self.parameter("", name, Converter::Path, "");
        }
        let Some(open) = text.find(BRACKETS) else {
            return Ok((Segment::Literal(text.into()), None));
        };
        let close_bracket = match text.as_bytes()[open] {
            b'{' => '}',
            b'<' => '>',
            _ => return Err(self.error(&text[open..], "found a closing bracket without its opening one")),
        };
        let (prefix, inside) = (&text[..open], &text[open + 1..]);
        let Some(close) = inside.find(close_bracket) else {
            return Err(self.error(&text[open..], format!("expected `{close_bracket}` before the segment ends")));
        };
        let (inside, suffix) = (&inside[..close], &inside[close + 1..]);
        if let Some(second) = suffix.find(BRACKETS) {
            return Err(self.error(&suffix[second..], "a segment holds one parameter; found another bracket after it"));
        }
        let (name, converter) = match inside.split_once(':') {
            None => (inside, "str"),
            Some((name, converter)) if close_bracket == '}' => (name, converter),
            Some((converter, name)) => (name, converter),
        };
        let Some(known) = Converter::from_name(converter) else {
            let what = format!("unknown converter `{converter}`; expected str, int, float, uuid or path");
            return Err(self.error(if converter.is_empty() { inside } else { converter }, what));
        };
        if known == Converter::Path && text.len() != inside.len() + 2 {
            return Err(self.error(text, "a `path` parameter must be a whole segment, without text around it"));
        }
        self.parameter(prefix, name, known, suffix)
    }

    fn parameter(
        &self,
        prefix: &str,
        name: &'p str,
        converter: Converter,
        suffix: &str,
    ) -> Result<(Segment, Option<&'p str>), PatternError> {
        let is_identifier = name.chars().next().is_some_and(|first| first == '_' || first.is_alphabetic())
            && name.chars().all(|other| other == '_' || other.is_alphanumeric());
        if !is_identifier {
            let what = format!("expected a parameter name (letters, digits, `_`, no digit first), found `{name}`");
            return Err(self.error(name, what));
        }
        let shape = Shape { converter, prefix: prefix.into(), suffix: suffix.into() };
        Ok((Segment::Parameter(Parameter { name: name.into(), shape }), Some(name)))
    }

    /// An error about `part`, which is a slice of the pattern.
    fn error(&self, part: &str, what: impl Into<String>) -> PatternError {
        let at = part.as_ptr() as usize - self.pattern.as_ptr() as usize;
        let character = self.pattern[..at].chars().count() + 1;
        PatternError { pattern: self.pattern.to_owned(), character, what: what.into() }
    }
}

/// A pattern that cannot be read. `Display` says what was found, what was expected and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    pattern: String,
    /// Counted from 1.
    character: usize,
    what: String,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "path pattern `{}`, character {}: {}", self.pattern, self.character, self.what)
    }
}

impl std::error::Error for PatternError {}

/// Why a path cannot be built from a pattern and values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildError {
    /// The pattern has a parameter that got no value.
    Missing {
        /// The parameter's name.
        parameter: String,
    },
    /// There is a value for a parameter that the pattern does not have.
    Unknown {
        /// The name that the value came with.
        parameter: String,
    },
    /// The parameter does not accept the value.
    Unfit {
        /// The parameter's name.
        parameter: String,
        /// The value it was given.
        value: String,
        /// What it accepts.
        expected: &'static str,
    },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { parameter } => write!(f, "path parameter `{parameter}` has no value"),
            Self::Unknown { parameter } => write!(f, "the path has no parameter `{parameter}`"),
            Self::Unfit { parameter, value, expected } => {
                write!(f, "path parameter `{parameter}` is `{value}`; expected {expected}")
            }
        }
    }
}

impl std::error::Error for BuildError {}

const BRACKETS: [char; 4] = ['{', '}', '<', '>'];

/// Python refuses to convert more digits to an `int` (`sys.int_info.default_max_str_digits`), to keep the quadratic
/// conversion short.
const MAX_INT_DIGITS: usize = 4300;

/// RFC 3986 §3.3: everything but `pchar` is encoded.
const ENCODED_IN_SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

const ENCODED_IN_PATH: &AsciiSet = &ENCODED_IN_SEGMENT.remove(b'/');

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn canonical(pattern: &str) -> String {
        Pattern::parse(pattern).unwrap().to_string()
    }

    fn complaint(pattern: &str) -> String {
        Pattern::parse(pattern).unwrap_err().to_string()
    }

    fn built(pattern: &str, values: &[(&str, &str)]) -> Result<String, String> {
        Pattern::parse(pattern).unwrap().build(values).map_err(|error| error.to_string())
    }

    #[test]
    fn every_spelling_has_one_canonical_form() {
        assert_eq!(canonical("/"), "/");
        assert_eq!(canonical("/users/"), "/users/");
        assert_eq!(canonical("/{id}"), "/{id}");
        assert_eq!(canonical("/{id:str}"), "/{id}");
        assert_eq!(canonical("/<id>"), "/{id}");
        assert_eq!(canonical("/<string:id>"), "/{id}");
        assert_eq!(canonical("/:id"), "/{id}");
        assert_eq!(canonical("/<int:id>"), "/{id:int}");
        assert_eq!(canonical("/*rest"), "/{rest:path}");
        assert_eq!(canonical("/<path:rest>"), "/{rest:path}");
        assert_eq!(canonical("/@<user>"), "/@{user}");
        assert_eq!(canonical("/v<float:version>.json"), "/v{version:float}.json");
    }

    #[test]
    fn colon_and_star_inside_a_segment_are_literal() {
        assert_eq!(canonical("/things/{id}:cancel"), "/things/{id}:cancel");
        assert_eq!(canonical("/a*b"), "/a*b");
    }

    #[test]
    fn parameters_come_in_written_order_with_their_converters() {
        let pattern = Pattern::parse("/{a:int}/x/{b:uuid}/{c}/{d:float}/*e").unwrap();

        let parameters: Vec<_> = pattern.parameters().collect();

        let expected = [
            ("a", Converter::Int),
            ("b", Converter::Uuid),
            ("c", Converter::Str),
            ("d", Converter::Float),
            ("e", Converter::Path),
        ];
        assert_eq!(parameters, expected);
    }

    #[test]
    fn names_may_be_any_letters() {
        assert_eq!(canonical("/{größe}/{_x1}"), "/{größe}/{_x1}");
    }

    #[test]
    fn errors_say_what_and_where() {
        let cases = [
            ("", "character 1: a pattern starts with `/`"),
            ("users", "character 1: a pattern starts with `/`"),
            ("//evil", "character 2: a pattern starts with one `/`"),
            ("/a?b={c}", "character 3: found `?` or `#`"),
            ("/é/{id:number}", "character 8: unknown converter `number`; expected str, int, float, uuid or path"),
            ("/<min(1):id>", "character 3: unknown converter `min(1)`"),
            ("/{id:}", "character 3: unknown converter ``"),
            ("/a/{id", "character 4: expected `}` before the segment ends"),
            ("/a/{id/b}", "character 4: expected `}` before the segment ends"),
            ("/a/<id}", "character 4: expected `>` before the segment ends"),
            ("/a/id}", "character 6: found a closing bracket"),
            ("/{a}-{b}", "character 6: a segment holds one parameter"),
            ("/{}", "character 3: expected a parameter name"),
            ("/*", "character 3: expected a parameter name"),
            ("/:", "character 3: expected a parameter name"),
            ("/{1st}", "found `1st`"),
            ("/{user-id}", "found `user-id`"),
            ("/:id.json", "found `id.json`"),
            ("/{a}/b/{a:int}", "character 9: parameter `a` is named twice"),
            ("/{p:path}/edit", "character 2: a `path` parameter takes the rest of the path, so it must come last"),
            ("/{p:path}/", "character 2: a `path` parameter takes the rest"),
            ("/v{p:path}", "character 2: a `path` parameter must be a whole segment"),
        ];

        for (pattern, expected) in cases {
            let complaint = complaint(pattern);

            assert!(complaint.starts_with(&format!("path pattern `{pattern}`, ")), "{complaint}");
            assert!(complaint.contains(expected), "{complaint} lacks {expected}");
        }
    }

    #[test]
    fn converters_accept_what_they_promise() {
        let longest = "9".repeat(4300);
        let too_long = "9".repeat(4301);
        let uuid = "01234567-89ab-CDEF-0123-456789abcdef";
        let cases = [
            (Converter::Int, vec!["0", "007", &longest], vec!["", "-1", "+1", "1.0", "٣", " 1", &too_long]),
            (Converter::Float, vec!["1", "1.5", "00.10"], vec!["", ".5", "1.", "1.2.3", "-1.0", "1e3", "nan"]),
            (
                Converter::Uuid,
                vec![uuid],
                vec![
                    "",
                    &uuid[1..],
                    "01234567-89ab-CDEF-0123-456789abcdef0",
                    "0123456789abcdef0123456789abcdef",
                    "------------------------------------",
                ],
            ),
            (Converter::Str, vec!["a", "a/b", "é"], vec![""]),
            (Converter::Path, vec!["", "a", "/a//b/"], vec![]),
        ];

        for (converter, accepted, refused) in cases {
            assert!(accepted.iter().all(|value| converter.accepts(value)), "{converter:?}");
            assert!(refused.iter().all(|value| !converter.accepts(value)), "{converter:?}");
        }
    }

    #[test]
    fn literal_text_around_a_parameter_is_not_part_of_its_value() {
        let Segment::Parameter(parameter) = &Pattern::parse("/a{x}a").unwrap().segments[0] else { panic!() };

        assert_eq!(parameter.shape.value("a1a"), Some("1"));
        assert_eq!(parameter.shape.value("aaa"), Some("a"));
        assert_eq!(parameter.shape.value("aa"), None);
        assert_eq!(parameter.shape.value("a"), None);
    }

    #[test]
    fn build_encodes_everything_that_a_segment_cannot_hold() {
        // RFC 3986 §3.3: pchar = unreserved / pct-encoded / sub-delims / ":" / "@".
        assert_eq!(built("/café/{x}", &[("x", "a/b ?#%é")]).unwrap(), "/caf%C3%A9/a%2Fb%20%3F%23%25%C3%A9");
        assert_eq!(built("/{x}", &[("x", "-._~!$&'()*+,;=:@")]).unwrap(), "/-._~!$&'()*+,;=:@");
        assert_eq!(built("/@{x}.json", &[("x", "a b")]).unwrap(), "/@a%20b.json");
        assert_eq!(built("/s/{p:path}", &[("p", "a b/c%2F")]).unwrap(), "/s/a%20b/c%252F");
        assert_eq!(built("/s/{p:path}", &[("p", "")]).unwrap(), "/s/");
        assert_eq!(built("/100%", &[]).unwrap(), "/100%25");
    }

    #[test]
    fn build_names_the_parameter_that_is_wrong() {
        assert_eq!(built("/{id:int}", &[]).unwrap_err(), "path parameter `id` has no value");
        assert_eq!(built("/a", &[("id", "1")]).unwrap_err(), "the path has no parameter `id`");
        assert_eq!(
            built("/{id:int}", &[("id", "x")]).unwrap_err(),
            "path parameter `id` is `x`; expected 1 to 4300 digits (int)"
        );
    }

    #[test]
    fn build_refuses_paths_that_clients_would_read_differently() {
        assert!(built("/a/{x}/b", &[("x", "..")]).is_err());
        assert!(built("/a/.{x}", &[("x", ".")]).is_err());
        assert!(built("/a/{p:path}", &[("p", "b/../../c")]).is_err());
        assert!(built("/{p:path}", &[("p", "/evil.example")]).is_err());
        assert!(built("/a/{p:path}", &[("p", "/b")]).is_ok());
    }
}
