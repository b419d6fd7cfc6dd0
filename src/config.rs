//! The one home of defaults. Everything else, Python included, says "unset" and gets the value from here.

use std::{fmt, path::PathBuf, time::Duration};

/// Limits of one server, each with its unit, default and reason.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Longest request target in bytes; longer is 414 (431 where the target alone is larger than a head may be). 8 KiB: RFC
    /// 9110 §4.1 asks for at least 8000 octets.
    pub max_target_bytes: usize,
    /// Largest field section (request line included) in bytes; larger is 431. 64 KiB.
    pub max_head_bytes: usize,
    /// Longest field line in bytes, name and value; longer is 431. 16 KiB, as AWS's load balancers: browsers send
    /// cookies of 4 KiB, and single sign-on sends tokens of 12.
    pub max_field_bytes: usize,
    /// Most field lines in a request; more is 431. 100: browsers send 15 to 30, and hyper keeps 100 on the stack.
    pub max_fields: usize,
    /// Largest request body in bytes a handler may be given; larger is 413. 16 MiB.
    pub max_body_bytes: u64,
    /// Longest wait for the first byte of a request, from accept or from the end of the previous response; later is a
    /// close. 75 s, as nginx: longer than proxies keep idle connections (60 s at nginx and AWS), so that theirs never meet
    /// one that is about to close. The first request has `head_timeout` at least.
    pub keep_alive_timeout: Duration,
    /// Longest wait for the rest of a request head, from its first byte; later is a 408. 10 s: it is one packet or a few.
    /// As long may a handshake take, and unread content to be discarded.
    pub head_timeout: Duration,
    /// Least rate of arriving content in bytes per second, while somebody waits for it; slower is a 408. 240, as Kestrel:
    /// what a modem of 2400 bit/s did. 0 is no limit.
    pub body_min_rate: u64,
    /// Over how long that rate is measured. 10 s: a phone that changes cells is silent for some.
    pub body_timeout: Duration,
    /// Longest wait for a client to take any byte of a response, while there is something to send; later is a close. 30 s:
    /// any that lives has taken one by then, while TCP by itself would wait for the dead for a quarter of an hour.
    pub write_timeout: Duration,
    /// Longest a drain waits for running requests. 30 s, Kubernetes' own grace period.
    pub grace: Duration,
    /// How long an idle connection is kept for another request when the server stops, from the end of its last response. 1 s:
    /// who asks more often than that gets an answer that says `Connection: close` instead of a connection that is closed
    /// under the request; and nobody waits for a browser.
    pub idle_grace: Duration,
    /// Longest the app's shutdown may take, once requests have ended. 10 s, what `docker stop` gives a whole process.
    pub shutdown_timeout: Duration,
    /// How many connections the kernel may queue before `accept`. 2048, as nginx and Granian have about it.
    pub backlog: u32,
    /// Most open connections of one server; 0 is no limit. 10,000: 100 MiB or so if all of them are idle. Fewer where the
    /// system grants fewer descriptors.
    pub max_connections: usize,
    /// Most open connections of one IPv4 address or IPv6 /64; 0 is no limit. 1,000: far above any client, and about what a
    /// busy proxy keeps, while ten addresses are needed to fill a server. Clients without an address, and those of the machine
    /// and its own networks, are not counted: see [`Network`](crate::conn::Network).
    pub max_connections_per_address: usize,
    /// Longest a connection may take to be set up before its first byte of HTTP (TLS). 10 s: several round trips to the far
    /// end of the world, with packets lost.
    pub handshake_timeout: Duration,
    /// Most requests that are being answered at the same time; 0 is no limit. 1,024: more than a machine can work on, so that
    /// only those who wait for something else (a database, a timer) come near.
    pub max_in_flight: usize,
    /// Most requests that wait for one of these to end; more are 503. 1,024, another round.
    pub max_queued: usize,
    /// Longest they wait; longer is 503. 1 s: who comes late through a queue has often been given up on.
    pub queue_timeout: Duration,
    /// Longest a handler may take to answer; longer is 503. None is no limit, and the default: how long is long, only the
    /// application knows.
    pub handler_timeout: Option<Duration>,
    /// Whether clients of HTTP/1.1 are sent early hints, too (103, RFC 8297). Not: some take them for the response. Clients of
    /// HTTP/2 are known to take them.
    pub h1_early_hints: bool,
    /// Most requests that an HTTP/2 client may have under way on one connection; it is told, and more are refused. 100, the
    /// least that RFC 9113 §6.5.2 recommends.
    pub h2_max_concurrent_streams: u32,
    /// How much content of one HTTP/2 request may be on its way or unread. 256 KiB: 20 Mbit/s at 100 ms, and a quarter of
    /// the connection's, so that a handler that does not read does not hold up the others.
    pub h2_stream_window_bytes: u32,
    /// How much content of all requests on one HTTP/2 connection may be on its way or unread. 1 MiB: 80 Mbit/s at 100 ms.
    pub h2_connection_window_bytes: u32,
    /// Most streams that an HTTP/2 client may reset in a row, or have reset by its mistakes; then it is sent away. 1,000, and
    /// 33 more for every second, as nghttp2.
    pub h2_max_resets: u32,
    /// Most HTTP/2 frames in a row that do nothing (PING, SETTINGS, WINDOW_UPDATE, ...); then the client is sent away. 1,000,
    /// and 100 more for every second, 8 for a request, and 1 for a frame of content.
    pub h2_max_idle_frames: u32,
    /// Silence of an HTTP/2 client with requests under way after which it is asked for a sign of life. None: never. 30 s.
    pub h2_ping_interval: Option<Duration>,
    /// Longest wait for that sign; later is a close. 20 s.
    pub h2_ping_timeout: Duration,
    /// Longest WebSocket message in bytes, after decompression; longer is a close with 1009. 1 MiB, as Python's `websockets`:
    /// every client can make the server hold as much.
    pub ws_max_message_bytes: usize,
    /// Longest WebSocket frame in bytes, as it is sent; longer is a close with 1009. 1 MiB: a message may be one frame.
    pub ws_max_frame_bytes: u64,
    /// How many bytes may wait for a WebSocket client that reads too slowly, before senders wait, or what else its policy says.
    /// 256 KiB, besides what the system holds: a second of 2 Mbit/s.
    pub ws_max_queue_bytes: usize,
    /// Silence of a WebSocket client after which it is sent a ping. None: never. 20 s: proxies close what is silent for a minute.
    pub ws_ping_interval: Option<Duration>,
    /// Longest wait for anything to come after that ping; later is a close. 20 s.
    pub ws_ping_timeout: Duration,
    /// Longest wait for a client to answer a close; later the connection is cut. 5 s, many round trips.
    pub ws_close_timeout: Duration,
    /// How long a WebSocket's handler may go on after its client has gone, before it is cancelled. 10 s: it is told when it next
    /// uses the socket, and may have something to finish.
    pub ws_handler_grace: Duration,
    /// How many rooms a WebSocket may be in. 100: clients say in messages which they want, and each is a name to keep, in every
    /// process.
    pub ws_max_rooms: usize,
    /// How many bytes of messages to rooms may wait for another process that shares them, before more are dropped. 8 MiB: it
    /// takes them faster than its clients do, unless it is stuck.
    pub rooms_max_queue_bytes: usize,
    /// The Redis through which servers on several machines share their rooms. None: those of this machine's workers are shared
    /// without it.
    pub rooms_url: Option<Secret>,
    /// The channel there. Those who share it share their rooms.
    pub rooms_channel: String,
    /// Whether WebSocket messages are compressed for clients that can (permessage-deflate, RFC 7692). Yes.
    pub ws_compression: bool,
    /// The largest window that either side keeps for that, 9 to 15 bits. 12: text gets nearly as short as with 15, while
    /// 10,000 connections take 1.2 GB less.
    pub ws_compression_window_bits: u8,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_target_bytes: 8 * 1024,
            max_head_bytes: 64 * 1024,
            max_field_bytes: 16 * 1024,
            max_fields: 100,
            max_body_bytes: 16 * 1024 * 1024,
            keep_alive_timeout: Duration::from_secs(75),
            head_timeout: Duration::from_secs(10),
            body_min_rate: 240,
            body_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            grace: Duration::from_secs(30),
            idle_grace: Duration::from_secs(1),
            shutdown_timeout: Duration::from_secs(10),
            backlog: 2048,
            max_connections: 10_000,
            max_connections_per_address: 1_000,
            handshake_timeout: Duration::from_secs(10),
            max_in_flight: 1024,
            max_queued: 1024,
            queue_timeout: Duration::from_secs(1),
            handler_timeout: None,
            h1_early_hints: false,
            h2_max_concurrent_streams: 100,
            h2_stream_window_bytes: 256 * 1024,
            h2_connection_window_bytes: 1024 * 1024,
            h2_max_resets: 1000,
            h2_max_idle_frames: 1000,
            h2_ping_interval: Some(Duration::from_secs(30)),
            h2_ping_timeout: Duration::from_secs(20),
            ws_max_message_bytes: 1024 * 1024,
            ws_max_frame_bytes: 1024 * 1024,
            ws_max_queue_bytes: 256 * 1024,
            ws_ping_interval: Some(Duration::from_secs(20)),
            ws_ping_timeout: Duration::from_secs(20),
            ws_close_timeout: Duration::from_secs(5),
            ws_handler_grace: Duration::from_secs(10),
            ws_max_rooms: 100,
            rooms_max_queue_bytes: 8 * 1024 * 1024,
            rooms_url: None,
            rooms_channel: "httpy:rooms".to_owned(),
            ws_compression: true,
            ws_compression_window_bits: 12,
        }
    }
}

