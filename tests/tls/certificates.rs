//! Which certificate a client gets.

use std::sync::Arc;

use httpy::{config::CertificateFiles, listen::Certificate};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize};
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::{TLS12, TLS13},
};

use super::{Authority, Folder, Secure, certificate, client_builder, files, parameters, secure_with, tell};
use crate::support::{Client, run};

const P256: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;
const P384: SignatureScheme = SignatureScheme::ECDSA_NISTP384_SHA384;

/// The host names of the certificate that a client gets who asks for `name`, and understands these signatures.
async fn names(served: &Secure, name: &str, schemes: &[SignatureScheme]) -> Vec<String> {
    let mut config = served.client();
    // Whatever it is for.
    config.dangerous().set_certificate_verifier(Arc::new(Anything(schemes.to_vec())));
    let stream = served.try_connect(config, name).await.expect("a handshake");
    let der = &stream.get_ref().1.peer_certificates().expect("a chain")[0];
    let certificate = Certificate::read(der).expect("a certificate");
    certificate.names.into_iter().map(|(_, name)| name).collect()
}

fn with_three() -> Secure {
    secure_with(
        |settings, folder, authority| {
            settings.certificates.push(certificate(folder, authority, &["*.example.org"]));
            settings.certificates.push(certificate(folder, authority, &["www.example.org", "example.org"]));
        },
        tell,
    )
}

#[test]
fn a_client_gets_the_certificate_of_the_name_it_asks_for() {
    run(async || {
        let served = with_three();

        for (name, expected) in [
            ("localhost", &["localhost"][..]),
            ("www.example.org", &["www.example.org", "example.org"]),
            ("EXAMPLE.org", &["www.example.org", "example.org"]),
            ("a.example.org", &["*.example.org"]),
            // Unknown: the first one.
            ("a.b.example.org", &["localhost"]),
            ("example.com", &["localhost"]),
            // An address is no name (RFC 6066 §3), so that nothing is asked for.
            ("127.0.0.1", &["localhost"]),
        ] {
            assert_eq!(names(&served, name, &[P256]).await, expected, "{name}");
        }
    });
}

#[test]
fn the_request_says_which_name_was_asked_for() {
    run(async || {
        let served = with_three();
        let io = served.try_connect(served.client(), "A.example.org").await.expect("a handshake");

        let answer = Client::over(io).get().await;

        assert!(answer.contains(r#"Some("a.example.org")"#), "{answer}");
    });
}

#[test]
fn a_client_gets_one_whose_signature_it_understands() {
    run(async || {
        let served = secure_with(
            |settings, folder, authority| {
                let write = |name: &str, algorithm| {
                    let (chain, key) = authority.sign_of(&["localhost", name], algorithm);
                    files(&folder.write(name, chain), &folder.write(&format!("{name}-key"), key))
                };
                settings.certificates = vec![
                    write("p384.example", &PKCS_ECDSA_P384_SHA384),
                    write("p256.example", &PKCS_ECDSA_P256_SHA256),
                ];
            },
            tell,
        );

        assert_eq!(names(&served, "localhost", &[P256]).await, ["localhost", "p256.example"]);
        assert_eq!(names(&served, "localhost", &[P384]).await, ["localhost", "p384.example"]);
        assert_eq!(names(&served, "localhost", &[P256, P384]).await, ["localhost", "p384.example"]);
    });
}

/// The whole chain is sent: clients know the root, and nobody in between.
#[test]
fn sends_the_chain_of_the_file() {
    run(async || {
        let served = secure_with(
            |settings, folder, root| {
                let between = Authority::below(root);
                let (leaf, key) = between.sign(parameters(&["localhost"]));
                let chain = folder.write("chain.pem", leaf + &between.pem());
                settings.certificates = vec![files(&chain, &folder.write("chain-key.pem", key))];
            },
            tell,
        );

        let stream = served.try_connect(served.client(), "localhost").await.expect("trusted");

        assert_eq!(stream.get_ref().1.peer_certificates().expect("a chain").len(), 2);
    });
}

/// PKCS#8 is what everything else here uses.
#[test]
fn reads_keys_of_every_kind() {
    run(async || {
        let folder = Folder::new();
        let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("a key");
        let ecdsa = KeyPair::generate().expect("a key");
        let ed25519 = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        for (key, label, is_inner) in [
            (&rsa, "RSA PRIVATE KEY", true),
            (&rsa, "PRIVATE KEY", false),
            (&ecdsa, "EC PRIVATE KEY", true),
            (&ecdsa, "PRIVATE KEY", false),
            (&ed25519, "PRIVATE KEY", false),
        ] {
            let der = key.serialize_der();
            let der = if is_inner { inner(&der).to_vec() } else { der };
            // OpenSSL writes the parameters of a curve before the key.
            let pem = format!(
                "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{}",
                pem(label, &der)
            );
            let served = secure_with(
                |settings, _, authority| {
                    let (chain, _) = authority.sign_with(parameters(&["localhost"]), key);
                    settings.certificates =
                        vec![files(&folder.write("cert.pem", chain), &folder.write("key.pem", pem))];
                },
                tell,
            );
            for version in [&TLS13, &TLS12] {
                let roots = served.authority.roots();
                let config = client_builder(&[version]).with_root_certificates(roots).with_no_client_auth();
                assert!(served.connect_with(config).await.get().await.contains("TLSv1."), "{label}");
            }
        }
    });
}

#[test]
fn a_file_may_have_both_the_certificate_and_the_key() {
    run(async || {
        let served = secure_with(
            |settings, folder, authority| {
                let (chain, key) = authority.sign(parameters(&["localhost"]));
                let chain = folder.write("both.pem", key + &chain);
                settings.certificates = vec![CertificateFiles { chain, key: None }];
            },
            tell,
        );

        assert!(served.connect().await.get().await.contains("TLSv1.3"));
    });
}

/// The key inside of a PKCS#8 one (RFC 5958 §2): `SEQUENCE { INTEGER, SEQUENCE, OCTET STRING ...`.
fn inner(pkcs8: &[u8]) -> &[u8] {
    let (sequence, _) = split(pkcs8);
    let (_, rest) = split(sequence);
    let (_, rest) = split(rest);
    split(rest).0
}

/// The content of a DER value, and what follows it.
fn split(der: &[u8]) -> (&[u8], &[u8]) {
    let (length, start) = match der[1] {
        short @ ..0x80 => (usize::from(short), 2),
        long => {
            let count = usize::from(long & 0x7f);
            (der[2..2 + count].iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), 2 + count)
        }
    };
    der[start..].split_at(length)
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", base64(der))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let number = three.iter().fold(0, |number, &byte| number << 8 | usize::from(byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let digit = DIGITS[number >> (18 - 6 * place) & 63];
            text.push(if place > three.len() { '=' } else { char::from(digit) });
        }
    }
    text
}

/// Trusts every certificate, and understands these signatures.
#[derive(Debug)]
struct Anything(Vec<SignatureScheme>);

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}
