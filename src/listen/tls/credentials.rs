//! The server's certificates and keys, and whom it trusts: read from files when it starts, and again when they have changed.
//!
//! 1. What is wrong with a file is known before anything starts, and told with its name.
//! 2. Reading anew takes place as a whole or not at all: with one bad file everything stays as it was.
//! 3. Connections keep what they began with. Sessions can be resumed across a change, unless it changes who is trusted.

use std::{
    fmt, fs,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{SystemTime, UNIX_EPOCH},
};

use ::aws_lc_rs::digest::{self, SHA256};
use rustls::{
    CipherSuite, Error as TlsError, InconsistentKeys, RootCertStore, ServerConfig, SupportedCipherSuite,
    SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ServerSessionMemoryCache, StoresServerSessions, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use tokio::time::sleep;

use super::{
    certificate::Certificate,
    names::Names,
    pem::{Role, read_certificates, read_key, wrong},
    tickets::Tickets,
};
use crate::{
    config::{CertificateFiles, ClientAuth, Tls as Settings, TlsVersion},
    error::{Error, Kind},
};

/// How many sessions are kept here for clients of TLS 1.2 that take no tickets: 256, rustls' own figure. The oldest goes first.
const KEPT_SESSIONS: usize = 256;

/// What a server shows to clients, and asks of them.
pub struct Credentials {
    settings: Settings,
    current: RwLock<Arc<ServerConfig>>,
    /// What the current ones were made of. Locked while they are replaced.
    read: Mutex<Read>,
}

/// What was read from files.
struct Read {
    marks: Vec<Option<Mark>>,
    trust: Trust,
}

/// Whom sessions may be resumed with: a digest of who is trusted and whether that is asked for, and what depends on it.
struct Trust {
    digest: Vec<u8>,
    sessions: Arc<dyn StoresServerSessions>,
    tickets: Arc<Tickets>,
}

impl Credentials {
    /// Reads the files, and warns of certificates that are not valid today.
    ///
    /// # Errors
    /// `Kind::Start`, naming what is wrong with which file or setting.
    pub fn load(settings: Settings) -> Result<Self, Error> {
        // Before they are read: what changes meanwhile is then seen later.
        let marks = marks(&settings);
        let (config, trust) = build(&settings, None)?;
        let (current, read) = (RwLock::new(Arc::new(config)), Mutex::new(Read { marks, trust }));
        Ok(Self { settings, current, read })
    }

    /// Offers these protocols to clients from now on (ALPN, RFC 7301), the preferred first. None until this is called.
    pub fn offer(&self, protocols: Vec<Vec<u8>>) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut current).alpn_protocols = protocols;
    }

    /// What connections begin with now.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the files again. New connections get what is in them; nothing becomes of the others.
    ///
    /// # Errors
    /// As [`Credentials::load`], and everything stays as it was. Logged, too.
    pub fn reload(&self) -> Result<(), Error> {
        self.replace(marks(&self.settings))
    }

    /// Looks at the files now and then, and reads them again when they have changed and stay as they are: of a certificate and
    /// its key one is written before the other. Comes to no end.
    pub async fn watch(&self) {
        if self.settings.reload_interval.is_zero() {
            return std::future::pending().await;
        }
        let mut last = self.lock().marks.clone();
        loop {
            sleep(self.settings.reload_interval).await;
            let marks = marks(&self.settings);
            if marks == last && marks != self.lock().marks {
                // It is logged, and said again only when something changes again.
                let _ = self.replace(marks.clone());
            }
            last = marks;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, marks: Vec<Option<Mark>>) -> Result<(), Error> {
        let mut read = self.lock();
        read.marks = marks;
        match build(&self.settings, Some(&read.trust)) {
            Ok((mut config, trust)) => {
                read.trust = trust;
                let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                config.alpn_protocols.clone_from(&current.alpn_protocols);
                *current = Arc::new(config);
                tracing::info!(kind = "start", "certificates were read again");
                Ok(())
            }
            Err(error) => {
                tracing::error!(kind = "start", "certificates were not read again, and stay as they were: {error}");
                Err(error)
            }
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What tells that a file is another one, or has other content.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    modified: Option<SystemTime>,
    length: u64,
    /// Of a copy that keeps its time, or a link that leads elsewhere. Unix.
    identity: (u64, i64, i64),
}

impl Mark {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        #[cfg(unix)]
        let identity = {
            use std::os::unix::fs::MetadataExt;
            (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
        };
        #[cfg(not(unix))]
        let identity = (0, 0, 0);
        Some(Self { modified: metadata.modified().ok(), length: metadata.len(), identity })
    }
}

fn marks(settings: &Settings) -> Vec<Option<Mark>> {
    let certificates = settings.certificates.iter().flat_map(|files| [Some(&files.chain), files.key.as_ref()]);
    certificates.flatten().chain(&settings.client_ca).map(|path| Mark::of(path)).collect()
}

fn build(settings: &Settings, before: Option<&Trust>) -> Result<(ServerConfig, Trust), Error> {
    let provider = Arc::new(provider(settings)?);
    let certificates = settings
        .certificates
        .iter()
        .enumerate()
        .map(|(number, files)| {
            let key = certified(files, &provider)?;
            let hosts = inspect(&files.chain, &key, number == 0)?;
            Ok((key, hosts))
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let authorities = settings.client_ca.as_deref().map(authorities).transpose()?;
    let trust = trust(settings, authorities.as_ref(), before)?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions(settings, &provider))
        // Every cipher suite is of a version, and one of them is wanted, or there would be none.
        .map_err(|_| {
            Error::new(Kind::Start, "ciphers has none of TLS 1.3, which is the least version (tls_min_version)")
        })?;
    let builder = match (&settings.client_ca, authorities) {
        (Some(path), Some(authorities)) => {
            builder.with_client_cert_verifier(verifier(path, authorities, settings.client_auth, provider)?)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Names::new(certificates)));
    config.session_storage = trust.sessions.clone();
    config.ticketer = trust.tickets.clone();
    // RFC 8446 §8: requests in early data (0-RTT) could be replayed by anybody, so there is none.
    config.max_early_data_size = 0;
    Ok((config, trust))
}

/// Sessions are resumed without a look at the client's certificate. So whatever is asked of clients, or whoever is trusted,
/// decides which of them can be: none of those that began when it was another.
fn trust(settings: &Settings, authorities: Option<&RootCertStore>, before: Option<&Trust>) -> Result<Trust, Error> {
    let mut context = digest::Context::new(&SHA256);
    if let Some(authorities) = authorities {
        context.update(format!("{:?}", settings.client_auth).as_bytes());
        for anchor in &authorities.roots {
            let constraints = anchor.name_constraints.as_deref().unwrap_or_default();
            for part in [&*anchor.subject, &*anchor.subject_public_key_info, constraints] {
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part);
            }
        }
    }
    let digest = context.finish().as_ref().to_vec();
    if let Some(same) = before.filter(|before| before.digest == digest) {
        return Ok(Trust { digest, sessions: same.sessions.clone(), tickets: same.tickets.clone() });
    }
    let tickets = Arc::new(Tickets::new(settings.ticket_secret.as_ref(), digest.clone())?);
    Ok(Trust { digest, sessions: ServerSessionMemoryCache::new(KEPT_SESSIONS), tickets })
}

/// The cryptography, with the cipher suites that are wanted. Which of them is used the client decides: it knows which one its
/// processor is good at.
fn provider(settings: &Settings) -> Result<CryptoProvider, Error> {
    let all = aws_lc_rs::default_provider();
    if settings.ciphers.is_empty() {
        return Ok(all);
    }
    let find = |name: &String| {
        let found = all.cipher_suites.iter().find(|suite| suite_name(suite.suite()) == name);
        found.copied().ok_or_else(|| {
            let known: Vec<_> = all.cipher_suites.iter().map(|suite| suite_name(suite.suite())).collect();
            Error::new(Kind::Start, format!("ciphers has {name:?}; there are {}", known.join(", ")))
        })
    };
    let cipher_suites = settings.ciphers.iter().map(find).collect::<Result<Vec<_>, Error>>()?;
    Ok(CryptoProvider { cipher_suites, ..all })
}

/// The name of a cipher suite with IANA. rustls writes those of TLS 1.3 a little differently.
pub(super) fn suite_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or("unknown"),
    }
}

