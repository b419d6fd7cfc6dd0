//! A client that speaks HTTP/2 in raw frames (RFC 9113 §4.1) and shows those that come as text.

use loona_hpack::{Decoder, Encoder};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const PRIORITY_UPDATE: u8 = 0x10;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
/// A request that is all in its head.
pub(crate) const WHOLE: u8 = END_STREAM | END_HEADERS;

pub(crate) const ENABLE_PUSH: u16 = 2;
pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;

const REASONS: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

/// The pseudo-fields of a request to `a`.
pub(crate) fn request<'a>(method: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![(":method", method), (":scheme", "http"), (":authority", "a"), (":path", path)]
}

/// A client's end of an HTTP/2 connection.
pub(crate) struct H2Client {
    io: DuplexStream,
    ahead: Vec<u8>,
    encoder: Encoder<'static>,
    decoder: Decoder<'static>,
}

/// A frame as it came.
pub(crate) struct RawFrame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl H2Client {
    /// A connection on which nothing was said yet.
    pub(crate) fn new(io: DuplexStream) -> Self {
        Self { io, ahead: Vec::new(), encoder: Encoder::new(), decoder: Decoder::new() }
    }

    /// Sends bytes as they are. A server that has closed is no error: what it said is to be read.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.io.write_all(bytes.as_ref()).await;
    }

    /// Sends a frame.
    pub(crate) async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.send(encode(kind, flags, stream, payload)).await;
    }

    /// Sends a field section in one HEADERS frame.
    pub(crate) async fn headers(&mut self, flags: u8, stream: u32, fields: &[(&str, &str)]) {
        let block = self.block(fields);
        self.frame(HEADERS, flags, stream, &block).await;
    }

    /// Sends a GET request.
    pub(crate) async fn get(&mut self, stream: u32, path: &str) {
        self.headers(WHOLE, stream, &request("GET", path)).await;
    }

    /// Compresses a field section.
    pub(crate) fn block(&mut self, fields: &[(&str, &str)]) -> Vec<u8> {
        self.encoder.encode(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    }

    pub(crate) async fn settings(&mut self, settings: &[(u16, u32)]) {
        let payload: Vec<u8> =
            settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        self.frame(SETTINGS, 0, 0, &payload).await;
    }

    pub(crate) async fn window_update(&mut self, stream: u32, bytes: u32) {
        self.frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes()).await;
    }

    pub(crate) async fn reset(&mut self, stream: u32, reason: &str) {
        let code = REASONS.iter().position(|known| *known == reason).expect("a reason") as u32;
        self.frame(RST_STREAM, 0, stream, &code.to_be_bytes()).await;
    }

    /// Closes the sending side.
    pub(crate) async fn half_close(&mut self) {
        self.io.shutdown().await.expect("half-close");
    }

    /// Reads a frame; none at the end, also if that comes within a frame.
    pub(crate) async fn read(&mut self) -> Option<RawFrame> {
        let header = self.take(9).await?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
        let payload = self.take(length).await?;
        Some(RawFrame { kind: header[3], flags: header[4], stream, payload })
    }

    /// Reads a frame and shows it; `END` if the server has closed. The Date of a response is checked to be there, and left out.
    pub(crate) async fn next(&mut self) -> String {
        match self.read().await {
            Some(frame) => self.show(&frame),
            None => "END".to_owned(),
        }
    }

    /// Reads frames until nothing comes any more for a while, and shows them.
    pub(crate) async fn all(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Ok(frame) = tokio::time::timeout(std::time::Duration::from_millis(100), self.read()).await {
            let Some(frame) = frame else {
                all.push("END".to_owned());
                break;
            };
            all.push(self.show(&frame));
        }
        all
    }

    /// Reads the rest until the server closes, and shows it.
    pub(crate) async fn rest(&mut self) -> Vec<String> {
        let mut rest = Vec::new();
        while let Some(frame) = self.read().await {
            rest.push(self.show(&frame));
        }
        rest
    }

    /// Reads the response of a stream, and nothing else: its status, and its content.
    pub(crate) async fn answer(&mut self, stream: u32) -> (String, String) {
        let head = self.read().await.expect("a response");
        assert_eq!((head.kind, head.stream), (HEADERS, stream), "{}", self.show(&head));
        let status = self.decode(&head.payload).first().map(|(_, status)| status.clone()).expect("a status");
        let mut content = Vec::new();
        let mut is_end = head.flags & END_STREAM != 0;
        while !is_end {
            let frame = self.read().await.expect("the rest of a response");
            assert_eq!((frame.kind, frame.stream), (DATA, stream), "{}", self.show(&frame));
            is_end = frame.flags & END_STREAM != 0;
            content.extend(frame.payload);
        }
        (status, String::from_utf8(content).expect("text"))
    }

    fn show(&mut self, frame: &RawFrame) -> String {
        let RawFrame { kind, flags, stream, payload } = frame;
        let word = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().expect("four bytes"));
        let end = if flags & END_STREAM == 0 { "" } else { " END_STREAM" };
        match *kind {
            DATA if payload.len() > 100 => format!("DATA {stream}{end}: {} bytes", payload.len()),
            DATA => format!("DATA {stream}{end}: {}", String::from_utf8_lossy(payload)),
            HEADERS => {
                assert_ne!(flags & END_HEADERS, 0, "a head in several frames");
                format!("HEADERS {stream}{end}: {}", self.show_fields(payload))
            }
            RST_STREAM => format!("RST_STREAM {stream} {}", reason(word(0))),
            SETTINGS if flags & ACK != 0 => "SETTINGS ACK".to_owned(),
            SETTINGS => {
                let settings = payload.chunks(6).map(|setting| {
                    let value = u32::from_be_bytes(setting[2..].try_into().expect("four bytes"));
                    format!("{}={value}", u16::from_be_bytes([setting[0], setting[1]]))
                });
                format!("SETTINGS: {}", settings.collect::<Vec<_>>().join(" "))
            }
            PUSH_PROMISE => format!("PUSH_PROMISE {stream} of {}: {}", word(0), self.show_fields(&payload[4..])),
            PING if flags & ACK != 0 => format!("PING ACK: {}", String::from_utf8_lossy(payload)),
            PING => "PING".to_owned(),
            GOAWAY => {
                let says = String::from_utf8_lossy(&payload[8..]);
                format!("GOAWAY {} {} {says}", word(0), reason(word(4))).trim_end().to_owned()
            }
            WINDOW_UPDATE => format!("WINDOW_UPDATE {stream} +{}", word(0)),
            _ => format!("frame {kind} {flags} {stream}"),
        }
    }

    fn show_fields(&mut self, block: &[u8]) -> String {
        let mut fields = self.decode(block);
        let is_final = matches!(&fields[0], (name, status) if name == ":status" && !status.starts_with('1'));
        let before = fields.len();
        fields.retain(|(name, _)| name != "date");
        assert_eq!(before - fields.len(), usize::from(is_final), "one Date in a response: {fields:?}");
        fields.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn decode(&mut self, block: &[u8]) -> Vec<(String, String)> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        let fields = self.decoder.decode(block).expect("a field section");
        fields.into_iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    async fn take(&mut self, n: usize) -> Option<Vec<u8>> {
        while self.ahead.len() < n {
            // An error is a reset, and here as good as the end.
            if self.io.read_buf(&mut self.ahead).await.unwrap_or(0) == 0 {
                return None;
            }
        }
        Some(self.ahead.drain(..n).collect())
    }
}

/// A frame as it is sent.
pub(crate) fn encode(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn reason(code: u32) -> &'static str {
    REASONS[code as usize]
}