/// Text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(...)")
    }
}

/// How worker processes are looked after. What looks after them is no part of this package; their defaults are, as all.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Supervision {
    /// How many workers. 1.
    pub workers: u32,
    /// How long a worker's loop may be stuck before the worker is killed and replaced; zero is for ever. 30 s, as gunicorn.
    pub worker_timeout: Duration,
    /// After how many requests a worker is replaced; zero is never. Never: it is a remedy for leaks, not a habit.
    pub max_requests: u64,
    /// With how much resident memory, in bytes, a worker is replaced; zero is with any. With any, for the same reason.
    pub max_rss: u64,
    /// By how much of themselves the two limits above are raised at most, drawn anew for each worker, so that workers that
    /// started together are not replaced together. 0.1.
    pub recycle_jitter: f64,
    /// Whether every worker has a listening socket of its own (`SO_REUSEPORT`), so that the system spreads connections over
    /// workers. No: those that wait for a worker that is busy are then not taken by one that is free.
    pub reuse_port: bool,
}

impl Default for Supervision {
    fn default() -> Self {
        Self {
            workers: 1,
            worker_timeout: Duration::from_secs(30),
            max_requests: 0,
            max_rss: 0,
            recycle_jitter: 0.1,
            reuse_port: false,
        }
    }
}