/// The versions that are wanted and have a cipher suite: a version without one would be agreed on, and then fail.
fn versions(settings: &Settings, provider: &CryptoProvider) -> Vec<&'static SupportedProtocolVersion> {
    let has = |is_kind: fn(&SupportedCipherSuite) -> bool| provider.cipher_suites.iter().any(is_kind);
    let mut versions = Vec::new();
    if has(|suite| suite.tls13().is_some()) {
        versions.push(&TLS13);
    }
    if settings.min_version == TlsVersion::V1_2 && has(|suite| suite.tls13().is_none()) {
        versions.push(&TLS12);
    }
    versions
}

/// Reads a certificate and its key.
///
/// # Errors
/// As [`Credentials::load`].
pub(super) fn certified_key(files: &CertificateFiles) -> Result<CertifiedKey, Error> {
    certified(files, &aws_lc_rs::default_provider())
}

fn certified(files: &CertificateFiles, provider: &CryptoProvider) -> Result<CertifiedKey, Error> {
    let chain = read_certificates(Role::Certificate, &files.chain)?;
    let (role, path) = match &files.key {
        Some(key) => (Role::Key, key),
        None => (Role::Certificate, &files.chain),
    };
    let der = read_key(role, path)?;
    let key = provider
        .key_provider
        .load_private_key(der)
        .map_err(|error| wrong(role, path, format_args!("has a key that can't be used: {error}")))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // Unknown: of a kind of key that does not tell.
        Ok(()) | Err(TlsError::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(TlsError::InconsistentKeys(_)) => {
            let place = (1..certified.cert.len()).find(|&place| {
                let one = vec![certified.cert[place].clone()];
                CertifiedKey::new(one, certified.key.clone()).keys_match().is_ok()
            });
            Err(mismatch(files, role, path, place))
        }
        Err(error) => {
            Err(wrong(Role::Certificate, &files.chain, format_args!("has a certificate that can't be used: {error}")))
        }
    }
}

