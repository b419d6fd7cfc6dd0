//! WebSocket in raw frames: what is sent, and what comes back.

mod h1;
mod h2;
#[cfg(unix)]
mod hub;
mod limits;
mod rooms;
mod rooms_interface;

use std::{future::poll_fn, sync::Arc};

use http::HeaderMap;
use httpy::{
    Config, Handler, Reply, Request,
    ws::{self, Close, Message, Opening, Policy, Prepared, Receiver, Sender},
};
use tokio::{io::AsyncRead, io::AsyncReadExt, io::AsyncWrite, io::AsyncWriteExt, io::DuplexStream, task::spawn_local};

use crate::support::{Client, Served};

/// RFC 6455 §1.3.
pub(crate) const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;
pub(crate) const FIN: u8 = 0x80;

/// Both ends of a WebSocket that was accepted.
pub(crate) struct Socket {
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
}

impl Socket {
    pub(crate) async fn receive(&self) -> Result<Message, Close> {
        poll_fn(|cx| self.receiver.poll_receive(cx)).await
    }

    pub(crate) async fn send(&self, message: &Prepared) -> Result<bool, ws::Refused> {
        poll_fn(|cx| self.sender.poll_send(message, cx)).await
    }
}

/// Accepts every WebSocket and gives it to `run`; refuses everything else.
pub(crate) fn accepting<F>(config: Config, policy: Policy, run: F) -> impl Handler
where
    F: AsyncFn(Socket) + Clone + Send + Sync + 'static,
{
    let config = Arc::new(config);
    move |request: Request| -> Reply {
        if !ws::is_asked(&request) {
            return ws::upgrade_required().into();
        }
        let opening = match Opening::read(&request, &config) {
            Ok(opening) => opening,
            Err(no) => return (*no).into(),
        };
        let accepted = opening.accept(None, HeaderMap::new(), policy, &config);
        let (response, sender, receiver) = accepted.expect("nothing was asked for that can't be");
        let run = run.clone();
        spawn_local(async move { run(Socket { sender, receiver }).await });
        response.into()
    }
}

/// Sends back what comes, until it ends.
pub(crate) async fn echo(socket: Socket) {
    while let Ok(message) = socket.receive().await {
        if socket.send(&Prepared::from_message(&message)).await.is_err() {
            break;
        }
    }
}

/// A masked frame.
pub(crate) fn frame(first: u8, content: &[u8]) -> Vec<u8> {
    let mask = [0x12, 0x34, 0x56, 0x78];
    let mut frame = vec![first];
    match content.len() {
        n @ 0..126 => frame.push(0x80 | n as u8),
        n @ 126..=0xFFFF => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(content.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    frame
}

pub(crate) fn close(code: u16, reason: &str) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

/// A client whose handshake is done.
pub(crate) struct WsClient<IO = DuplexStream> {
    pub(crate) io: IO,
    ahead: Vec<u8>,
}

/// Opens a WebSocket by HTTP/1.1.
pub(crate) async fn open(served: &Served) -> WsClient {
    let mut client: Client = served.connect();
    client.send(HANDSHAKE).await;
    let answer = client.read_until(b"\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    WsClient::over(client)
}

impl<IO: AsyncRead + AsyncWrite + Unpin> WsClient<IO> {
    pub(crate) fn over(client: Client<IO>) -> Self {
        let (io, ahead) = client.into_parts();
        Self { io, ahead }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.io.write_all(bytes.as_ref()).await.expect("the server takes bytes");
    }

    /// Sends a text message.
    pub(crate) async fn say(&mut self, text: &str) {
        self.send(frame(FIN | TEXT, text.as_bytes())).await;
    }

    /// Reads a frame: its first byte and its content. None at the end.
    pub(crate) async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let head = self.take(2).await?;
        assert_eq!(head[1] & 0x80, 0, "RFC 6455 section 5.1: a server does not mask");
        let length = match head[1] {
            126 => u16::from_be_bytes(self.take(2).await?.try_into().expect("two bytes")).into(),
            127 => u64::from_be_bytes(self.take(8).await?.try_into().expect("eight bytes")),
            short => short.into(),
        };
        Some((head[0], self.take(length as usize).await?))
    }

    /// Reads a frame and shows it.
    pub(crate) async fn next(&mut self) -> String {
        let Some((first, content)) = self.read().await else { return "END".to_owned() };
        let text = || String::from_utf8_lossy(&content).into_owned();
        match first {
            0x81 => format!("text {}", text()),
            0x82 => format!("binary {content:?}"),
            0x88 if content.is_empty() => "close".to_owned(),
            0x88 => {
                let code = u16::from_be_bytes([content[0], content[1]]);
                format!("close {code} {}", String::from_utf8_lossy(&content[2..])).trim_end().to_owned()
            }
            0x89 => format!("ping {}", text()).trim_end().to_owned(),
            0x8A => format!("pong {}", text()).trim_end().to_owned(),
            first => format!("{first:#x} {content:?}"),
        }
    }

    async fn take(&mut self, n: usize) -> Option<Vec<u8>> {
        while self.ahead.len() < n {
            if self.io.read_buf(&mut self.ahead).await.unwrap_or(0) == 0 {
                return None;
            }
        }
        Some(self.ahead.drain(..n).collect())
    }
}
