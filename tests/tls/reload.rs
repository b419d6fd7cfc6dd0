//! Certificates that change while the server runs.

use std::{fs, time::Duration};

use httpy::listen::Certificate;
use rustls::HandshakeKind;
use tokio::task::spawn_local;

use super::{Authority, Secure, parameters, remembering, secure, secure_with, tell};
use crate::support::{log, run};

/// The serial number of the certificate that new connections get.
async fn serial(served: &Secure) -> String {
    let client = served.connect_with(super::forgetful(served.client())).await;
    let der = client.io.get_ref().1.peer_certificates().expect("a chain")[0].clone();
    Certificate::read(&der).expect("a certificate").serial_number
}

/// Writes a new certificate in place of the one there is.
fn renew(served: &Secure) {
    let (chain, key) = served.authority.sign(parameters(&["localhost"]));
    served.folder.write("localhost.pem", chain);
    served.folder.write("localhost-key.pem", key);
}

#[test]
fn new_connections_get_the_new_certificate_and_old_ones_live_on() {
    run(async || {
        let log = log();
        let served = secure(tell);
        let mut before = served.connect().await;
        before.get().await;
        let old = serial(&served).await;

        renew(&served);
        served.credentials.reload().expect("good files");

        assert_ne!(serial(&served).await, old);
        assert!(before.get().await.contains("TLSv1.3"));
        assert_eq!(log.with("INFO certificates were read again").len(), 1);
    });
}

#[test]
fn bad_files_change_nothing_and_are_told_once() {
    run(async || {
        let log = log();
        let served = secure(tell);
        let old = serial(&served).await;
        served.folder.write("localhost-key.pem", "no key");

        let error = served.credentials.reload().expect_err("a bad key");

        assert_eq!(serial(&served).await, old);
        let expected = "is not PEM, which has lines such as -----BEGIN CERTIFICATE-----";
        assert!(error.to_string().ends_with(expected), "{error}");
        let said = log.with("ERROR certificates were not read again, and stay as they were: keyfile");
        assert_eq!(said.len(), 1);
    });
}

/// A look every ten seconds; what has changed has to be the same at the next one.
#[test]
fn files_that_change_are_read_again() {
    run(async || {
        let log = log();
        let served = secure(tell);
        let credentials = served.credentials.clone();
        let watching = spawn_local(async move { credentials.watch().await });
        let old = serial(&served).await;
        tokio::time::sleep(Duration::from_secs(25)).await;
        assert_eq!(log.with("certificates were"), <[String; 0]>::default(), "nothing has changed");

        renew(&served);
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert_eq!(serial(&served).await, old, "seen, and not old enough");
        tokio::time::sleep(Duration::from_secs(10)).await;

        assert_ne!(serial(&served).await, old);
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(log.with("certificates were").len(), 1);
        watching.abort();
    });
}

#[test]
fn a_bad_file_is_told_once_and_a_good_one_after_it_is_read() {
    run(async || {
        let log = log();
        let served = secure(tell);
        let credentials = served.credentials.clone();
        let watching = spawn_local(async move { credentials.watch().await });
        let old = serial(&served).await;

        fs::remove_file(served.folder.path("localhost.pem")).expect("removed");
        tokio::time::sleep(Duration::from_secs(100)).await;

        assert_eq!(serial(&served).await, old);
        assert_eq!(log.with("ERROR certificates were not read again").len(), 1);
        renew(&served);
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_ne!(serial(&served).await, old);
        assert_eq!(log.with("certificates were").len(), 2);
        watching.abort();
    });
}

/// Kubernetes, certbot: what changes is where a link leads.
#[cfg(unix)]
#[test]
fn links_that_lead_elsewhere_are_followed() {
    run(async || {
        let served = secure_with(
            |settings, folder, authority| {
                for name in ["first", "second"] {
                    let (chain, key) = authority.sign(parameters(&["localhost"]));
                    fs::create_dir(folder.path(name)).expect("a folder");
                    folder.write(&format!("{name}/chain.pem"), chain);
                    folder.write(&format!("{name}/key.pem"), key);
                }
                std::os::unix::fs::symlink("first", folder.path("live")).expect("a link");
                let at = |name: &str| folder.path("live").join(name);
                settings.certificates = vec![super::files(&at("chain.pem"), &at("key.pem"))];
            },
            tell,
        );
        let credentials = served.credentials.clone();
        let watching = spawn_local(async move { credentials.watch().await });
        let old = serial(&served).await;

        std::os::unix::fs::symlink("second", served.folder.path("new")).expect("a link");
        fs::rename(served.folder.path("new"), served.folder.path("live")).expect("renamed");
        tokio::time::sleep(Duration::from_secs(20)).await;

        assert_ne!(serial(&served).await, old);
        watching.abort();
    });
}

#[test]
fn nothing_is_looked_at_if_that_is_not_wanted() {
    run(async || {
        let served = secure_with(|settings, _, _| settings.reload_interval = Duration::ZERO, tell);
        let credentials = served.credentials.clone();
        let watching = spawn_local(async move { credentials.watch().await });
        let old = serial(&served).await;

        renew(&served);
        tokio::time::sleep(Duration::from_secs(1000)).await;

        assert_eq!(serial(&served).await, old);
        watching.abort();
    });
}

#[test]
fn sessions_live_through_a_new_certificate() {
    run(async || {
        let served = secure(tell);
        let config = remembering(served.client());
        served.connect_with(config.clone()).await.get().await;

        renew(&served);
        served.credentials.reload().expect("good files");

        let client = served.connect_with(config).await;
        assert_eq!(client.io.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    });
}

/// In a resumed session nobody looks at the client's certificate again.
#[test]
fn sessions_end_where_other_authorities_are_trusted() {
    run(async || {
        let clients = Authority::new();
        let served = secure_with(
            |settings, folder, _| {
                settings.client_ca = Some(folder.write("clients.pem", clients.pem()));
                settings.client_auth = httpy::config::ClientAuth::Optional;
            },
            tell,
        );
        let config = remembering(served.client());
        served.connect_with(config.clone()).await.get().await;

        served.folder.write("clients.pem", Authority::new().pem());
        served.credentials.reload().expect("good files");

        let client = served.connect_with(config).await;
        assert_eq!(client.io.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    });
}
