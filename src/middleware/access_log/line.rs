//! What a line of the access log says, and how.

use std::{
    borrow::Cow,
    cell::RefCell,
    io::Write,
    net::IpAddr,
    thread::LocalKey,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderName, header};

use crate::message::Request;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The combined log format, which Apache, nginx and everything that reads their logs know, and at its end the time
    /// taken in seconds. Times are UTC.
    Text,
    /// One JSON object.
    Json,
}

/// The longest piece of what a client sent that a line has, in bytes: 2 KiB shows any address worth reading, and a line
/// stays shorter than 16 KiB however it is escaped.
const MAX_PIECE: usize = 2048;

/// What takes the place of a value that may be a secret.
const HIDDEN: &str = "...";

/// Query parameters that give access to something (RFC 6750 §2.3, and what usually does), in lower case.
const SECRET: [&str; 12] = [
    "access_token",
    "refresh_token",
    "id_token",
    "token",
    "api_key",
    "apikey",
    "key",
    "password",
    "passwd",
    "secret",
    "signature",
    "sig",
];

/// A line, of which the response is still missing.
pub(super) struct Line {
    format: Format,
    text: Vec<u8>,
    /// Where in the text the rest belongs.
    gap: usize,
}

impl Line {
    pub(super) fn new(format: Format, request: &Request, now: SystemTime) -> Self {
        // 256 bytes: most lines.
        let mut line = Self { format, text: Vec::with_capacity(256), gap: 0 };
        let client = request.peer.client.map(|client| client.ip());
        let (target, version) = (masked(target(request)), request.http_version());
        let (referer, agent) = (field(request, &header::REFERER), field(request, &header::USER_AGENT));
        let referer = masked(&referer);
        match format {
            Format::Text => {
                line.address(client);
                line.put(" - - [");
                write_clf_time(now, &mut line.text);
                line.put("] \"");
                line.piece(request.method.as_str());
                line.put(" ");
                line.piece(&target);
                line.put(" HTTP/");
                line.put(version);
                line.put("\" ");
                line.gap = line.text.len();
                for value in [&referer, &agent] {
                    line.put(" \"");
                    line.piece(if value.is_empty() { "-" } else { value });
                    line.put("\"");
                }
            }
            Format::Json => {
                line.put("{\"time\":\"");
                write_iso_time(now, &mut line.text);
                line.put("\",\"level\":\"info\",\"logger\":\"httpy.access\",\"client\":\"");
                line.address(client);
                line.member("\",\"method\":\"", request.method.as_str());
                line.member("\",\"host\":\"", &field(request, &header::HOST));
                line.member("\",\"target\":\"", &target);
                line.put("\",\"version\":\"");
                line.put(version);
                line.put("\",");
                line.gap = line.text.len();
                line.member(",\"referer\":\"", &referer);
                line.member("\",\"user_agent\":\"", &agent);
                line.put("\"");
            }
        }
        line
    }

    /// Writes the whole line, its end included.
    pub(super) fn finish(&self, status: u16, bytes: u64, taken: Duration, out: &mut Vec<u8>) {
        let (before, after) = self.text.split_at(self.gap);
        let (seconds, micros) = (taken.as_secs(), taken.subsec_micros());
        out.extend_from_slice(before);
        // Writing into memory does not fail.
        let _ = match self.format {
            Format::Text => {
                let _ = write!(out, "{status} {bytes}");
                out.extend_from_slice(after);
                writeln!(out, " {seconds}.{micros:06}")
            }
            Format::Json => {
                let _ = write!(out, "\"status\":{status},\"bytes\":{bytes},\"seconds\":{seconds}.{micros:06}");
                out.extend_from_slice(after);
                writeln!(out, "}}")
            }
        };
    }

    fn put(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
    }

    fn piece(&mut self, value: &str) {
        escape(value, self.format, &mut self.text);
    }

    fn member(&mut self, name: &str, value: &str) {
        self.put(name);
        self.piece(value);
    }

    /// `-` for a unix socket.
    fn address(&mut self, client: Option<IpAddr>) {
        let _ = match client {
            Some(address) => write!(self.text, "{}", address.to_canonical()),
            None => write!(self.text, "-"),
        };
    }
}

/// The target as it was sent, but for an absolute one's scheme and authority, which Host has.
fn target(request: &Request) -> &str {
    request.uri.path_and_query().map_or("*", |target| target.as_str())
}

/// A field's value; bytes that are not ASCII as Latin-1 would have them, as everywhere in HTTP (RFC 9110 §5.5).
fn field<'a>(request: &'a Request, name: &HeaderName) -> Cow<'a, str> {
    let Some(value) = request.headers.get(name) else { return Cow::Borrowed("") };
    // `to_str` takes visible ASCII.
    value.to_str().map_or_else(
        |_| value.as_bytes().iter().take(MAX_PIECE + 1).map(|&byte| char::from(byte)).collect(),
        Cow::Borrowed,
    )
}

