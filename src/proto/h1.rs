//! Walk 5/10 and 10/10. Before: proto/negotiate.rs. After: handler.rs.
//!
//! HTTP/1.1 and HTTP/1.0 (RFC 9112), by hyper.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::{
    conn::{Connection, Cx, LocalFuture, Protocol},
    error::{Error, Kind},
    handler::Guarded,
    message::{Body, Exchange, Feature, Features, Params, Request, Response, Stream},
};

/// HTTP/1.1 and 1.0.
pub struct H1;

impl Protocol<Stream> for H1 {
    fn serve(&self, connection: Connection<Stream>, cx: Cx) -> LocalFuture<'static, ()> {
        Box::pin(serve(connection, cx))
    }
}

async fn serve(connection: Connection<Stream>, cx: Cx) {
    let peer = Arc::new(connection.peer);
    let stack = cx.stack;
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (head, body) = request.into_parts();
        Answering(stack.answer(Request {
            method: head.method,
            uri: head.uri,
            version: head.version,
            headers: head.headers,
            body: if body.is_end_stream() { Body::Empty } else { Body::stream(Arriving(body)) },
            peer: peer.clone(),
            exchange: Exchange::new(if head.version == http::Version::HTTP_11 { HTTP_11 } else { Features::NONE }),
            params: Params::default(),
            root_len: 0,
        }))
    });
    let mut builder = http1::Builder::new();
    builder
        // Measured: 5.0 -> 0.6 us per pipelined request.
        .pipeline_flush(true)
        .timer(TokioTimer::new())
        .header_read_timeout(cx.config.head_timeout)
        .max_header_size(cx.config.max_head_bytes);
    let served = builder.serve_connection(TokioIo::new(connection.io), service).with_upgrades();
    let result = cx
        .signal
        .watch(served, |served, cx| Pin::new(served).poll(cx), |served| Pin::new(served).graceful_shutdown())
        .await;
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
}

const HTTP_11: Features = Features::NONE.with(Feature::Trailers).with(Feature::WebSocket);

/// Walk 10/10: the answer, as hyper wants it.
struct Answering(Guarded);

impl Future for Answering {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(ready!(Pin::new(&mut self.0).poll(cx))))
    }
}

/// Request content, as hyper receives it.
struct Arriving(Incoming);

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let lost = |error| Error::new(Kind::Peer, "the request body did not arrive whole").because(error);
        Poll::Ready(ready!(Pin::new(&mut self.0).poll_frame(cx)).map(|frame| frame.map_err(lost)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
