//! A certificate for trying things out on one's own machine: of nobody but itself, and for nothing but `localhost`.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
    date_time_ymd,
};

use super::{certificate::Certificate, credentials::certified_key};
use crate::{
    config::CertificateFiles,
    error::{Error, Kind},
};

/// How long it is valid. A year: Apple's systems trust nothing that is valid for longer than 398 days.
const VALID: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// When it is replaced: a week before its end, so that this does not come in the middle of something.
const SPARE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Returns a certificate for `localhost`, `127.0.0.1` and `::1` that no authority has signed. It is kept in `folder`, so that
/// whoever trusts it has to do so once, and made if there is none or it is about to end.
///
/// # Errors
/// `Kind::Start` if the files can't be written.
pub fn dev_certificate(folder: &Path) -> Result<CertificateFiles, Error> {
    let (chain, key) = (folder.join("localhost.pem"), folder.join("localhost-key.pem"));
    let files = CertificateFiles { chain: chain.clone(), key: Some(key.clone()) };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if is_good(&files, now + SPARE) {
        return Ok(files);
    }
    let (certificate_pem, key_pem) = make(now).map_err(|error| {
        let message = format!("a development certificate can't be made: {error}");
        Error::new(Kind::Start, message).because(error)
    })?;
    let write = || {
        create_folder(folder)?;
        replace(&key, &key_pem)?;
        replace(&chain, &certificate_pem)
    };
    write().map_err(|error| {
        let message = format!("the development certificate can't be kept in {}: {error}", folder.display());
        Error::new(Kind::Start, message).because(error)
    })?;
    Ok(files)
}

/// Whether there is one that will still be valid then.
fn is_good(files: &CertificateFiles, then: Duration) -> bool {
    let Ok(key) = certified_key(files) else { return false };
    let end = key.end_entity_cert().ok().and_then(|der| Certificate::read(der).ok()).map(|it| it.not_after);
    end.and_then(|end| u64::try_from(end).ok()).is_some_and(|end| end > then.as_secs())
}

/// The certificate and its key, in PEM.
fn make(now: Duration) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, "HTTPy development certificate");
    parameters.subject_alt_names = vec![
        SanType::DnsName("localhost".try_into()?),
        SanType::IpAddress(Ipv4Addr::LOCALHOST.into()),
        SanType::IpAddress(Ipv6Addr::LOCALHOST.into()),
    ];
    // No authority: whoever trusts it, and then loses its key, has lost `localhost`, and not the web.
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters.use_authority_key_identifier_extension = true;
    parameters.not_before = date_time_ymd(1970, 1, 1) + now;
    parameters.not_after = date_time_ymd(1970, 1, 1) + now + VALID;
    Ok((parameters.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn create_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

/// Writes a file, whole or not at all, that only its owner can read.
fn replace(path: &Path, content: &str) -> io::Result<()> {
    let new = path.with_extension(format!("{}.new", std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(&new)?.write_all(content.as_bytes())?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("httpy-dev-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    fn read(files: &CertificateFiles) -> Certificate {
        let key = certified_key(files).expect("they belong together");
        Certificate::read(key.end_entity_cert().expect("one")).expect("a certificate")
    }

    #[test]
    fn is_for_this_machine_and_for_a_year() {
        let folder = folder("made").join("deeper");

        let made = read(&dev_certificate(&folder).expect("a certificate"));

        let names = [("DNS", "localhost"), ("IP", "127.0.0.1"), ("IP", "::1")];
        assert_eq!(made.names, names.map(|(kind, name)| (kind, name.to_owned())));
        assert_eq!(made.not_after - made.not_before, 365 * 24 * 60 * 60);
        fs::remove_dir_all(folder.parent().expect("a folder")).expect("removed");
    }

    #[cfg(unix)]
    #[test]
    fn is_for_nobody_else_to_read() {
        use std::os::unix::fs::PermissionsExt;
        let folder = folder("mode");

        let files = dev_certificate(&folder).expect("a certificate");

        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(files.key.as_deref().expect("a file"))), (0o700, 0o600));
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn is_kept_until_it_ends_or_is_damaged() {
        let folder = folder("kept");
        let files = dev_certificate(&folder).expect("a certificate");
        let first = read(&files);
        assert_eq!(read(&dev_certificate(&folder).expect("a certificate")), first);

        // What a year later would be made today.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
        for (age, is_kept) in [(VALID - SPARE - Duration::from_secs(60), true), (VALID - SPARE, false)] {
            let (certificate, key) = make(now - age).expect("a certificate");
            fs::write(&files.chain, &certificate).expect("written");
            fs::write(files.key.as_ref().expect("a file"), key).expect("written");
            dev_certificate(&folder).expect("a certificate");
            assert_eq!(fs::read_to_string(&files.chain).expect("text") == certificate, is_kept, "{age:?}");
        }

        fs::write(files.key.as_ref().expect("a file"), "damaged").expect("written");
        assert_ne!(read(&dev_certificate(&folder).expect("a certificate")), first);
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn says_where_it_can_t_be_kept() {
        let file = folder("file");
        fs::write(&file, "").expect("written");

        let error = dev_certificate(&file).expect_err("no folder");

        let expected = format!("the development certificate can't be kept in {}: ", file.display());
        assert!(error.to_string().starts_with(&expected), "{error}");
        fs::remove_file(file).expect("removed");
    }
}
