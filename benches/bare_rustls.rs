//! The least that a server with TLS can be, for `scripts/handshakes.py` to compare with: it shakes hands, and reads until the
//! client closes. Sessions are resumed by tickets, as HTTPy's are: a server that remembers them instead has less to do, and
//! nothing that another process could resume.
//!
//! usage: `bare-rustls PORT CERT.pem KEY.pem`

use std::{env, error::Error, net::SocketAddr, sync::Arc};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::AsyncReadExt,
    net::TcpListener,
    runtime::{Builder, LocalOptions},
    task::spawn_local,
};
use tokio_rustls::TlsAcceptor;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().collect();
    let [_, port, chain, key] = &arguments[..] else { return Err("usage: bare-rustls PORT CERT.pem KEY.pem".into()) };
    let port: u16 = port.parse()?;
    let chain = CertificateDer::pem_file_iter(chain)?.collect::<Result<Vec<_>, _>>()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let acceptor = acceptor.clone();
            spawn_local(async move {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let mut buffer = [0; 1024];
                    while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
                }
            });
        }
    })
}
