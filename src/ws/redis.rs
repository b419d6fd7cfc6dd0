//! Redis as what connects the rooms of servers on several machines: a channel that all of them listen to.
//!
//! Each process has two connections: one that listens, one that publishes. Of Redis's protocol (RESP2) that needs six commands
//! and five kinds of values, which are here; see `docs/decisions/0010-rooms.md` for why it is no client library.
//!
//! Rules:
//! 1. While Redis is away, members of this process still get what this process sends. Nothing is kept for later.
//! 2. A process that has not been heard of for [`SILENCE`] counts no more. All show every [`BEAT`] that they are there, and hear
//!    themselves: who hears nothing has lost its connection.
//! 3. What comes from there is as trusted as Redis is. It is bounded all the same.
//! 4. Addresses and passwords are in no message.

use std::{fmt, future::pending, io, pin::Pin, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use percent_encoding::percent_decode_str;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{interval, sleep, timeout},
};

use super::{
    bus::{MAX_PACKET_BYTES, Packet, Taken, without_length},
    rooms::Rooms,
};
use crate::message::BothWays;

/// How often a process shows that it is there. 10 s: little, also with hundreds.
const BEAT: Duration = Duration::from_secs(10);
/// Three beats.
const SILENCE: Duration = Duration::from_secs(30);
/// How long Redis may take for anything.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts to connect: first, and at most.
const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(5);
/// 64 KiB: longer than any line that Redis sends to us.
const MAX_LINE_BYTES: usize = 64 * 1024;
/// 16: what is published comes as three values.
const MAX_VALUES: usize = 16;

/// Where Redis is, and how to be let in. Shown without the latter.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    place: Place,
    user: Option<String>,
    password: Option<String>,
    database: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Tcp(String, u16),
    #[cfg(unix)]
    Unix(String),
}

impl RedisUrl {
    /// Reads `redis://[[user]:password@]host[:port][/database]` or `redis+unix://[[user]:password@]/path[?db=database]`.
    ///
    /// # Errors
    /// What is expected, without what was found: there may be a password in it.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "a URL such as redis://host:6379/0 or redis+unix:///path";
        let (scheme, rest) = url.split_once("://").ok_or(EXPECTED)?;
        let (credentials, rest) = match rest.rsplit_once('@') {
            Some((credentials, rest)) => (Some(credentials), rest),
            None => (None, rest),
        };
        let decode = |text: &str| percent_decode_str(text).decode_utf8().map(String::from).map_err(|_| EXPECTED);
        let (user, password) = match credentials.map(|both| both.split_once(':').unwrap_or((both, ""))) {
            Some((user, password)) => (Some(decode(user)?), Some(decode(password)?)),
            None => (None, None),
        };
        let (place, database) = match scheme {
            "redis" => {
                let (host, database) = rest.split_once('/').unwrap_or((rest, ""));
                (read_host(host).ok_or(EXPECTED)?, database)
            }
            #[cfg(unix)]
            "redis+unix" => {
                let (path, database) = rest.split_once("?db=").unwrap_or((rest, ""));
                if !path.starts_with('/') {
                    return Err(EXPECTED);
                }
                (Place::Unix(decode(path)?), database)
            }
            "rediss" => return Err("redis:// or redis+unix://: there is no TLS to Redis"),
            _ => return Err(EXPECTED),
        };
        let database = if database.is_empty() { 0 } else { database.parse().map_err(|_| EXPECTED)? };
        Ok(Self {
            place,
            user: user.filter(|user| !user.is_empty()),
            password: password.filter(|password| !password.is_empty()),
            database,
        })
    }
}

fn read_host(written: &str) -> Option<Place> {
    let (host, port) = match written.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, if port.is_empty() { "" } else { port.strip_prefix(':')? })
        }
        None => written.split_once(':').unwrap_or((written, "")),
    };
    let port = if port.is_empty() { 6379 } else { port.parse().ok()? };
    (!host.is_empty()).then(|| Place::Tcp(host.to_owned(), port))
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisUrl").field("place", &self.place).field("database", &self.database).finish_non_exhaustive()
    }
}

