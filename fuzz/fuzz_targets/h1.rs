//! Any bytes on an HTTP/1.x connection, as one piece and in pieces.
//!
//! The server must not panic, must come to an end, must send nothing but responses, and must send the same ones however
//! the bytes are cut: where it does not, it takes a message for something else depending on the network.
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
    // The preface of HTTP/2 is told apart when it is whole, and is malformed HTTP/1.x else.
    if bytes.windows(14).any(|window| window == b"PRI * HTTP/2.0") {
        return;
    }
    let whole = responses(bytes, bytes.len().max(1));
    let pieces = responses(bytes, usize::from(cut % 32) + 1);
    assert!(whole.is_empty() || whole == "refused" || whole.starts_with("HTTP/1."), "{whole}");
    assert_eq!(whole, pieces, "cut into pieces of {}", usize::from(cut % 32) + 1);
});

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
    let answers = answers.split("\r\n").filter(|line| !line.starts_with("date: ")).collect::<Vec<_>>().join("\r\n");
    // Whether a head that never ends is found malformed (400), too large (431) or late (408) may depend on the cut.
    for status in ["400 Bad Request", "408 Request Timeout", "431 Request Header Fields Too Large"] {
        let refusal = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        if let Some(before) = answers.strip_suffix(&refusal) {
            return format!("{before}refused");
        }
    }
    answers
}