/// How connections are encrypted. Without certificates none is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Tls {
    /// The server's certificates. Which one a client gets depends on the name it asks for; the first one is for those that
    /// ask for no name, or for one that no certificate has.
    pub certificates: Vec<CertificateFiles>,
    /// A file of the authorities whose clients are trusted. None: clients are not asked for certificates.
    pub client_ca: Option<PathBuf>,
    /// Whether clients without a certificate are served. Not, as whoever names authorities will expect.
    pub client_auth: ClientAuth,
    /// The least version of TLS. 1.2: older ones are deprecated (RFC 8996), and 1.3 alone would shut out what is older than 2018.
    pub min_version: TlsVersion,
    /// The cipher suites, by their names with IANA. None named: all that rustls has, none of which is weak.
    pub ciphers: Vec<String>,
    /// How often the files are looked at; when they have changed, and changed no more until the next look, they are read anew.
    /// Zero is never. 10 s: nobody waits for a new certificate, and a look costs some microseconds.
    pub reload_interval: Duration,
    /// What the keys of session tickets are made of, so that several processes know each other's. None: of nothing anybody
    /// else knows.
    pub ticket_secret: Option<TicketSecret>,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            certificates: Vec::new(),
            client_ca: None,
            client_auth: ClientAuth::Required,
            min_version: TlsVersion::V1_2,
            ciphers: Vec::new(),
            reload_interval: Duration::from_secs(10),
            ticket_secret: None,
        }
    }
}

/// Where a certificate is, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The file of the certificate, followed by those that lead to an authority that clients know. PEM.
    pub chain: PathBuf,
    /// The file of its key. PEM. None: it is in the same file.
    pub key: Option<PathBuf>,
}

/// What the keys of session tickets are made of. Each period of time has a secret, which is made of that of the period before
/// and does not tell it: see `listen/tls/tickets.rs`.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketSecret {
    /// Which period it is the secret of.
    pub period: u64,
    /// The secret.
    pub bytes: [u8; 32],
}

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketSecret({}, ...)", self.period)
    }
}

/// What is asked of clients where their certificates are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Clients without a certificate are refused.
    Required,
    /// They are served; the application sees that they have none.
    Optional,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    V1_2,
    /// RFC 8446.
    V1_3,
}
