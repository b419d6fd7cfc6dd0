//! Reads certificates and keys from PEM files (RFC 7468). A message names the file, and says what to do about it.

use std::{fmt, fs, io, path::Path};

use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{Error as PemError, PemObject, SectionKind},
};

use crate::error::{Error, Kind};

/// What a file is for, by the name of its setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Certificate,
    Key,
    Authorities,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "certfile",
            Self::Key => "keyfile",
            Self::Authorities => "client_ca",
        })
    }
}

/// What a PEM file has of what TLS needs.
struct Contents {
    certificates: Vec<CertificateDer<'static>>,
    key: Option<PrivateKeyDer<'static>>,
    has_encrypted_key: bool,
}

/// Reads the certificates of a file, in their order; at least one.
///
/// # Errors
/// `Kind::Start` if it can't be read, is not PEM, or has no certificate.
pub(super) fn read_certificates(role: Role, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let contents = read(role, path)?;
    if !contents.certificates.is_empty() {
        return Ok(contents.certificates);
    }
    let found = match contents {
        Contents { key: Some(_), .. } | Contents { has_encrypted_key: true, .. } if role == Role::Certificate => {
            ", but a key: certfile and keyfile may be swapped"
        }
        _ => "",
    };
    Err(wrong(role, path, format_args!("has no certificate{found}")))
}

/// Reads the first key of a file.
///
/// # Errors
/// `Kind::Start` if it can't be read, is not PEM, has no key, or has one that is encrypted.
pub(super) fn read_key(role: Role, path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let contents = read(role, path)?;
    match contents {
        Contents { key: Some(key), .. } => Ok(key),
        Contents { has_encrypted_key: true, .. } => Err(encrypted(role, path)),
        _ if role == Role::Certificate => {
            Err(wrong(role, path, format_args!("has no private key, and no keyfile is given")))
        }
        Contents { certificates, .. } if certificates.is_empty() => {
            Err(wrong(role, path, format_args!("has no private key (PKCS#8, PKCS#1 or SEC1)")))
        }
        _ => {
            Err(wrong(role, path, format_args!("has no private key, but a certificate: the two files may be swapped")))
        }
    }
}

fn encrypted(role: Role, path: &Path) -> Error {
    let advice = format_args!(
        "has an encrypted key, and there is nobody to ask for its passphrase: decrypt it with `openssl pkey -in {} -out \
         decrypted.pem`",
        path.display()
    );
    wrong(role, path, advice)
}

/// Something is wrong with a file.
pub(super) fn wrong(role: Role, path: &Path, what: fmt::Arguments<'_>) -> Error {
    Error::new(Kind::Start, format!("{role} {} {what}", path.display()))
}

fn read(role: Role, path: &Path) -> Result<Contents, Error> {
    let bytes = fs::read(path).map_err(|error| {
        let why: &dyn fmt::Display = match error.kind() {
            io::ErrorKind::NotFound => &"there is no such file",
            io::ErrorKind::PermissionDenied => &"this process has no permission to",
            io::ErrorKind::IsADirectory => &"it is a folder",
            _ => &error,
        };
        let message = wrong(role, path, format_args!("can't be read: {why}"));
        message.because(error)
    })?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(wrong(role, path, format_args!("is empty")));
    }
    if !has(&bytes, b"-----BEGIN ") {
        // A DER file is a SEQUENCE with a length of two bytes.
        let advice = if bytes.starts_with(&[0x30, 0x82]) {
            "but looks like DER: convert it with `openssl x509 -inform der` or `openssl pkey -inform der`"
        } else {
            "which has lines such as -----BEGIN CERTIFICATE-----"
        };
        return Err(wrong(role, path, format_args!("is not PEM, {advice}")));
    }
    // What older versions of OpenSSL wrote (RFC 1421 §4.6.1.1): fields before the base64, which RFC 7468 has not.
    if has(&bytes, b"Proc-Type: 4,ENCRYPTED") {
        return Err(encrypted(role, path));
    }
    let mut contents = Contents {
        certificates: Vec::new(),
        key: None,
        has_encrypted_key: has(&bytes, b"-----BEGIN ENCRYPTED PRIVATE KEY-----"),
    };
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(&bytes) {
        let (kind, der) = section.map_err(|error| wrong(role, path, format_args!("{}", Why(&error))))?;
        match kind {
            SectionKind::Certificate => contents.certificates.push(der.into()),
            SectionKind::PrivateKey if contents.key.is_none() => contents.key = Some(PrivateKeyDer::Pkcs8(der.into())),
            SectionKind::RsaPrivateKey if contents.key.is_none() => {
                contents.key = Some(PrivateKeyDer::Pkcs1(der.into()));
            }
            SectionKind::EcPrivateKey if contents.key.is_none() => contents.key = Some(PrivateKeyDer::Sec1(der.into())),
            _ => {}
        }
    }
    Ok(contents)
}

/// What is wrong with a PEM file, without its bytes: they may be a key's.
struct Why<'e>(&'e PemError);

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            PemError::MissingSectionEnd { .. } => f.write_str("is cut off: a section has no -----END line"),
            PemError::IllegalSectionStart { .. } => f.write_str("has a -----BEGIN line that is no such"),
            PemError::Base64Decode(_) => f.write_str("has a section that is not base64"),
            other => write!(f, "is not PEM: {other}"),
        }
    }
}

fn has(bytes: &[u8], words: &[u8]) -> bool {
    memchr::memmem::find(bytes, words).is_some()
}
