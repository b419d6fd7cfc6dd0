//! A WebSocket over a carrier that has messages in place of bytes: frames, pings and the closing handshake are somebody else's.
//!
//! What a [`Session`] is to a byte stream, a [`Relay`] is to such a carrier: both stand at the same end of what they share with the
//! application, which can't tell one from the other.

use std::{
    any::Any,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use super::{
    message::{Close, Message, Prepared},
    session::Session,
    shared::{Asked, Shared},
};
use crate::message::{Response, Switch};

/// What the carrier is to send.
#[derive(Clone, Debug)]
pub enum Outgoing {
    /// A message.
    Message(Prepared),
    /// The last: how the application closes.
    Close(Close),
}

/// The carrier's end. One task takes what goes out ([`Relay::poll_outgoing`]), another brings what comes in. Dropped, it is the
/// end of the WebSocket, with 1006 if there was no other.
pub struct Relay {
    shared: Arc<Shared>,
    /// Who takes what goes out, and who brings what comes in.
    taker: Mutex<Option<Waker>>,
    bringer: Mutex<Option<Waker>>,
}

impl Relay {
    /// Takes the place of the session in a response that opens a WebSocket. None: it opens none.
    pub fn take(response: &mut Response) -> Option<Self> {
        let tunnel: Box<dyn Any> = Switch::take(response)?;
        let shared = tunnel.downcast::<Session>().ok()?.into_shared();
        Some(Self { shared, taker: Mutex::default(), bringer: Mutex::default() })
    }

    /// Takes what is to be sent next. Pings are not: the carrier has its own. Ready with None: it has ended.
    pub fn poll_outgoing(&self, cx: &mut Context<'_>) -> Poll<Option<Outgoing>> {
        place(&self.taker, cx);
        self.shared.attend(cx);
        if !self.shared.is_full() {
            wake(&self.bringer);
        }
        loop {
            match self.shared.take_asked() {
                Some((Asked::Send(message), _)) => return Poll::Ready(Some(Outgoing::Message(message))),
                Some((Asked::Ping(_), _)) => {}
                Some((Asked::Close(close), _)) => {
                    self.shared.stop_sending();
                    return Poll::Ready(Some(Outgoing::Close(close)));
                }
                None if self.shared.ended().is_some() => return Poll::Ready(None),
                None if self.shared.leave() => return Poll::Pending,
                None => {}
            }
        }
    }

    /// Gives the application a message. That of a text has to be UTF-8.
    pub fn deliver(&self, message: Message) {
        self.shared.deliver(message);
    }

    /// Waits until the application has room for more messages.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        place(&self.bringer, cx);
        if self.shared.is_full() && self.shared.ended().is_none() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// It has ended so. The first end counts.
    pub fn end(&self, close: Close) {
        self.shared.end(close);
        wake(&self.taker);
        wake(&self.bringer);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.end(Close::new(Close::ABNORMAL, ""));
    }
}

fn place(waiting: &Mutex<Option<Waker>>, cx: &Context<'_>) {
    let last = waiting.lock().unwrap_or_else(PoisonError::into_inner).replace(cx.waker().clone());
    drop(last);
}

fn wake(waiting: &Mutex<Option<Waker>>) {
    let waker = waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
        task::Wake,
    };

    use http::{HeaderMap, Method};

    use super::*;
    use crate::{
        config::Config,
        message::{Exchange, Feature, Features, Request},
        ws::{Kind, Opening, Policy, Receiver, Refused, Sender},
    };

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn waker() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count::default());
        (count.clone(), Waker::from(count))
    }

    /// What an application has of a WebSocket, and what its carrier has.
    fn open(max_queued: usize) -> (Sender, Receiver, Relay) {
        let mut request = Request::new(Method::GET, "/ws".parse().unwrap());
        request.exchange = Exchange::new(Features::NONE.with(Feature::WebSocket)).with_protocol("websocket");
        request.headers.insert("sec-websocket-version", "13".parse().unwrap());
        let config = Arc::new(Config { ws_max_queue_bytes: max_queued, ..Config::default() });
        let opening = Opening::read(&request, &config).unwrap();
        let (mut response, sender, receiver) = opening.accept(None, HeaderMap::new(), Policy::Wait, &config).unwrap();
        let relay = Relay::take(&mut response).unwrap();
        assert!(!Switch::is_in(&response));
        (sender, receiver, relay)
    }

    fn text(text: &'static str) -> Message {
        Message { kind: Kind::Text, data: text.into() }
    }

    fn outgoing(relay: &Relay) -> Poll<Option<String>> {
        relay.poll_outgoing(&mut Context::from_waker(Waker::noop())).map(|outgoing| {
            outgoing.map(|outgoing| match outgoing {
                Outgoing::Message(message) => String::from_utf8(message.data().to_vec()).unwrap(),
                Outgoing::Close(close) => format!("{} {}", close.code, close.reason),
            })
        })
    }

    #[test]
    fn a_response_that_opens_nothing_has_none() {
        assert!(Relay::take(&mut Response::default()).is_none());
    }

    #[test]
    fn messages_go_both_ways_as_they_are() {
        let (sender, receiver, relay) = open(1000);

        sender.try_send(&Prepared::text("out")).unwrap();
        sender.ping(b"not sent").unwrap();
        relay.deliver(text("in"));

        assert_eq!(receiver.try_receive(), Some(Ok(text("in"))));
        assert_eq!(outgoing(&relay), Poll::Ready(Some("out".to_owned())));
        assert_eq!(outgoing(&relay), Poll::Pending);
    }

    #[test]
    fn who_takes_is_woken_once_for_all_that_is_sent() {
        let (sender, _receiver, relay) = open(1000);
        let (count, waker) = waker();
        assert!(relay.poll_outgoing(&mut Context::from_waker(&waker)).is_pending());

        sender.try_send(&Prepared::text("one")).unwrap();
        sender.try_send(&Prepared::text("two")).unwrap();

        assert_eq!(count.0.load(SeqCst), 1);
        assert_eq!(outgoing(&relay), Poll::Ready(Some("one".to_owned())));
        assert_eq!(outgoing(&relay), Poll::Ready(Some("two".to_owned())));
    }

    #[test]
    fn a_close_comes_behind_what_was_sent_and_its_end_behind_it() {
        let (sender, receiver, relay) = open(1000);

        sender.try_send(&Prepared::text("last")).unwrap();
        sender.close(Close::new(4000, "done"));

        assert_eq!(outgoing(&relay), Poll::Ready(Some("last".to_owned())));
        assert_eq!(outgoing(&relay), Poll::Ready(Some("4000 done".to_owned())));
        assert_eq!(sender.try_send(&Prepared::text("late")), Err(Refused::Closed));
        assert_eq!(receiver.try_receive(), None);
        relay.end(Close::new(4000, "done"));
        assert_eq!(outgoing(&relay), Poll::Ready(None));
        assert_eq!(receiver.try_receive(), Some(Err(Close::new(4000, "done"))));
    }

    #[test]
    fn an_end_wakes_everybody_and_the_first_one_counts() {
        let (sender, receiver, relay) = open(1000);
        let ((takes, taker), (reads, reader)) = (waker(), waker());
        assert!(relay.poll_outgoing(&mut Context::from_waker(&taker)).is_pending());
        assert!(receiver.poll_receive(&mut Context::from_waker(&reader)).is_pending());

        relay.end(Close::new(1001, "left"));
        relay.end(Close::new(1006, ""));

        assert_eq!((takes.0.load(SeqCst), reads.0.load(SeqCst)), (1, 1));
        assert_eq!(sender.ended(), Some(Close::new(1001, "left")));
        assert_eq!(receiver.try_receive(), Some(Err(Close::new(1001, "left"))));
    }

    #[test]
    fn a_carrier_that_is_gone_is_an_end_without_a_close() {
        let (sender, _receiver, relay) = open(1000);

        drop(relay);

        assert_eq!(sender.ended(), Some(Close::new(1006, "")));
    }

    #[test]
    fn who_brings_waits_for_an_application_that_has_enough() {
        let (_sender, receiver, relay) = open(1000);
        let ((brings, bringer), (takes, taker)) = (waker(), waker());
        let mut cx = Context::from_waker(&bringer);
        let chunk = Message { kind: Kind::Binary, data: vec![0; 32 * 1024].into() };

        relay.deliver(chunk.clone());
        assert!(relay.poll_room(&mut cx).is_ready());
        relay.deliver(chunk);
        assert!(relay.poll_room(&mut cx).is_pending());
        assert!(relay.poll_outgoing(&mut Context::from_waker(&taker)).is_pending());
        receiver.try_receive().unwrap().unwrap();
        receiver.try_receive().unwrap().unwrap();

        // It is told by way of who takes, whom the application wakes.
        assert_eq!((takes.0.load(SeqCst), brings.0.load(SeqCst)), (1, 0));
        assert!(relay.poll_outgoing(&mut Context::from_waker(&taker)).is_pending());
        assert_eq!(brings.0.load(SeqCst), 1);
        assert!(relay.poll_room(&mut cx).is_ready());
    }

    #[test]
    fn what_is_not_taken_is_bounded() {
        let (sender, _receiver, relay) = open(200);

        sender.try_send(&Prepared::text("0123456789")).unwrap();
        sender.try_send(&Prepared::text("0123456789")).unwrap();

        assert_eq!(sender.try_send(&Prepared::binary(&[0; 100])), Err(Refused::Full));
        assert!(outgoing(&relay).is_ready());
        assert!(outgoing(&relay).is_ready());
        sender.try_send(&Prepared::binary(&[0; 100])).unwrap();
    }
}
