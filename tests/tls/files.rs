//! What is wrong with files and settings, in words.

use std::path::PathBuf;

use httpy::{
    Kind,
    config::{CertificateFiles, Tls as Settings, TlsVersion},
    listen::Credentials,
};
use rcgen::date_time_ymd;

use super::{Authority, Folder, certificate, files, parameters, settings};
use crate::support::log;

const ENCRYPTED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
const ENCRYPTED_OLD: &str = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n\
                             -----END RSA PRIVATE KEY-----\n";
const NO_KEY: &str = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
const NO_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";

/// What is said of these settings, with `{}` for the folder.
fn refusal(folder: &Folder, settings: Settings) -> String {
    let error = Credentials::load(settings).expect_err("something is wrong");
    assert_eq!(error.kind(), Kind::Start);
    error.to_string().replace(&format!("{}{}", folder.0.display(), std::path::MAIN_SEPARATOR), "{}")
}

#[test]
fn says_what_is_wrong_with_a_certificate() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let good = certificate(&folder, &authority, &["localhost"]);
    let key = good.key.clone().expect("a file");
    let cut = std::fs::read_to_string(&good.chain).expect("text").replace("-----END CERTIFICATE-----", "");
    let twice = folder.write("twice.pem", authority.pem() + &std::fs::read_to_string(&good.chain).expect("text"));
    let cases = [
        (folder.path("missing.pem"), "certfile {}missing.pem can't be read: there is no such file"),
        (folder.write("empty.pem", " \n"), "certfile {}empty.pem is empty"),
        (
            folder.write("text.pem", "a certificate"),
            "certfile {}text.pem is not PEM, which has lines such as -----BEGIN CERTIFICATE-----",
        ),
        (
            folder.write("der.pem", [0x30, 0x82, 1, 2, 3]),
            "certfile {}der.pem is not PEM, but looks like DER: convert it with `openssl x509 -inform der` or `openssl \
             pkey -inform der`",
        ),
        (
            key.clone(),
            "certfile {}localhost-key.pem has no certificate, but a key: certfile and keyfile may be swapped",
        ),
        (
            folder.write("other.pem", "-----BEGIN THING-----\nAAAA\n-----END THING-----\n"),
            "certfile {}other.pem has no certificate",
        ),
        (folder.write("cut.pem", cut), "certfile {}cut.pem is cut off: a section has no -----END line"),
        (
            folder.write("line.pem", "-----BEGIN CERTIFICATE\nAAAA\n"),
            "certfile {}line.pem has a -----BEGIN line that is no such",
        ),
        (
            folder.write("base64.pem", "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n"),
            "certfile {}base64.pem has a section that is not base64",
        ),
        (
            folder.write("no.pem", NO_CERTIFICATE),
            "certfile {}no.pem has a certificate that can't be used: invalid peer certificate: BadEncoding",
        ),
        (
            twice,
            "keyfile {}localhost-key.pem belongs to certificate 2 of {}twice.pem, and not to the first: the server's own \
             certificate has to come first, then that of its issuer, and so on",
        ),
    ];

    for (chain, expected) in cases {
        assert_eq!(refusal(&folder, settings(vec![files(&chain, &key)])), expected);
    }
}

#[test]
fn says_what_is_wrong_with_a_key() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let good = certificate(&folder, &authority, &["localhost"]);
    let other = certificate(&folder, &authority, &["other"]);
    let encrypted = |name: &str| {
        format!(
            "keyfile {{}}{name} has an encrypted key, and there is nobody to ask for its passphrase: decrypt it with \
             `openssl pkey -in {{}}{name} -out decrypted.pem`"
        )
    };
    let cases = [
        (folder.path("missing.pem"), "keyfile {}missing.pem can't be read: there is no such file".to_owned()),
        (folder.write("empty.pem", ""), "keyfile {}empty.pem is empty".to_owned()),
        (
            folder.write("text.pem", "a key"),
            "keyfile {}text.pem is not PEM, which has lines such as -----BEGIN CERTIFICATE-----".to_owned(),
        ),
        (
            good.chain.clone(),
            "keyfile {}localhost.pem has no private key, but a certificate: the two files may be swapped".to_owned(),
        ),
        (
            folder.write("none.pem", "-----BEGIN THING-----\nAAAA\n-----END THING-----\n"),
            "keyfile {}none.pem has no private key (PKCS#8, PKCS#1 or SEC1)".to_owned(),
        ),
        (folder.write("new.pem", ENCRYPTED), encrypted("new.pem")),
        (folder.write("old.pem", ENCRYPTED_OLD), encrypted("old.pem")),
        (
            folder.write("no.pem", NO_KEY),
            "keyfile {}no.pem has a key that can't be used: unexpected error: failed to parse private key as RSA, ECDSA, \
             or EdDSA"
                .to_owned(),
        ),
        (
            other.key.expect("a file"),
            "keyfile {}other-key.pem does not belong to the certificate in {}localhost.pem".to_owned(),
        ),
    ];

    for (key, expected) in cases {
        assert_eq!(refusal(&folder, settings(vec![files(&good.chain, &key)])), expected);
    }
}