/// A target or address without the values of parameters that may be secrets.
fn masked(target: &str) -> Cow<'_, str> {
    let Some((path, query)) = target.split_once('?') else { return Cow::Borrowed(target) };
    let (query, fragment) = query.split_once('#').map_or((query, None), |(query, rest)| (query, Some(rest)));
    let parameters = query.split('&').map(|parameter| match parameter.split_once('=') {
        Some((name, _)) if is_secret(name) => format!("{name}={HIDDEN}"),
        _ => parameter.to_owned(),
    });
    let masked = format!("{path}?{}", parameters.collect::<Vec<_>>().join("&"));
    // A fragment is where some put tokens; browsers keep it to themselves.
    Cow::Owned(if fragment.is_some() { masked + "#" + HIDDEN } else { masked })
}

fn is_secret(name: &str) -> bool {
    // A name may be percent-encoded in whole or in part; who hides it that way does it on purpose.
    let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy().to_ascii_lowercase();
    SECRET.contains(&name.as_str())
}

/// Writes a piece of what a client sent so that it stays one piece: no quote ends it, no control character shows.
fn escape(value: &str, format: Format, out: &mut Vec<u8>) {
    let mut end = value.len().min(MAX_PIECE);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    let piece = &value[..end];
    if piece.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
        out.extend_from_slice(piece.as_bytes());
    } else {
        escape_odd(piece, format, out);
    }
    if end < value.len() {
        out.extend_from_slice(HIDDEN.as_bytes());
    }
}

#[cold]
fn escape_odd(piece: &str, format: Format, out: &mut Vec<u8>) {
    for character in piece.chars() {
        let _ = match (character, format) {
            ('"' | '\\', _) => write!(out, "\\{character}"),
            // C0, DEL and C1: what a terminal obeys.
            (c, Format::Text) if c.is_control() => write!(out, "\\x{:02x}", u32::from(c)),
            (c, Format::Json) if c.is_control() => write!(out, "\\u{:04x}", u32::from(c)),
            // They end lines for some readers.
            ('\u{2028}' | '\u{2029}', _) => write!(out, "\\u{:04x}", u32::from(character)),
            (c, _) => write!(out, "{c}"),
        };
    }
}

