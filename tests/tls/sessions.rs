//! Sessions that are resumed.

use std::sync::Arc;

use httpy::{
    App,
    config::TicketSecret,
    listen::{Credentials, Tls, memory},
};
use rustls::{
    ClientConfig, HandshakeKind, SupportedProtocolVersion,
    client::{ClientSessionMemoryCache, Resumption, Tls12Resumption},
    version::{TLS12, TLS13},
};

use super::{Secure, client_builder, secure, secure_with, tell};
use crate::support::{Client, run};

/// A client that remembers its sessions.
fn client(served: &Secure, version: &'static SupportedProtocolVersion) -> ClientConfig {
    let roots = served.authority.roots();
    let mut config = client_builder(&[version]).with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(8)));
    config
}

/// Connects, asks for something, and says what kind of handshake it was, for client and server.
async fn connect(served: &Secure, config: &ClientConfig) -> (HandshakeKind, bool) {
    let mut client = served.connect_with(config.clone()).await;
    let answer = client.get().await;
    let kind = client.io.get_ref().1.handshake_kind().expect("a handshake");
    (kind, answer.contains("resumed=true"))
}

const FULL: (HandshakeKind, bool) = (HandshakeKind::Full, false);
const RESUMED: (HandshakeKind, bool) = (HandshakeKind::Resumed, true);

#[test]
fn a_client_resumes_its_session() {
    run(async || {
        let served = secure(tell);
        let mut by_id = client(&served, &TLS12);
        by_id.resumption = by_id.resumption.tls12_resumption(Tls12Resumption::SessionIdOnly);
        for config in [client(&served, &TLS13), client(&served, &TLS12), by_id] {
            assert_eq!(connect(&served, &config).await, FULL);
            for _ in 0..3 {
                assert_eq!(connect(&served, &config).await, RESUMED);
            }
        }
    });
}

#[test]
fn a_session_is_of_one_name() {
    run(async || {
        let served = secure_with(
            |settings, folder, authority| {
                settings.certificates = vec![super::certificate(folder, authority, &["localhost", "other.example"])];
            },
            tell,
        );
        let config = client(&served, &TLS12);
        connect(&served, &config).await;

        let stream = served.try_connect(config, "other.example").await.expect("a handshake");

        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    });
}

/// RFC 8446 §8: what is sent so early can be replayed.
#[test]
fn early_data_is_not_taken() {
    run(async || {
        let served = secure(tell);
        let mut config = client(&served, &TLS13);
        config.enable_early_data = true;
        let config = Arc::new(config);
        connect(&served, &config).await;

        let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
        let mut client = rustls::ClientConnection::new(config, name).expect("a connection");

        assert!(client.early_data().is_none(), "the ticket does not allow any");
    });
}

/// Two servers as two workers of one have it.
#[test]
fn workers_know_each_other_s_sessions() {
    run(async || {
        let secret = TicketSecret::random().expect("randomness");
        let first = secure_with(|settings, _, _| settings.ticket_secret = Some(secret.clone()), tell);
        for (its_secret, expected) in [(Some(secret.clone()), RESUMED), (None, FULL)] {
            let mut settings = super::settings(vec![super::files(
                &first.folder.path("localhost.pem"),
                &first.folder.path("localhost-key.pem"),
            )]);
            settings.ticket_secret = its_secret;
            let app = App::new(Arc::new(tell));
            let credentials = Arc::new(Credentials::load(settings).expect("good files"));
            credentials.offer(app.alpn());
            let (connector, listener) = memory();
            let _second = app.start(vec![Box::new(Tls::new(Box::new(listener), credentials))]);

            for version in [&TLS13, &TLS12] {
                let config = client(&first, version);
                connect(&first, &config).await;
                let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
                let plain = connector.connect().expect("a connection");
                let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, plain).await;
                let mut client = Client::over(stream.expect("a handshake"));
                let kind = client.io.get_ref().1.handshake_kind().expect("a handshake");
                let answer = client.get().await;
                assert_eq!((kind, answer.contains("resumed=true")), expected);
            }
        }
    });
}