impl Rooms {
    /// Has the rooms of this process be those of all that listen to the same channel of the same Redis, for as long as this is
    /// polled.
    pub async fn over_redis(&self, url: &RedisUrl, channel: &str) {
        // Publishing knows no databases: every channel is in all of them.
        let channel = match url.database {
            0 => channel.to_owned(),
            database => format!("{channel}:{database}"),
        };
        let (mut is_told, mut back_off) = (false, FIRST_BACK_OFF);
        loop {
            let mut is_up = false;
            let Err(error) = self.stay(url, &channel, &mut is_up, &mut is_told).await;
            self.outbox().set_open(false);
            if is_up || !is_told {
                tracing::error!(%error, "Redis is away: rooms are those of this process alone meanwhile");
                is_told = true;
            }
            if is_up {
                back_off = FIRST_BACK_OFF;
            }
            // Not all processes at the same moment.
            sleep(back_off + Duration::from_millis(self.node() % 100)).await;
            back_off = (back_off * 2).min(LONGEST_BACK_OFF);
        }
    }

    /// Connects, and stays until that fails.
    async fn stay(
        &self,
        url: &RedisUrl,
        channel: &str,
        is_up: &mut bool,
        is_told: &mut bool,
    ) -> io::Result<std::convert::Infallible> {
        let mut listener = Connection::open(url).await?;
        let mut publisher = Connection::open(url).await?;
        listener.ask(&[b"SUBSCRIBE", channel.as_bytes()]).await?;
        let begin = Packet::Begin.write(self.node());
        publisher.ask(&[b"PUBLISH", channel.as_bytes(), &without_length(&begin)]).await?;
        *is_up = true;
        if std::mem::take(is_told) {
            tracing::info!("Redis is back: rooms are shared again");
        }
        let outbox = self.outbox();
        outbox.set_open(true);
        outbox.insist(Packet::Ask { whom: 0 }.write(self.node()));
        self.names().into_iter().for_each(|name| outbox.mark(name));
        tokio::select! {
            ended = self.listen(&mut listener) => ended,
            ended = self.publish(&mut publisher, channel) => ended,
            () = self.beat() => pending().await,
        }
    }

    async fn listen(&self, listener: &mut Connection) -> io::Result<std::convert::Infallible> {
        let outbox = self.outbox();
        loop {
            let value = timeout(SILENCE, listener.read()).await.map_err(|_| late())??;
            let Value::Array(values) = value else { continue };
            let [Value::Bulk(kind), _, Value::Bulk(packet)] = &values[..] else { continue };
            if **kind != *b"message" {
                continue;
            }
            let (node, packet) = match Packet::read(packet) {
                Ok(read) => read,
                Err(error) => {
                    tracing::debug!(%error, "something on the channel of the rooms is no packet");
                    continue;
                }
            };
            if node == self.node() {
                continue;
            }
            match packet {
                Packet::Ask { whom } if whom == 0 || whom == self.node() => {
                    let names = self.names();
                    if names.is_empty() {
                        outbox.insist(Packet::Begin.write(self.node()));
                    }
                    names.into_iter().for_each(|name| outbox.mark(name));
                }
                Packet::Alive if !self.knows(node) => outbox.insist(Packet::Ask { whom: node }.write(self.node())),
                _ => {}
            }
            if self.take_in(node, &packet) > 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn publish(&self, publisher: &mut Connection, channel: &str) -> io::Result<std::convert::Infallible> {
        let outbox = self.outbox();
        loop {
            let Taken { packets, changed } = outbox.next().await;
            let mut count = 0;
            for packet in packets.into_iter().chain(changed.iter().map(|room| self.count_packet(room))) {
                let command = [&b"PUBLISH"[..], channel.as_bytes(), &without_length(&packet)];
                publisher.put(&command);
                count += 1;
                if publisher.is_full() {
                    timeout(PATIENCE, publisher.finish(std::mem::take(&mut count))).await.map_err(|_| late())??;
                }
            }
            timeout(PATIENCE, publisher.finish(count)).await.map_err(|_| late())??;
        }
    }

    async fn beat(&self) {
        let mut beats = interval(BEAT);
        loop {
            beats.tick().await;
            self.expire(SILENCE);
            self.outbox().insist(Packet::Alive.write(self.node()));
        }
    }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "Redis does not answer")
}

/// A connection to Redis.
struct Connection {
    stream: Pin<Box<dyn BothWays + Send>>,
    received: BytesMut,
    to_send: BytesMut,
}

/// 4 KiB: what is read at once, at least.
const CHUNK_BYTES: usize = 4 * 1024;

/// 64 KiB: what is sent at once.
const GATHERED_BYTES: usize = 64 * 1024;

impl Connection {
    async fn open(url: &RedisUrl) -> io::Result<Self> {
        let opening = async {
            let stream: Pin<Box<dyn BothWays + Send>> = match &url.place {
                Place::Tcp(host, port) => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    stream.set_nodelay(true)?;
                    Box::pin(stream)
                }
                #[cfg(unix)]
                Place::Unix(path) => Box::pin(tokio::net::UnixStream::connect(path).await?),
            };
            let mut connection = Self { stream, received: BytesMut::new(), to_send: BytesMut::new() };
            match (&url.user, &url.password) {
                (Some(user), Some(password)) => {
                    connection.ask(&[b"AUTH", user.as_bytes(), password.as_bytes()]).await?;
                }
                (None, Some(password)) => connection.ask(&[b"AUTH", password.as_bytes()]).await?,
                _ => {}
            }
            Ok(connection)
        };
        timeout(PATIENCE, opening).await.map_err(|_| late())?
    }