/// `place` is where in the file there is a certificate that the key belongs to.
fn mismatch(files: &CertificateFiles, role: Role, path: &Path, place: Option<usize>) -> Error {
    let chain = files.chain.display();
    let what = match place {
        Some(place) => format!(
            "belongs to certificate {} of {chain}, and not to the first: the server's own certificate has to come first, \
             then that of its issuer, and so on",
            place + 1
        ),
        None => format!("does not belong to the certificate in {chain}"),
    };
    match role {
        Role::Certificate => wrong(role, path, format_args!("has a key that {what}")),
        _ => wrong(role, path, format_args!("{what}")),
    }
}

/// Warns of a certificate that clients will refuse, and returns the host names that it is for.
fn inspect(path: &Path, key: &CertifiedKey, is_first: bool) -> Result<Vec<String>, Error> {
    let cannot = |error: &dyn fmt::Display| {
        wrong(Role::Certificate, path, format_args!("has a certificate that can't be used: {error}"))
    };
    let der = key.end_entity_cert().map_err(|error| cannot(&error))?;
    let certificate = Certificate::read(der).map_err(|error| cannot(&error))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    if now > certificate.not_after {
        let end = date(certificate.not_after);
        tracing::warn!(kind = "start", "certfile {} has expired on {end}: clients will refuse it", path.display());
    }
    if now < certificate.not_before {
        let start = date(certificate.not_before);
        tracing::warn!(
            kind = "start",
            "certfile {} is not valid before {start}: clients will refuse it, unless the clock here is wrong",
            path.display()
        );
    }
    let hosts: Vec<_> = certificate.hosts().cloned().collect();
    if hosts.is_empty() && !is_first {
        let what = "has a certificate for no host name (subjectAltName), so that nobody could ever get it";
        return Err(wrong(Role::Certificate, path, format_args!("{what}")));
    }
    Ok(hosts)
}

fn date(seconds: i64) -> String {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    httpdate::fmt_http_date(UNIX_EPOCH + std::time::Duration::from_secs(seconds))
}

fn authorities(path: &Path) -> Result<RootCertStore, Error> {
    let mut authorities = RootCertStore::empty();
    for certificate in read_certificates(Role::Authorities, path)? {
        authorities.add(certificate).map_err(|error| {
            wrong(Role::Authorities, path, format_args!("has a certificate that can't be used: {error}"))
        })?;
    }
    Ok(authorities)
}

fn verifier(
    path: &Path,
    authorities: RootCertStore,
    asked: ClientAuth,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider);
    let builder = match asked {
        ClientAuth::Required => builder,
        ClientAuth::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| wrong(Role::Authorities, path, format_args!("can't be used: {error}")))
}
