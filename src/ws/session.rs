//! A WebSocket on its way over a byte stream, from the handshake to the end.
//!
//! ```text
//!            we close                    they have closed, too
//! Open ----------------> Closing --------------------------------> Ending ---> the stream is closed
//!   '--------------------------------------------------------------^
//!            they close, or break the protocol
//! ```
//!
//! One file, because states, time limits and what is written depend on each other at every step.
//!
//! Rules:
//! 1. It is written over any byte stream, so it is the same by every version of HTTP.
//! 2. What is read is handed over at once, and what the application says to it is sent with the same poll: an echo costs one
//!    read and one write, and no wake-up.
//! 3. While nothing comes, nothing is held: bytes that come pass the stack, and what is sent has no buffer of its own.
//! 4. There is one timer, which is moved on when it fires and turns out to be early. The clock is not read for a message.

use std::{
    future::Future,
    io,
    mem::{MaybeUninit, take},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::ReadBuf,
    time::{Instant, Sleep, sleep_until},
};

use super::{
    decoder::{Arrived, Decoder},
    deflate::{Agreed, Deflater, Inflater},
    frame::{self, Fault, Opcode},
    message::{Close, Message, Prepared},
    shared::{Asked, Shared},
};
use crate::{
    config::Config,
    message::{BothWays, Tunnel},
};

/// 4 KiB, on the stack: what is read at once, unless a long message has begun.
const CHUNK_BYTES: usize = 4 * 1024;
/// 32 KiB, likewise, within a long message: 16 MiB take 512 reads then instead of 4096.
const LARGE_CHUNK_BYTES: usize = 32 * 1024;

/// 16 KiB, a record of TLS: frames that are shorter go out together.
const GATHERED_BYTES: usize = 16 * 1024;

/// 4 KiB of pongs for a client that sends pings and does not read. RFC 6455 §5.5.3: the last one is enough.
const MAX_PONG_BYTES: usize = 4 * 1024;

/// 32. After so many reads other connections get their turn.
const MAX_READS_AT_A_TIME: usize = 32;

/// The connection's end.
pub(super) struct Session {
    shared: Arc<Shared>,
    config: Arc<Config>,
    state: State,
    decoder: Decoder,
    deflater: Option<Deflater>,
    /// What is being written, and what comes right after it.
    current: Bytes,
    next: Bytes,
    /// Control frames that go before the next message.
    control: Vec<u8>,
    is_unflushed: bool,
    /// Whether the application is told of nothing more.
    has_ended: bool,
    is_stopping: bool,
    /// Changes with all that is read or written.
    progress: u64,
    clock: Clock,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Our close was sent, or is about to be.
    Closing,
    /// Everything was said.
    Ending,
}

/// What takes its time.
struct Clock {
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether anything has come since it was last looked, and whether a ping was sent for want of that.
    has_heard: bool,
    is_pinged: bool,
    ping_due: Option<Instant>,
    close_due: Option<Instant>,
    /// When it is too late for a client to take something, and what it had taken when that was decided.
    write_due: Option<(u64, Instant)>,
}

