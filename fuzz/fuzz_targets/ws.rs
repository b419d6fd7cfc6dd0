//! Any bytes behind a WebSocket's handshake, as one piece and in pieces, with compression and without.
//!
//! The server must not panic, must come to an end, and the application must receive the same messages and the same end however
//! the bytes are cut.
#![no_main]

use std::{
    future::poll_fn,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::HeaderMap;
use httpy::{
    App, Config, Reply, Request,
    listen::memory,
    ws::{Close, Message, Opening, Policy, Prepared},
};
use libfuzzer_sys::fuzz_target;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    runtime::{Builder, LocalOptions},
    task::{spawn_local, yield_now},
    time::timeout,
};

const HANDSHAKE: &str = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

/// What the application has received, and how it ended.
type Seen = Arc<Mutex<(Vec<Message>, Option<Close>)>>;

fuzz_target!(|data: &[u8]| {
    let [cut, is_compressed, bytes @ ..] = data else { return };
    let size = usize::from(cut % 32) + 1;
    let is_compressed = is_compressed % 2 == 1;
    let (whole, pieces) = (seen(bytes, bytes.len().max(1), is_compressed), seen(bytes, size, is_compressed));
    assert_eq!(whole, pieces, "in one piece, and in pieces of {size}");
});

fn seen(bytes: &[u8], size: usize, is_compressed: bool) -> (Vec<Message>, Option<Close>) {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build_local(LocalOptions::default()).expect("a runtime");
    let seen = Seen::default();
    let sees = seen.clone();
    runtime.block_on(async {
        let (connector, listener) = memory();
        let mut config = Config::default();
        config.ws_max_message_bytes = 10_000;
        config.ws_max_frame_bytes = 5000;
        let config = Arc::new(config);
        let answer = move |request: Request| answer(&request, &config, sees.clone());
        let _server = App::new(Arc::new(answer)).start(vec![Box::new(listener)]);
        let client = connector.connect().expect("a server");
        // The clock is paused: this takes no time, and is long past every limit of the server.
        timeout(Duration::from_secs(600), exchange(client, bytes, size, is_compressed)).await.expect("an end");
        for _ in 0..100 {
            yield_now().await;
        }
    });
    let seen = seen.lock().expect("unpoisoned").clone();
    seen
}

fn answer(request: &Request, config: &Arc<Config>, seen: Seen) -> Reply {
    let opening = Opening::read(request, config).expect("a handshake");
    let accepted = opening.accept(None, HeaderMap::new(), Policy::Drop, config);
    let (response, sender, receiver) = accepted.expect("nothing special was asked for");
    spawn_local(async move {
        loop {
            match poll_fn(|cx| receiver.poll_receive(cx)).await {
                Ok(message) => {
                    let _ = sender.try_send(&Prepared::from_message(&message));
                    seen.lock().expect("unpoisoned").0.push(message);
                }
                Err(end) => {
                    seen.lock().expect("unpoisoned").1 = Some(end);
                    return;
                }
            }
        }
    });
    response.into()
}

async fn exchange(client: DuplexStream, bytes: &[u8], size: usize, is_compressed: bool) {
    let (mut reader, mut writer) = tokio::io::split(client);
    let offer = if is_compressed { "Sec-WebSocket-Extensions: permessage-deflate\r\n" } else { "" };
    writer.write_all(format!("{HANDSHAKE}{offer}\r\n").as_bytes()).await.expect("a server that reads");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(reader.read_u8().await.expect("an answer"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    let reading = spawn_local(async move {
        let mut rest = Vec::new();
        let _ = reader.read_to_end(&mut rest).await;
    });
    for piece in bytes.chunks(size) {
        if writer.write_all(piece).await.is_err() {
            break;
        }
        yield_now().await;
    }
    let _ = writer.shutdown().await;
    reading.await.expect("no panic");
}
