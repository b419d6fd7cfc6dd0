//! How long the strict check of what came takes: `cargo bench --bench strict`.

use divan::{Bencher, black_box, counter::BytesCount};
use httpy::Config;

/// What is checked is nobody's business outside of the crate, so it is compiled here again.
#[allow(dead_code, unused_imports)]
#[path = "../src/proto"]
mod proto {
    mod strict;

    use self::strict::{Chunks, Framing, Head, Limits, Seen, Walked};
    use super::Config;

    /// Returns what checks one whole request, and panics if it is refused or not whole.
    pub(super) fn checker() -> impl Fn(&[u8]) {
        let limits = Limits::from(&Config::default());
        move |bytes| check(bytes, &limits)
    }

    fn check(bytes: &[u8], limits: &Limits) {
        let (end, framing) = match Head::default().see(bytes, limits) {
            Ok(Seen::Whole(end, framing)) => (end, framing),
            other => panic!("{other:?}"),
        };
        let content = &bytes[end..];
        match framing {
            Framing::Length(length) => assert_eq!(content.len() as u64, length),
            Framing::Chunked => {
                assert_eq!(Chunks::default().walk(content, limits), Ok(Walked::ToEnd(content.len())));
            }
        }
    }
}

mod config {
    pub(crate) use super::Config;
}

fn main() {
    divan::main();
}

const WRK: &str = "GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n";

const BROWSER: &str = "GET /articles/2026/11/how-it-works?utm_source=feed&page=2 HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    Connection: keep-alive\r\n\
    sec-ch-ua: \"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\"\r\n\
    sec-ch-ua-mobile: ?0\r\n\
    sec-ch-ua-platform: \"Linux\"\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8\r\n\
    Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-US,en;q=0.9\r\n\r\n";

const API: &str = "POST /api/v1/users HTTP/1.1\r\nhost: api.example.com\r\naccept: */*\r\n\
    accept-encoding: gzip, deflate\r\nconnection: keep-alive\r\nuser-agent: python-httpx/0.28.1\r\n\
    content-length: 27\r\ncontent-type: application/json\r\n\r\n{\"name\":\"Ada\",\"age\":36000}\n";

const CHUNKED: &str = "POST /upload HTTP/1.1\r\nhost: api.example.com\r\ntransfer-encoding: chunked\r\n\r\n\
    1b\r\n{\"name\":\"Ada\",\"age\":36000}\n\r\n0\r\n\r\n";

#[divan::bench(args = ["wrk", "API", "browser", "chunked"], sample_size = 10_000)]
fn check(bencher: Bencher<'_, '_>, from: &str) {
    let request = match from {
        "wrk" => WRK,
        "API" => API,
        "browser" => BROWSER,
        _ => CHUNKED,
    };
    let check = proto::checker();

    bencher.counter(BytesCount::of_str(request)).bench_local(|| check(black_box(request.as_bytes())));
}