/// What took too long.
enum Late {
    Ping,
    Dead,
    Close,
    Reader,
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>, config: Arc<Config>, agreed: Option<Agreed>) -> Self {
        let decoder = Decoder::new(config.ws_max_message_bytes, config.ws_max_frame_bytes, agreed.map(Inflater::new));
        Self {
            shared,
            config,
            state: State::Open,
            decoder,
            deflater: agreed.map(Deflater::new),
            current: Bytes::new(),
            next: Bytes::new(),
            control: Vec::new(),
            is_unflushed: false,
            has_ended: false,
            is_stopping: false,
            progress: 0,
            clock: Clock {
                timer: None,
                has_heard: false,
                is_pinged: false,
                ping_due: None,
                close_due: None,
                write_due: None,
            },
        }
    }

    /// What it shares with the application, for who takes its place.
    pub(super) fn into_shared(mut self) -> Arc<Shared> {
        self.has_ended = true;
        self.shared.clone()
    }

    /// Reads until nothing comes, and hands over what came. Ready: there is more, or an end.
    fn poll_read(&mut self, io: &mut dyn BothWays, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.state == State::Ending {
            return Poll::Pending;
        }
        if self.state == State::Open && self.shared.is_full() {
            // A client that is not listened to is not to blame for being silent.
            self.clock.has_heard = true;
            return Poll::Pending;
        }
        if self.decoder.awaited() > CHUNK_BYTES as u64 {
            self.poll_read_chunk::<LARGE_CHUNK_BYTES>(io, cx)
        } else {
            self.poll_read_chunk::<CHUNK_BYTES>(io, cx)
        }
    }

    #[inline(never)]
    fn poll_read_chunk<const SIZE: usize>(
        &mut self,
        io: &mut dyn BothWays,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut chunk = [MaybeUninit::uninit(); SIZE];
        let mut chunk = ReadBuf::uninit(&mut chunk);
        ready!(Pin::new(io).poll_read(cx, &mut chunk))?;
        let mut bytes = chunk.filled_mut();
        if bytes.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.clock.has_heard = true;
        self.progress += 1;
        while !bytes.is_empty() && self.state != State::Ending {
            match self.decoder.take(bytes) {
                Ok((taken, arrived)) => {
                    bytes = &mut bytes[taken..];
                    if let Some(arrived) = arrived {
                        self.see(arrived);
                    }
                }
                Err(fault) => self.fail(fault),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn see(&mut self, arrived: Arrived) {
        match arrived {
            Arrived::Message(message) if self.state == State::Open => self.shared.deliver(message),
            // RFC 6455 §5.5.1: who has sent a close sends nothing more.
            Arrived::Ping(data) if self.state == State::Open => {
                if self.control.len() > MAX_PONG_BYTES {
                    self.control.clear();
                }
                self.put_control(Opcode::Pong, &data);
            }
            Arrived::Close(close) => {
                self.answer(&close);
                self.end(close);
            }
            Arrived::Message(_) | Arrived::Ping(_) | Arrived::Pong => {}
        }
    }

    /// The client broke the protocol (RFC 6455 §7.1.7).
    fn fail(&mut self, fault: Fault) {
        tracing::debug!(kind = "peer", code = fault.code, says = fault.says, "a WebSocket was closed");
        let close = Close::new(fault.code, fault.says);
        self.answer(&close);
        self.end(close);
    }

    /// Says the last that is to be said: what waits to be sent, and a close if there was none. RFC 6455 §5.5.1 lets a close wait
    /// for what is under way; so what the application has answered to before it learned of the end is not lost.
    fn answer(&mut self, close: &Close) {
        if self.state == State::Open {
            for message in self.shared.take_rest() {
                let frame = self.encode(message);
                self.control.extend_from_slice(&frame);
            }
            self.put_close(close);
        }
        self.state = State::Ending;
    }

    fn end(&mut self, close: Close) {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.shared.end(close);
        }
    }

    fn put_control(&mut self, opcode: Opcode, content: &[u8]) {
        let (head, head_len) = frame::head(opcode, false, content.len());
        self.control.extend_from_slice(&head[..head_len]);
        self.control.extend_from_slice(content);
    }

    fn put_close(&mut self, close: &Close) {
        // RFC 6455 §7.4.1: this code says that there was none, and is never sent.
        if close.code == Close::NO_STATUS {
            return self.put_control(Opcode::Close, &[]);
        }
        let mut reason = &close.reason[..];
        while reason.len() > Close::MAX_REASON_BYTES {
            let last = reason.chars().next_back().map_or(1, char::len_utf8);
            reason = &reason[..reason.len() - last];
        }
        self.put_control(Opcode::Close, &[&close.code.to_be_bytes(), reason.as_bytes()].concat());
    }

    /// Writes all there is to write. Pending: the client takes no more for now.
    fn poll_write(&mut self, io: &mut dyn BothWays, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while !self.current.is_empty() {
                self.is_unflushed = true;
                match ready!(Pin::new(&mut *io).poll_write(cx, &self.current))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    n => {
                        self.current.advance(n);
                        self.progress += 1;
                    }
                }
            }
            if !self.fill() {
                break;
            }
        }
        self.current = Bytes::new();
        if self.is_unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Finds something to write. False: there is nothing.
    fn fill(&mut self) -> bool {
        if !self.next.is_empty() {
            self.current = take(&mut self.next);
            return true;
        }
        let mut gathered = take(&mut self.control);
        while self.state == State::Open && gathered.len() < GATHERED_BYTES {
            match self.shared.take_asked() {
                Some((Asked::Send(message), has_more)) => {
                    let frame = self.encode(message);
                    let is_alone = gathered.is_empty() && !has_more;
                    if is_alone || frame.len() >= GATHERED_BYTES {
                        if gathered.is_empty() {
                            self.current = frame;
                            return true;
                        }
                        self.next = frame;
                        break;
                    }
                    gathered.extend_from_slice(&frame);
                }
                Some((Asked::Ping(data), _)) => {
                    let (head, head_len) = frame::head(Opcode::Ping, false, data.len());
                    gathered.extend_from_slice(&head[..head_len]);
                    gathered.extend_from_slice(&data);
                }
                Some((Asked::Close(close), _)) => {
                    self.put_close(&close);
                    gathered.append(&mut self.control);
                    self.state = State::Closing;
                    self.shared.stop_sending();
                    self.clock.close_due = Instant::now().checked_add(self.config.ws_close_timeout);
                }
                None => break,
            }
        }
        self.current = Bytes::from(gathered);
        !self.current.is_empty()
    }

    fn encode(&mut self, message: Prepared) -> Bytes {
        let Some(deflater) = &mut self.deflater else { return message.into_frame() };
        if message.is_for_many() {
            let deflated = message.deflated(deflater.window_bits());
            if deflated.is_some() {
                deflater.forget();
            }
            return deflated.unwrap_or_else(|| message.into_frame());
        }
        match deflater.deflate(message.data()) {
            Some(deflated) => frame::deflated(Opcode::from(message.kind()), &deflated),
            None => message.into_frame(),
        }
    }

    /// Reads and writes until there is nothing to do. Ready: it has ended.
    fn poll_through(&mut self, io: &mut dyn BothWays, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for _ in 0..MAX_READS_AT_A_TIME {
            let has_read = self.poll_read(io, cx)?.is_ready();
            let has_written = self.poll_write(io, cx)?.is_ready();
            self.clock.note_blocked(!has_written, self.progress, &self.config);
            if self.state == State::Ending && has_written {
                return Poll::Ready(Ok(()));
            }
            // Where the client takes no more, only its taking is waited for: the task is not woken for more of the same.
            if !has_read && (!has_written || self.state != State::Open || self.shared.leave()) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Tunnel for Session {
    fn poll(&mut self, io: &mut dyn BothWays, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.attend(cx);
        if take(&mut self.is_stopping) {
            self.shared.close(Close::new(Close::GOING_AWAY, "the server stops"));
        }
        loop {
            match self.poll_through(io, cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(()),
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "a WebSocket broke");
                    self.end(Close::new(Close::ABNORMAL, ""));
                    return Poll::Ready(());
                }
                Poll::Pending => {}
            }
            match ready!(self.clock.poll(&self.config, cx)) {
                Late::Ping => self.put_control(Opcode::Ping, &[]),
                late => {
                    let (says, limit) = match late {
                        Late::Dead => ("a client did not answer a ping", "ws_ping_timeout"),
                        Late::Reader => ("a client took nothing of what was to be sent", "write_timeout"),
                        _ => ("a client did not answer a close", "ws_close_timeout"),
                    };
                    tracing::debug!(kind = "limit", limit, says, "a WebSocket was cut off");
                    self.end(Close::new(Close::ABNORMAL, says));
                    return Poll::Ready(());
                }
            }
        }
    }

    fn stop(&mut self) {
        self.is_stopping = true;
    }

    fn progress(&self) -> u64 {
        self.progress
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end(Close::new(Close::ABNORMAL, ""));
    }
}

impl Clock {
    /// Notes whether there is something that the client does not take.
    fn note_blocked(&mut self, is_blocked: bool, progress: u64, config: &Config) {
        if !is_blocked {
            self.write_due = None;
        } else if self.write_due.is_none_or(|(before, _)| before != progress) {
            let due = Instant::now().checked_add(config.write_timeout);
            self.write_due = due.map(|due| (progress, due));
        }
    }

    /// Waits. Ready: something took too long.
    fn poll(&mut self, config: &Config, cx: &mut Context<'_>) -> Poll<Late> {
        loop {
            let Some(timer) = &self.timer else {
                self.ping_due = config.ws_ping_interval.and_then(|interval| Instant::now().checked_add(interval));
                let Some((due, _)) = self.first() else { return Poll::Pending };
                self.timer = Some(Box::pin(sleep_until(due)));
                return self.poll_timer(cx);
            };
            if !timer.is_elapsed() {
                // What is due sooner than the timer was set for: a close, or a client that stopped reading.
                let sooner = [self.close_due, self.write_due.map(|(_, due)| due)].into_iter().flatten().min();
                match sooner {
                    Some(due) if due < timer.deadline() => self.reset(due),
                    _ => return Poll::Pending,
                }
                return self.poll_timer(cx);
            }
            let now = Instant::now();
            if self.ping_due.is_some_and(|due| due <= now) && take(&mut self.has_heard) {
                self.is_pinged = false;
                self.ping_due = config.ws_ping_interval.and_then(|interval| now.checked_add(interval));
            }
            match self.first() {
                None => self.timer = None,
                Some((due, late)) if due <= now => {
                    if matches!(late, Late::Ping) {
                        self.is_pinged = true;
                        self.ping_due = now.checked_add(config.ws_ping_timeout);
                        if let Some((due, _)) = self.first() {
                            self.reset(due);
                            let _ = self.poll_timer(cx);
                        }
                    }
                    return Poll::Ready(late);
                }
                Some((due, _)) => {
                    self.reset(due);
                    if self.poll_timer(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// What is due first.
    fn first(&self) -> Option<(Instant, Late)> {
        let ping = self.ping_due.map(|due| (due, if self.is_pinged { Late::Dead } else { Late::Ping }));
        // Once it is being closed, an answer is waited for anyway.
        let ping = ping.filter(|_| self.close_due.is_none());
        let close = self.close_due.map(|due| (due, Late::Close));
        let reader = self.write_due.map(|(_, due)| (due, Late::Reader));
        [ping, close, reader].into_iter().flatten().min_by_key(|(due, _)| *due)
    }

    fn reset(&mut self, due: Instant) {
        if let Some(timer) = &mut self.timer {
            timer.as_mut().reset(due);
        }
    }

    /// Leaves the waker, which stays the same: a connection is one task.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Late> {
        if let Some(timer) = &mut self.timer
            && timer.as_mut().poll(cx).is_ready()
        {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

/// The application's end: what comes. Dropped, what comes is thrown away.
pub struct Receiver(Arc<Shared>);

impl Receiver {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Waits for the next message. One waits at a time: of two the last one is woken.
    ///
    /// # Errors
    /// How the WebSocket ended, once every message that came before was taken.
    pub fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<Result<Message, Close>> {
        self.0.poll_receive(cx)
    }

    /// Takes a message that has come; none if none has.
    ///
    /// # Errors
    /// As [`Receiver::poll_receive`].
    pub fn try_receive(&self) -> Option<Result<Message, Close>> {
        self.0.try_receive()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.0.turn_deaf();
    }
}
