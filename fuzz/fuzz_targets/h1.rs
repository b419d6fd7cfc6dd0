//! Any bytes on an HTTP/1.x connection, as one piece and in pieces.
//!
//! The server must not panic, must come to an end, must send nothing but responses, must give hyper nothing that hyper
//! refuses, and must send the same responses however the bytes are cut: where it does not, it takes a message for something
//! else depending on the network.
#![no_main]

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use httpy::{App, Reply, Request, listen::memory, message::text};
use libfuzzer_sys::fuzz_target;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    runtime::{Builder, LocalOptions},
    task::yield_now,
    time::{sleep, timeout},
};

fuzz_target!(|data: &[u8]| {
    let Some((&cut, bytes)) = data.split_first() else { return };
    // What begins like this is HTTP/2 (RFC 9113 §3.4), which has a target of its own.
    if bytes.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") {
        return;
    }
    let size = usize::from(cut % 32) + 1;
    let (whole, pieces) = (responses(bytes, bytes.len().max(1)), responses(bytes, size));
    assert!(whole.is_empty() || whole.starts_with("HTTP/1."), "{whole}");
    // hyper's own refusals say nothing: it has found what the strict check should have.
    assert!(!whole.contains("\r\nconnection: close\r\ncontent-length: 0\r\n"), "{whole}");
    if whole != pieces {
        assert!(is_answered_early(&whole, &pieces), "in one piece:\n{whole}\nin pieces of {size}:\n{pieces}");
    }
});

/// Whether one stops with a refusal of content where the other has answered without all of it: what is wrong with the rest
/// came too late then.
fn is_answered_early(whole: &str, pieces: &str) -> bool {
    let last = |responses: &str| responses.rfind("HTTP/1.").unwrap_or(0);
    let (before, refusal) = whole.split_at(last(whole));
    let (before_early, early) = pieces.split_at(last(pieces));
    before == before_early
        && refusal.contains("\r\nconnection: close\r\n")
        && (early.ends_with("\r\n\r\nunread") || early.ends_with("\r\n\r\nlost"))
}

/// What a server answers to `bytes` sent in pieces of `size`, without Date fields.
fn responses(bytes: &[u8], size: usize) -> String {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build_local(LocalOptions::default()).expect("a runtime");
    runtime.block_on(async {
        let (connector, listener) = memory();
        let _server = App::new(Arc::new(answer)).start(vec![Box::new(listener)]);
        let client = connector.connect().expect("a server");
        // The clock is paused: this takes no time, and is long past every limit of the server.
        timeout(Duration::from_secs(600), exchange(client, bytes, size)).await.expect("an end")
    })
}

/// A path that starts with `/x` leaves the content unread; any other counts it.
fn answer(request: Request) -> Reply {
    if request.path().starts_with("/x") {
        return text(StatusCode::OK, "unread").into();
    }
    Reply::later(async move {
        match request.into_parts().body.collect(10_000).await {
            Ok((content, trailers)) => text(StatusCode::OK, format!("{} {}", content.len(), trailers.is_some())),
            Err(_) => text(StatusCode::BAD_REQUEST, "lost"),
        }
    })
}

async fn exchange(client: DuplexStream, bytes: &[u8], size: usize) -> String {
    let (mut reader, mut writer) = tokio::io::split(client);
    let mut answers = Vec::new();
    let write = async {
        for piece in bytes.chunks(size) {
            if writer.write_all(piece).await.is_err() {
                return;
            }
            yield_now().await;
        }
        // Content may take for ever, so a client that waits for an answer to half of it has to give up; all else has ended.
        sleep(Duration::from_secs(60)).await;
        let _ = writer.shutdown().await;
    };
    let read = async {
        let _ = reader.read_to_end(&mut answers).await;
    };
    tokio::join!(write, read);
    let answers = String::from_utf8_lossy(&answers);
    answers.split("\r\n").filter(|line| !line.starts_with("date: ")).collect::<Vec<_>>().join("\r\n")
}