/// A moment of the calendar, UTC.
struct Civil {
    year: i64,
    month: usize,
    day: i64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Civil {
    /// From seconds since 1970.
    fn new(seconds: u64) -> Self {
        let days = i64::try_from(seconds / 86_400).unwrap_or_default();
        // Counting in years that begin with March, as Howard Hinnant describes it ("chrono-compatible low-level date
        // algorithms"): then the day that some years have more is their last.
        let days = days + 719_468;
        let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        let of_day = seconds % 86_400;
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        Self { year, month: usize::try_from(month).unwrap_or(1), day, hour, minute, second }
    }
}

/// `20/Nov/2026:16:13:30 +0000`.
fn write_clf_time(time: SystemTime, out: &mut Vec<u8>) {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    thread_local!(static LAST: RefCell<Second> = const { RefCell::new(Second::NONE) });
    write_second(&LAST, time, out, |Civil { year, month, day, hour, minute, second }, text| {
        let month = MONTHS[(month - 1) % 12];
        let _ = write!(text, "{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000");
    });
}

/// `2026-11-20T16:13:30.123456Z`.
fn write_iso_time(time: SystemTime, out: &mut Vec<u8>) {
    thread_local!(static LAST: RefCell<Second> = const { RefCell::new(Second::NONE) });
    write_second(&LAST, time, out, |Civil { year, month, day, hour, minute, second }, text| {
        let _ = write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    });
    let micros = time.duration_since(UNIX_EPOCH).unwrap_or_default().subsec_micros();
    let _ = write!(out, ".{micros:06}Z");
}

/// A second, as it is written: most requests are of the same one as the last.
struct Second {
    /// Since 1970.
    number: u64,
    text: Vec<u8>,
}

impl Second {
    const NONE: Self = Self { number: u64::MAX, text: Vec::new() };
}

fn write_second(
    last: &'static LocalKey<RefCell<Second>>,
    time: SystemTime,
    out: &mut Vec<u8>,
    write: impl FnOnce(Civil, &mut Vec<u8>),
) {
    let number = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    last.with_borrow_mut(|last| {
        if last.number != number {
            last.number = number;
            last.text.clear();
            write(Civil::new(number), &mut last.text);
        }
        out.extend_from_slice(&last.text);
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use http::Method;
    use proptest::prelude::*;

    use super::*;
    use crate::message::Peer;

    fn line(format: Format, target: &str, fields: &[(&'static str, &[u8])]) -> String {
        let mut request = Request::new(Method::GET, target.parse().unwrap());
        let client = Some("[::ffff:192.0.2.7]:4000".parse().unwrap());
        request.peer = Arc::new(Peer { client, ..Peer::default() });
        for (name, value) in fields {
            request.headers.insert(*name, http::HeaderValue::from_bytes(value).unwrap());
        }
        let mut out = Vec::new();
        let time = UNIX_EPOCH + Duration::from_micros(1_795_191_210_123_456);
        Line::new(format, &request, time).finish(200, 5, Duration::from_micros(1_002_003), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_is_the_combined_log_format_and_the_time_taken() {
        let line = line(Format::Text, "/a?b=1", &[("referer", b"http://x/"), ("user-agent", b"curl/8")]);

        let expected = "192.0.2.7 - - [20/Nov/2026:16:13:30 +0000] \"GET /a?b=1 HTTP/1.1\" 200 5 \"http://x/\" \"curl/8\" \
                        1.002003\n";
        assert_eq!(line, expected);
    }

    #[test]
    fn json_is_one_object() {
        let line = line(Format::Json, "/a", &[("host", b"x:1")]);

        let expected = concat!(
            r#"{"time":"2026-11-20T16:13:30.123456Z","level":"info","logger":"httpy.access","client":"192.0.2.7","#,
            r#""method":"GET","host":"x:1","target":"/a","version":"1.1","status":200,"bytes":5,"seconds":1.002003,"#,
            r#""referer":"","user_agent":""}"#,
            "\n"
        );
        assert_eq!(line, expected);
    }

    #[test]
    fn what_is_absent_is_a_dash() {
        let mut out = Vec::new();
        let request = Request::new(Method::OPTIONS, "*".parse().unwrap());
        Line::new(Format::Text, &request, UNIX_EPOCH).finish(204, 0, Duration::ZERO, &mut out);

        let expected = "- - - [01/Jan/1970:00:00:00 +0000] \"OPTIONS * HTTP/1.1\" 204 0 \"-\" \"-\" 0.000000\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn nobody_can_write_a_line_of_his_own_or_paint_a_terminal() {
        let agent = b"a\" 200 5\t\x9b31m\xff\\";
        let text = line(Format::Text, "/", &[("user-agent", agent)]);
        let json = line(Format::Json, "/", &[("user-agent", agent)]);

        assert!(text.contains("\"a\\\" 200 5\\x09\\x9b31m\u{ff}\\\\\""), "{text}");
        assert!(json.contains("\"a\\\" 200 5\\u0009\\u009b31m\u{ff}\\\\\""), "{json}");
    }

    #[test]
    fn values_that_may_be_secrets_are_left_out() {
        let target = "/a?q=1&Access_Token=abc&%74oken=x&tokens=2&password";
        let line = line(Format::Text, target, &[("referer", b"http://x/?sig=1#access_token=2")]);

        assert!(line.contains("\"GET /a?q=1&Access_Token=...&%74oken=...&tokens=2&password HTTP/1.1\""), "{line}");
        assert!(line.contains("\"http://x/?sig=...#...\""), "{line}");
    }

    #[test]
    fn long_pieces_are_cut_at_the_limit() {
        let of = |length: usize| line(Format::Text, "/", &[("user-agent", "a".repeat(length).as_bytes())]);

        assert!(of(MAX_PIECE).contains(&format!("\"{}\"", "a".repeat(MAX_PIECE))));
        assert!(of(MAX_PIECE + 1).contains(&format!("\"{}...\"", "a".repeat(MAX_PIECE))));
    }

    #[test]
    fn knows_the_calendar() {
        let iso = |seconds| {
            let mut out = Vec::new();
            write_iso_time(UNIX_EPOCH + Duration::from_secs(seconds), &mut out);
            String::from_utf8(out).unwrap()
        };

        assert_eq!(iso(951_782_399), "2000-02-28T23:59:59.000000Z");
        assert_eq!(iso(951_782_400), "2000-02-29T00:00:00.000000Z");
        assert_eq!(iso(4_107_542_399), "2100-02-28T23:59:59.000000Z");
        assert_eq!(iso(4_107_542_400), "2100-03-01T00:00:00.000000Z");
    }

    proptest! {
        #[test]
        fn any_field_makes_one_line_and_json_that_says_it(agent in "[^\u{0}-\u{8}\u{a}-\u{1f}\u{7f}]{0,40}") {
            let value = http::HeaderValue::from_bytes(agent.as_bytes()).unwrap();

            let text = line(Format::Text, "/", &[("user-agent", value.as_bytes())]);
            let json = line(Format::Json, "/", &[("user-agent", value.as_bytes())]);

            prop_assert_eq!(text.matches('\n').count(), 1);
            prop_assert!(!text.trim_end().chars().any(char::is_control));
            let object: serde_json::Value = serde_json::from_str(&json).unwrap();
            let latin: String = agent.bytes().map(char::from).collect();
            prop_assert_eq!(object["user_agent"].as_str(), Some(latin.as_str()));
        }

        #[test]
        fn dates_are_those_of_http(seconds in 0_u64..10_000_000_000) {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            let Civil { year, day, hour, minute, second, .. } = Civil::new(seconds);

            let date = httpdate::fmt_http_date(time);

            prop_assert!(date.contains(&format!(", {day:02} ")), "{}", date);
            let rest = format!(" {year:04} {hour:02}:{minute:02}:{second:02} GMT");
            prop_assert!(date.ends_with(&rest), "{}", date);
        }
    }
}
