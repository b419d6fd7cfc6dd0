//! Clients with certificates (mTLS).

use std::io;

use httpy::{Request, config::ClientAuth, listen::Certificate};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, date_time_ymd};
use rustls::{
    ClientConfig, SupportedProtocolVersion,
    pki_types::{CertificateDer, pem::PemObject},
    version::{TLS12, TLS13},
};
use tokio::io::AsyncReadExt;

use super::{Authority, Secure, client_builder, key, secure_with};
use crate::support::{Client, ok, run};

/// Answers with the subject of the client's certificate.
fn tell_who(request: Request) -> httpy::Reply {
    let tls = request.peer.tls.as_deref().expect("TLS");
    let subject = tls.peer_certificate.as_deref().map(|der| Certificate::read(der).expect("a certificate").subject);
    ok(subject.unwrap_or_else(|| "nobody".to_owned())).into()
}

fn asking(client_auth: ClientAuth, clients: &Authority) -> Secure {
    secure_with(
        |settings, folder, _| {
            settings.client_ca = Some(folder.write("clients.pem", clients.pem()));
            settings.client_auth = client_auth;
        },
        tell_who,
    )
}

fn parameters(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    parameters
}

/// A client with this certificate.
fn client(served: &Secure, version: &'static SupportedProtocolVersion, (chain, pem): (String, String)) -> ClientConfig {
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().expect("a chain");
    client_builder(&[version])
        .with_root_certificates(served.authority.roots())
        .with_client_auth_cert(chain, key(&pem))
        .expect("they belong together")
}

/// What a client is answered, or why it is not. In TLS 1.3 it learns of a refusal after its own handshake is done.
async fn outcome(served: &Secure, config: ClientConfig) -> Result<String, String> {
    let text = |error: io::Error| error.to_string();
    let mut client = Client::over(served.try_connect(config, "localhost").await.map_err(text)?);
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let mut answer = String::new();
    client.io.read_to_string(&mut answer).await.map_err(text)?;
    Ok(answer.rsplit("\r\n\r\n").next().unwrap_or_default().to_owned())
}

#[test]
fn the_request_knows_whose_certificate_the_client_has() {
    run(async || {
        for client_auth in [ClientAuth::Required, ClientAuth::Optional] {
            let clients = Authority::new();
            let served = asking(client_auth, &clients);

            for version in [&TLS13, &TLS12] {
                let config = client(&served, version, clients.sign(parameters("Ada")));
                assert_eq!(outcome(&served, config).await.as_deref(), Ok("CN=Ada"));
            }
        }
    });
}

#[test]
fn the_request_has_the_chain_that_the_client_sent() {
    run(async || {
        let clients = Authority::new();
        let served = asking(ClientAuth::Required, &clients);
        let between = Authority::below(&clients);
        let (leaf, key) = between.sign(parameters("Ada"));

        let config = client(&served, &TLS13, (leaf + &between.pem(), key));

        assert_eq!(outcome(&served, config).await.as_deref(), Ok("CN=Ada"));
    });
}

#[test]
fn a_client_without_a_certificate_is_refused_if_one_is_required() {
    run(async || {
        let served = asking(ClientAuth::Required, &Authority::new());

        for version in [&TLS13, &TLS12] {
            let roots = served.authority.roots();
            let config = client_builder(&[version]).with_root_certificates(roots).with_no_client_auth();
            let error = outcome(&served, config).await.expect_err("refused");
            assert_eq!(error, "received fatal alert: CertificateRequired");
        }
    });
}

#[test]
fn a_client_without_a_certificate_is_nobody_if_it_is_optional() {
    run(async || {
        let served = asking(ClientAuth::Optional, &Authority::new());

        assert_eq!(outcome(&served, served.client()).await.as_deref(), Ok("nobody"));
    });
}

#[test]
fn a_certificate_that_does_not_count_is_refused_even_if_it_is_optional() {
    run(async || {
        for client_auth in [ClientAuth::Required, ClientAuth::Optional] {
            let clients = Authority::new();
            let served = asking(client_auth, &clients);
            let mut expired = parameters("late");
            (expired.not_before, expired.not_after) = (date_time_ymd(2019, 1, 1), date_time_ymd(2020, 1, 1));
            let mut of_a_server = parameters("server");
            of_a_server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];

            for (certificate, expected) in [
                (Authority::new().sign(parameters("stranger")), "UnknownCA"),
                (clients.sign(expired), "CertificateExpired"),
                (clients.sign(of_a_server), "UnsupportedCertificate"),
            ] {
                for version in [&TLS13, &TLS12] {
                    let config = client(&served, version, certificate.clone());
                    let error = outcome(&served, config).await.expect_err("refused");
                    assert_eq!(error, format!("received fatal alert: {expected}"));
                }
            }
        }
    });
}

#[test]
fn several_authorities_may_be_trusted() {
    run(async || {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let served = secure_with(
            |settings, folder, _| {
                settings.client_ca = Some(folder.write("clients.pem", ours.pem() + &theirs.pem()));
            },
            tell_who,
        );

        for clients in [&ours, &theirs] {
            let config = client(&served, &TLS13, clients.sign(parameters("Ada")));
            assert_eq!(outcome(&served, config).await.as_deref(), Ok("CN=Ada"));
        }
    });
}

#[test]
fn a_resumed_session_has_the_certificate_of_the_first() {
    run(async || {
        let clients = Authority::new();
        let served = asking(ClientAuth::Required, &clients);
        let config = client(&served, &TLS13, clients.sign(parameters("Ada")));

        let first = outcome(&served, config.clone()).await;
        let mut second = served.connect_with(config).await;

        assert_eq!(first.as_deref(), Ok("CN=Ada"));
        assert_eq!(second.io.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
        assert!(second.get().await.ends_with("CN=Ada"));
    });
}