    /// Sends a command and waits until it is done.
    async fn ask(&mut self, command: &[&[u8]]) -> io::Result<()> {
        self.put(command);
        timeout(PATIENCE, self.finish(1)).await.map_err(|_| late())?
    }

    fn put(&mut self, command: &[&[u8]]) {
        self.to_send.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
        for word in command {
            self.to_send.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            self.to_send.extend_from_slice(word);
            self.to_send.extend_from_slice(b"\r\n");
        }
    }

    fn is_full(&self) -> bool {
        self.to_send.len() >= GATHERED_BYTES
    }

    /// Sends what was put, and waits for so many answers.
    async fn finish(&mut self, answers: usize) -> io::Result<()> {
        self.stream.write_all_buf(&mut self.to_send).await?;
        self.stream.flush().await?;
        if self.to_send.capacity() > GATHERED_BYTES {
            self.to_send = BytesMut::new();
        }
        for _ in 0..answers {
            self.read().await?;
        }
        Ok(())
    }

    /// Reads a value. An error is one.
    async fn read(&mut self) -> io::Result<Value> {
        loop {
            if let Some((value, length)) = Value::read(&self.received, 0)? {
                self.received.advance(length);
                return match value {
                    Value::Error(code) => Err(io::Error::other(format!("Redis says {code}"))),
                    value => Ok(value),
                };
            }
            if self.received.len() > MAX_PACKET_BYTES + 2 * MAX_LINE_BYTES {
                return Err(wrong());
            }
            if self.received.is_empty() {
                // Else what a long message has taken would be held for ever.
                self.received = BytesMut::new();
            }
            self.received.reserve(CHUNK_BYTES);
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// A value of RESP2.
#[derive(Debug, PartialEq, Eq)]
enum Value {
    /// A simple string or a number.
    Simple,
    /// Of an error only its first word: what follows may quote a command, and with it a password.
    Error(String),
    Bulk(Bytes),
    Nothing,
    Array(Vec<Value>),
}

fn wrong() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what answers is not Redis")
}

impl Value {
    /// Reads a value at the beginning of bytes, and how long it is. None: its end has yet to come.
    fn read(bytes: &[u8], depth: usize) -> io::Result<Option<(Self, usize)>> {
        let Some(kind) = bytes.first() else { return Ok(None) };
        let searched = &bytes[1..bytes.len().min(MAX_LINE_BYTES)];
        let Some(end) = memchr::memmem::find(searched, b"\r\n") else {
            return if bytes.len() < MAX_LINE_BYTES { Ok(None) } else { Err(wrong()) };
        };
        let (line, after) = (&searched[..end], 1 + end + 2);
        match kind {
            b'+' | b':' => Ok(Some((Self::Simple, after))),
            b'-' => {
                let word = line.split(|byte| *byte == b' ').next().unwrap_or_default();
                let is_code = word.iter().all(|byte| byte.is_ascii_uppercase()) && word.len() <= 32;
                let code = if is_code { String::from_utf8_lossy(word).into_owned() } else { "no".to_owned() };
                Ok(Some((Self::Error(code), after)))
            }
            b'$' => {
                let Some(length) = read_length(line, MAX_PACKET_BYTES)? else {
                    return Ok(Some((Self::Nothing, after)));
                };
                let end = after + length;
                if bytes.len() < end + 2 {
                    return Ok(None);
                }
                if &bytes[end..end + 2] != b"\r\n" {
                    return Err(wrong());
                }
                Ok(Some((Self::Bulk(Bytes::copy_from_slice(&bytes[after..end])), end + 2)))
            }
            b'*' if depth == 0 => {
                let Some(count) = read_length(line, MAX_VALUES)? else { return Ok(Some((Self::Nothing, after))) };
                let (mut values, mut at) = (Vec::with_capacity(count), after);
                for _ in 0..count {
                    let Some((value, length)) = Self::read(&bytes[at..], depth + 1)? else { return Ok(None) };
                    values.push(value);
                    at += length;
                }
                Ok(Some((Self::Array(values), at)))
            }
            _ => Err(wrong()),
        }
    }
}

/// None: there is nothing, which RESP2 says by -1.
fn read_length(line: &[u8], limit: usize) -> io::Result<Option<usize>> {
    if line == b"-1" {
        return Ok(None);
    }
    let text = std::str::from_utf8(line).map_err(|_| wrong())?;
    let length: usize = text.parse().map_err(|_| wrong())?;
    if length > limit || text.starts_with('+') { Err(wrong()) } else { Ok(Some(length)) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bulk(text: &'static str) -> Value {
        Value::Bulk(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn values_are_read_whole_or_not_at_all() {
        let cases: [(&[u8], Value); 7] = [
            (b"+OK\r\n", Value::Simple),
            (b":12\r\n", Value::Simple),
            (b"-WRONGPASS invalid password\r\n", Value::Error("WRONGPASS".to_owned())),
            (b"-secret in lower case\r\n", Value::Error("no".to_owned())),
            (b"$-1\r\n", Value::Nothing),
            (b"$4\r\na\r\nb\r\n", bulk("a\r\nb")),
            (b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$0\r\n\r\n", Value::Array(vec![bulk("message"), bulk("c"), bulk("")])),
        ];

        for (bytes, wanted) in cases {
            let more = [bytes, b"+next\r\n"].concat();
            assert_eq!(Value::read(&more, 0).unwrap(), Some((wanted, bytes.len())));
            for end in 0..bytes.len() {
                assert_eq!(Value::read(&bytes[..end], 0).unwrap(), None, "{bytes:?} {end}");
            }
        }
    }

    #[test]
    fn what_is_not_redis_is_refused_at_once() {
        let too_long = format!("${}\r\n", MAX_PACKET_BYTES + 1);
        for bytes in ["HTTP/1.1 200 OK\r\n", "*17\r\n", "*1\r\n*1\r\n", "$x\r\n", "$+1\r\n", "$1\r\nab\r\n", &too_long]
        {
            assert!(Value::read(bytes.as_bytes(), 0).is_err(), "{bytes}");
        }
        let announced = format!("${MAX_PACKET_BYTES}\r\n");
        assert_eq!(Value::read(announced.as_bytes(), 0).unwrap(), None);
        assert_eq!(Value::read(&[b'+'; MAX_LINE_BYTES - 1], 0).unwrap(), None);
        assert!(Value::read(&[b'+'; MAX_LINE_BYTES], 0).is_err());
    }

    proptest! {
        #[test]
        fn whatever_comes_does_not_panic(bytes in prop::collection::vec(prop::sample::select(&b"*$+-:0123\r\na"[..]), 0..60)) {
            if let Ok(Some((_, length))) = Value::read(&bytes, 0) {
                prop_assert!(length <= bytes.len());
            }
        }
    }

    #[test]
    fn urls_are_read() {
        let parse = |url| RedisUrl::parse(url).unwrap();
        let tcp = |host: &str, port| Place::Tcp(host.to_owned(), port);

        assert_eq!(parse("redis://cache").place, tcp("cache", 6379));
        assert_eq!(parse("redis://[::1]:7000/").place, tcp("::1", 7000));
        let full = parse("redis://app:p%40ss@cache:7000/3");
        assert_eq!((full.user.as_deref(), full.password.as_deref()), (Some("app"), Some("p@ss")));
        assert_eq!((full.place, full.database), (tcp("cache", 7000), 3));
        let short = parse("redis://:secret@cache");
        assert_eq!((short.user, short.password.as_deref()), (None, Some("secret")));
    }

    #[cfg(unix)]
    #[test]
    fn so_are_those_of_sockets() {
        let url = RedisUrl::parse("redis+unix:///run/redis%20one.sock?db=2").unwrap();

        assert_eq!((url.place, url.database), (Place::Unix("/run/redis one.sock".to_owned()), 2));
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said_without_it() {
        for url in [
            "",
            "cache:6379",
            "http://cache",
            "redis://",
            "redis://:secret@",
            "redis://h:port",
            "redis://h/x",
            "redis+unix://x",
        ] {
            let says = RedisUrl::parse(url).unwrap_err();
            assert_eq!(says, "a URL such as redis://host:6379/0 or redis+unix:///path", "{url}");
        }
        assert_eq!(RedisUrl::parse("rediss://h").unwrap_err(), "redis:// or redis+unix://: there is no TLS to Redis");
        let shown = format!("{:?}", RedisUrl::parse("redis://app:secret@cache").unwrap());
        assert!(!shown.contains("secret") && shown.contains("cache"), "{shown}");
    }
}
