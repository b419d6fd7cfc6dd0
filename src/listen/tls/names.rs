//! Which certificate a client gets.
//!
//! 1. One that has the name the client asks for (SNI), else one with a wildcard for it, else the first one.
//! 2. A wildcard stands for one label, the first: `*.example.org` is for `a.example.org`, not for `example.org` or
//!    `a.b.example.org` (RFC 6125 §6.4.3).
//! 3. Of several, the first whose key can sign in a way that the client understands: there may be an ECDSA certificate for
//!    those that can, and one of RSA, with the same names, for the others.

use std::{collections::HashMap, sync::Arc};

use rustls::{
    SignatureScheme,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// Certificates by name.
#[derive(Debug)]
pub(super) struct Names {
    all: Vec<Arc<CertifiedKey>>,
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// By what follows the `*.`.
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl Names {
    /// Certificates, each with its names, as they are in the certificate.
    pub(super) fn new(certificates: impl IntoIterator<Item = (CertifiedKey, Vec<String>)>) -> Self {
        let mut made = Self { all: Vec::new(), exact: HashMap::new(), wildcard: HashMap::new() };
        for (certificate, names) in certificates {
            let certificate = Arc::new(certificate);
            for name in names {
                let name = name.to_ascii_lowercase();
                let list = match name.strip_prefix("*.") {
                    Some(rest) => made.wildcard.entry(rest.to_owned()),
                    None => made.exact.entry(name),
                };
                list.or_default().push(certificate.clone());
            }
            made.all.push(certificate);
        }
        made
    }

    /// The certificate for a name, and for a client that understands these signatures.
    fn find(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        let suitable = |list: &&Arc<CertifiedKey>| list.key.choose_scheme(schemes).is_some();
        let named = name.and_then(|name| {
            let exact = self.exact.get(name).into_iter().flatten().find(suitable);
            exact.or_else(|| {
                let (_, rest) = name.split_once('.')?;
                self.wildcard.get(rest)?.iter().find(suitable)
            })
        });
        // With a signature that the client does not understand it will say what it is missing.
        named.or_else(|| self.all.iter().find(suitable)).or(self.all.first())
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls gives the name in lower case.
        self.find(hello.server_name(), hello.signature_schemes()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384};
    use rustls::{crypto::aws_lc_rs, pki_types::PrivateKeyDer};

    use super::*;

    const P256: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;
    const P384: SignatureScheme = SignatureScheme::ECDSA_NISTP384_SHA384;

    fn certificate(names: &[&str], algorithm: &'static rcgen::SignatureAlgorithm) -> (CertifiedKey, Vec<String>) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let parameters = rcgen::CertificateParams::new(names.clone()).expect("names");
        let chain = vec![parameters.self_signed(&key).expect("a certificate").der().clone()];
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let provider = aws_lc_rs::default_provider();
        (CertifiedKey::from_der(chain, key, &provider).expect("they belong together"), names)
    }

    /// The number of the certificate that is found.
    fn found(names: &Names, name: Option<&str>, schemes: &[SignatureScheme]) -> usize {
        let found = names.find(name, schemes).expect("one");
        names.all.iter().position(|one| Arc::ptr_eq(one, found)).expect("one of these")
    }

    #[test]
    fn finds_the_exact_name_then_the_wildcard_then_the_first() {
        let names = Names::new([
            certificate(&["first.example"], &PKCS_ECDSA_P256_SHA256),
            certificate(&["*.Example.org"], &PKCS_ECDSA_P256_SHA256),
            certificate(&["www.example.org", "example.org"], &PKCS_ECDSA_P256_SHA256),
        ]);

        for (name, expected) in [
            (Some("www.example.org"), 2),
            (Some("example.org"), 2),
            (Some("other.example.org"), 1),
            (Some("a.other.example.org"), 0),
            (Some("first.example"), 0),
            (Some("www.first.example"), 0),
            (Some("org"), 0),
            (Some(""), 0),
            (None, 0),
        ] {
            assert_eq!(found(&names, name, &[P256]), expected, "{name:?}");
        }
    }

    #[test]
    fn finds_what_the_client_can_check_among_several_of_one_name() {
        let names = Names::new([
            certificate(&["example.org"], &PKCS_ECDSA_P384_SHA384),
            certificate(&["*.org", "example.org"], &PKCS_ECDSA_P256_SHA256),
        ]);

        assert_eq!(found(&names, Some("example.org"), &[P256, P384]), 0);
        assert_eq!(found(&names, Some("example.org"), &[P256]), 1);
        assert_eq!(found(&names, None, &[P256]), 1);
        assert_eq!(found(&names, Some("example.org"), &[SignatureScheme::ED25519]), 0);
    }
}
