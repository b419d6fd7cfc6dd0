//! TLS, with rustls on the client's side too, over memory.

mod certificates;
mod clients;
mod connections;
mod files;
mod redirect;
mod reload;
mod sessions;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use httpy::{
    App, Config, Handler, Request,
    config::{CertificateFiles, Tls as Settings},
    listen::{Credentials, MemoryConnector, Tls, memory},
    message::TlsSession,
    server::{Queued, Server},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SignatureAlgorithm};
use rustls::{
    ClientConfig, RootCertStore,
    client::ClientSessionMemoryCache,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, ServerName},
    version::{TLS12, TLS13},
};
use tokio::io::DuplexStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::support::{Client, ok};

/// A folder that is removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("httpy-tls-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).expect("written");
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An authority that signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(Self::parameters(), key).expect("a certificate"))
    }

    /// One that another has signed.
    fn below(other: &Self) -> Self {
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::signed_by(Self::parameters(), key, &other.0).expect("a certificate"))
    }

    /// Each has a name of its own, by which certificates say who has signed them.
    fn parameters() -> CertificateParams {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let mut parameters = CertificateParams::default();
        let name = format!("authority {}", NEXT.fetch_add(1, Ordering::Relaxed));
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters
    }

    /// A certificate, and its key, in PEM.
    fn sign(&self, parameters: CertificateParams) -> (String, String) {
        self.sign_with(parameters, &KeyPair::generate().expect("a key"))
    }

    fn sign_of(&self, names: &[&str], algorithm: &'static SignatureAlgorithm) -> (String, String) {
        self.sign_with(parameters(names), &KeyPair::generate_for(algorithm).expect("a key"))
    }

    fn sign_with(&self, parameters: CertificateParams, key: &KeyPair) -> (String, String) {
        (parameters.signed_by(key, &self.0).expect("a certificate").pem(), key.serialize_pem())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a root");
        roots
    }
}

fn parameters(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).expect("names")
}

/// Files with a certificate of `names`.
fn certificate(folder: &Folder, authority: &Authority, names: &[&str]) -> CertificateFiles {
    let (chain, key) = authority.sign(parameters(names));
    let name = names[0].replace('*', "wildcard");
    CertificateFiles {
        chain: folder.write(&format!("{name}.pem"), chain),
        key: Some(folder.write(&format!("{name}-key.pem"), key)),
    }
}

/// Settings with these certificates.
fn settings(certificates: Vec<CertificateFiles>) -> Settings {
    let mut settings = Settings::default();
    settings.certificates = certificates;
    settings
}

fn files(chain: &Path, key: &Path) -> CertificateFiles {
    CertificateFiles { chain: chain.to_owned(), key: Some(key.to_owned()) }
}

/// A server with TLS, and those who connect to it.
struct Secure {
    authority: Authority,
    folder: Folder,
    credentials: Arc<Credentials>,
    connector: MemoryConnector,
    server: Server,
}

/// A server with a certificate for `localhost`, of an authority of its own.
fn secure(handler: impl Handler + 'static) -> Secure {
    secure_with(|_, _, _| (), handler)
}

fn secure_with(change: impl FnOnce(&mut Settings, &Folder, &Authority), handler: impl Handler + 'static) -> Secure {
    let (folder, authority) = (Folder::new(), Authority::new());
    let mut settings = settings(vec![certificate(&folder, &authority, &["localhost"])]);
    change(&mut settings, &folder, &authority);
    serve(settings, folder, authority, Config::default(), handler)
}

fn serve(
    settings: Settings,
    folder: Folder,
    authority: Authority,
    config: Config,
    handler: impl Handler + 'static,
) -> Secure {
    let app = App::new(Arc::new(handler)).config(config);
    let credentials = Arc::new(Credentials::load(settings).expect("good files"));
    credentials.offer(app.alpn());
    let (connector, listener) = memory();
    let server = app.start(vec![Box::new(Tls::new(Box::new(listener), credentials.clone()))]);
    Secure { authority, folder, credentials, connector, server }
}

impl Secure {
    /// A client that trusts the authority.
    fn client(&self) -> ClientConfig {
        client_of(&self.authority)
    }

    fn plain(&self) -> DuplexStream {
        self.connector.connect().expect("a connection")
    }

    async fn try_connect(&self, config: ClientConfig, name: &str) -> std::io::Result<TlsStream<DuplexStream>> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, self.plain()).await
    }

    async fn connect_with(&self, config: ClientConfig) -> Client<TlsStream<DuplexStream>> {
        Client::over(self.try_connect(config, "localhost").await.expect("a handshake"))
    }

    async fn connect(&self) -> Client<TlsStream<DuplexStream>> {
        self.connect_with(self.client()).await
    }

    async fn stop(self, grace: std::time::Duration) -> usize {
        self.server.stop(grace, Queued::Served).await
    }
}

fn client_of(authority: &Authority) -> ClientConfig {
    client_builder(&[&TLS13, &TLS12]).with_root_certificates(authority.roots()).with_no_client_auth()
}

fn client_builder(
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
}

/// A client that remembers no session.
fn forgetful(mut config: ClientConfig) -> ClientConfig {
    config.resumption = rustls::client::Resumption::disabled();
    config
}

fn remembering(mut config: ClientConfig) -> ClientConfig {
    config.resumption = rustls::client::Resumption::store(Arc::new(ClientSessionMemoryCache::new(8)));
    config
}

/// Answers with what is known of the connection.
fn tell(request: Request) -> httpy::Reply {
    ok(request.peer.tls.as_deref().map_or("plain".to_owned(), describe)).into()
}

fn describe(tls: &TlsSession) -> String {
    format!(
        "{} {} {:?} {:?} resumed={}",
        tls.version,
        tls.cipher,
        tls.server_name,
        tls.alpn.as_deref().map(String::from_utf8_lossy),
        tls.is_resumed,
    )
}

fn key(pem: &str) -> PrivateKeyDer<'static> {
    rustls::pki_types::pem::PemObject::from_pem_slice(pem.as_bytes()).expect("a key")
}
