//! Redis's protocol (RESP2): as much of it as publishing and listening take.
//!
//! Rules:
//! 1. Redis is trusted, and may be something else by mistake: what comes is bounded, and what is no value is an error at once.
//! 2. Errors say neither addresses nor passwords.

use std::{io, pin::Pin, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::url::{Place, RedisUrl};
use crate::{message::BothWays, ws::packet::MAX_PACKET_BYTES};

/// How long Redis may take for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// 64 KiB: longer than any line that Redis sends to us.
const MAX_LINE_BYTES: usize = 64 * 1024;
/// 16: what is published comes as three values.
const MAX_VALUES: usize = 16;

pub(super) fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "Redis does not answer")
}

/// A connection to Redis.
pub(super) struct Connection {
    stream: Pin<Box<dyn BothWays + Send>>,
    received: BytesMut,
    to_send: BytesMut,
}

/// 4 KiB: what is read at once, at least.
const CHUNK_BYTES: usize = 4 * 1024;

/// 64 KiB: what is sent at once.
const GATHERED_BYTES: usize = 64 * 1024;

impl Connection {
    pub(super) async fn open(url: &RedisUrl) -> io::Result<Self> {
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
    pub(super) async fn ask(&mut self, command: &[&[u8]]) -> io::Result<()> {
        self.put(command);
        timeout(PATIENCE, self.finish(1)).await.map_err(|_| late())?
    }

    pub(super) fn put(&mut self, command: &[&[u8]]) {
        self.to_send.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
        for word in command {
            self.to_send.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            self.to_send.extend_from_slice(word);
            self.to_send.extend_from_slice(b"\r\n");
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.to_send.len() >= GATHERED_BYTES
    }

    /// Sends what was put, and waits for so many answers.
    pub(super) async fn finish(&mut self, answers: usize) -> io::Result<()> {
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
    pub(super) async fn read(&mut self) -> io::Result<Value> {
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
pub(super) enum Value {
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
}
