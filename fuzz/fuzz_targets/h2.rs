//! Any frames on an HTTP/2 connection, as one piece and in pieces.
//!
//! The server must not panic, must come to an end, must send nothing but frames, and must not hold more than its limits
//! allow: what it takes in without reading is counted by what it lets the client send.
#![no_main]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, uri::PathAndQuery};
use httpy::{
    App, Body, Reply, Request, Response,
    listen::memory,
    message::{Promise, text},
};
use libfuzzer_sys::fuzz_target;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    runtime::{Builder, LocalOptions},
    task::yield_now,
    time::{sleep, timeout},
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// As much as the memory listener holds: what the server may take without having answered is less than this and its windows.
const MAX_SENT: usize = 8 * 1024 * 1024;

fuzz_target!(|data: &[u8]| {
    let Some((&cut, frames)) = data.split_first() else { return };
    let whole = answers(frames, frames.len().max(1));
    check(&whole);
    check(&answers(frames, usize::from(cut % 32) + 1));
});

/// What comes back is frames, and begins with settings.
fn check(mut answers: &[u8]) {
    assert!(answers.is_empty() || answers.get(3) == Some(&4), "no settings first");
    while answers.len() >= 9 {
        let length = u32::from_be_bytes([0, answers[0], answers[1], answers[2]]) as usize;
        assert!(length <= 16_384 && answers[3] <= 9, "no frame: {:?}", &answers[..9]);
        // The end may come within a frame, where the client takes nothing.
        answers = answers.get(9 + length..).unwrap_or_default();
    }
}

/// What a server sends to a client that sends the preface, and then `frames` in pieces of `size`.
fn answers(frames: &[u8], size: usize) -> Vec<u8> {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build_local(LocalOptions::default()).expect("a runtime");
    runtime.block_on(async {
        let (connector, listener) = memory();
        let _server = App::new(Arc::new(answer)).start(vec![Box::new(listener)]);
        let client = connector.connect().expect("a server");
        // The clock is paused: this takes no time, and is long past every limit of the server.
        timeout(Duration::from_secs(3600), exchange(client, frames, size)).await.expect("an end")
    })
}

/// Reads the content or not, pushes, hints, is slow, has much or little to say, by the path.
fn answer(request: Request) -> Reply {
    match request.path().as_bytes().get(1) {
        Some(b'r') => Reply::later(async move {
            match request.into_parts().body.collect(10_000).await {
                Ok((content, trailers)) => text(StatusCode::OK, format!("{} {}", content.len(), trailers.is_some())),
                Err(_) => text(StatusCode::BAD_REQUEST, "lost"),
            }
        }),
        Some(b'p') => {
            let promise = Promise { target: PathAndQuery::from_static("/l"), headers: HeaderMap::new(), is_head: false };
            text(StatusCode::OK, request.exchange.push(promise).to_string()).into()
        }
        Some(b'h') => {
            let mut fields = HeaderMap::new();
            fields.insert("link", HeaderValue::from_static("</a>"));
            let hinted = request.exchange.early_hints(fields);
            Reply::later(async move {
                sleep(Duration::from_secs(1)).await;
                text(StatusCode::OK, hinted.to_string())
            })
        }
        Some(b'l') => Response::new(Body::from(Bytes::from_static(&[b'x'; 100_000]))).into(),
        Some(b'n') => Reply::later(std::future::pending()),
        _ => text(StatusCode::OK, "fine").into(),
    }
}

async fn exchange(client: DuplexStream, frames: &[u8], size: usize) -> Vec<u8> {
    let (mut reader, mut writer) = tokio::io::split(client);
    let mut answers = Vec::new();
    let write = async {
        if writer.write_all(PREFACE).await.is_err() {
            return;
        }
        for piece in frames.chunks(size) {
            if writer.write_all(piece).await.is_err() {
                return;
            }
            yield_now().await;
        }
        // Every limit on time is reached by then, and the connection has ended; or it never will.
        sleep(Duration::from_secs(1800)).await;
        panic!("the connection does not end");
    };
    let read = async {
        let _ = (&mut reader).take(MAX_SENT as u64).read_to_end(&mut answers).await;
        assert!(answers.len() < MAX_SENT, "the server sends without end");
    };
    tokio::select! {
        () = write => {}
        () = read => {}
    }
    answers
}