#[test]
fn says_what_is_wrong_with_one_file_for_both() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let good = certificate(&folder, &authority, &["localhost"]);
    let other = certificate(&folder, &authority, &["other"]);
    let read = |path: &PathBuf| std::fs::read_to_string(path).expect("text");
    let both = |chain| refusal(&folder, settings(vec![CertificateFiles { chain, key: None }]));

    assert_eq!(both(good.chain.clone()), "certfile {}localhost.pem has no private key, and no keyfile is given");
    assert_eq!(
        both(folder.write("mixed.pem", read(&good.chain) + &read(&other.key.expect("a file")))),
        "certfile {}mixed.pem has a key that does not belong to the certificate in {}mixed.pem"
    );
}

#[cfg(unix)]
#[test]
fn says_who_may_not_read_a_file() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let good = certificate(&folder, &authority, &["localhost"]);

    let said = refusal(&folder, settings(vec![files(&good.chain, &folder.0)]));

    assert_eq!(said.replace(&folder.0.display().to_string(), "folder"), "keyfile folder can't be read: it is a folder");
}

#[test]
fn says_what_is_wrong_with_authorities() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let good = certificate(&folder, &authority, &["localhost"]);
    for (path, expected) in [
        (folder.path("missing.pem"), "client_ca {}missing.pem can't be read: there is no such file"),
        (good.key.clone().expect("a file"), "client_ca {}localhost-key.pem has no certificate"),
        (
            folder.write("no.pem", NO_CERTIFICATE),
            "client_ca {}no.pem has a certificate that can't be used: invalid peer certificate: BadEncoding",
        ),
    ] {
        let mut settings = settings(vec![good.clone()]);
        settings.client_ca = Some(path);
        assert_eq!(refusal(&folder, settings), expected);
    }
}

#[test]
fn says_what_is_wrong_with_other_settings() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let good = certificate(&folder, &authority, &["localhost"]);
    let refuse = |change: &dyn Fn(&mut Settings)| {
        let mut settings = settings(vec![good.clone()]);
        change(&mut settings);
        refusal(&folder, settings)
    };

    assert_eq!(
        refuse(&|settings| settings.ciphers = vec!["RC4".to_owned()]),
        "ciphers has \"RC4\"; there are TLS_AES_256_GCM_SHA384, TLS_AES_128_GCM_SHA256, TLS_CHACHA20_POLY1305_SHA256, \
         TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, \
         TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, \
         TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"
    );
    assert_eq!(
        refuse(&|settings| {
            settings.ciphers = vec!["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256".to_owned()];
            settings.min_version = TlsVersion::V1_3;
        }),
        "ciphers has none of TLS 1.3, which is the least version (tls_min_version)"
    );
}

#[test]
fn a_further_certificate_has_to_have_a_name() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let good = certificate(&folder, &authority, &["localhost"]);
    let (chain, key) = authority.sign(rcgen::CertificateParams::default());
    let nameless = files(&folder.write("nameless.pem", chain), &folder.write("nameless-key.pem", key));

    assert_eq!(
        refusal(&folder, settings(vec![good.clone(), nameless.clone()])),
        "certfile {}nameless.pem has a certificate for no host name (subjectAltName), so that nobody could ever get it"
    );
    // The first one is for all that have none of their own.
    Credentials::load(settings(vec![nameless, good])).expect("good files");
}

#[test]
fn warns_of_a_certificate_that_is_not_valid_today() {
    let (folder, authority) = (Folder::new(), Authority::new());
    for (from, until, expected) in [
        (2019, 2020, "has expired on Wed, 01 Jan 2020 00:00:00 GMT: clients will refuse it"),
        (
            2990,
            3000,
            "is not valid before Fri, 01 Jan 2990 00:00:00 GMT: clients will refuse it, unless the clock here is wrong",
        ),
    ] {
        let mut parameters = parameters(&["localhost"]);
        (parameters.not_before, parameters.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
        let (chain, key) = authority.sign(parameters);
        let chain = folder.write("cert.pem", chain);
        let log = log();

        Credentials::load(settings(vec![files(&chain, &folder.write("key.pem", key))])).expect("good files");

        let expected = format!("WARN certfile {} {expected} kind=\"start\"", chain.display());
        assert_eq!(log.with("certfile"), [expected]);
    }
}

#[test]
fn tells_nothing_of_keys() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let credentials =
        Credentials::load(settings(vec![certificate(&folder, &authority, &["localhost"])])).expect("good files");

    let shown = format!("{credentials:?}");

    assert!(shown.starts_with("Credentials { settings: Tls {") && !shown.contains("PRIVATE"), "{shown}");
}
