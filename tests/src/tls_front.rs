//! TLS before a server that speaks none.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::authority::Pair;

/// A relay that ends TLS; it stops when it is dropped.
#[derive(Debug)]
pub struct TlsFront {
    /// Where it listens, on loopback.
    pub address: SocketAddr,
    _relaying: JoinSet<()>,
}

impl TlsFront {
    /// One with this certificate and key before the server at `target`.
    ///
    /// # Errors
    /// When the files cannot be read or no port can be had.
    pub async fn start(pair: &Pair, target: SocketAddr) -> Result<Self> {
        let certificate = CertificateDer::from_pem_file(&pair.certificate).context("the certificate")?;
        let key = PrivateKeyDer::from_pem_file(&pair.key).context("the key")?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mut relaying = JoinSet::new();
        relaying.spawn(relay(listener, TlsAcceptor::from(Arc::new(config)), target));
        Ok(Self {
            address,
            _relaying: relaying,
        })
    }
}

/// Accepts for ever; the connections end with this task.
async fn relay(listener: TcpListener, acceptor: TlsAcceptor, target: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        connections.spawn(async move {
            // A client that goes away is no event here.
            if let (Ok(mut client), Ok(mut server)) =
                tokio::join!(acceptor.accept(stream), TcpStream::connect(target))
            {
                copy_bidirectional(&mut client, &mut server).await.ok();
            }
        });
        while connections.try_join_next().is_some() {}
    }
}
