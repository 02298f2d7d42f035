//! An origin over TLS, with a certificate authority made for the test.

use std::{convert::Infallible, net::SocketAddr, path::PathBuf, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kato_shared::durable;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

/// An authority, and what it signed; the files live in its folder.
pub struct Authority {
    folder: tempfile::TempDir,
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let made = Self {
            folder: tempfile::tempdir().unwrap(),
            issuer: Issuer::new(parameters, key),
            certificate,
        };
        made.write("ca.pem", &made.certificate.pem());
        made
    }

    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Certificate and key for `name`, as files.
    pub fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        (
            self.write(&format!("{name}.pem"), &certificate.pem()),
            self.write(&format!("{name}.key"), &key.serialize_pem()),
        )
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        durable::write(&path, text.as_bytes(), 0o600).unwrap();
        path
    }
}

/// A running origin that answers with what it saw: version, path, whether a client certificate came.
pub struct TlsOrigin {
    pub address: SocketAddr,
    /// Connections with TLS so far.
    pub accepted: Arc<std::sync::atomic::AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl TlsOrigin {
    /// For `127.0.0.1`, by `authority`; `clients` signs client certificates, which are then asked for and not required.
    pub async fn start(authority: &Authority, protocols: &[&str], clients: Option<&Authority>) -> Self {
        let config = config(authority, protocols, clients);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, count) = (acceptor.clone(), Arc::clone(&count));
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let session = stream.get_ref().1;
                    let is_http2 = session.alpn_protocol() == Some(b"h2");
                    let has_certificate = session.peer_certificates().is_some();
                    let service = service_fn(move |request| {
                        std::future::ready(Ok::<_, Infallible>(answer(&request, has_certificate)))
                    });
                    let io = TokioIo::new(stream);
                    let _client_left = if is_http2 {
                        http2::Builder::new(TokioExecutor::new())
                            .serve_connection(io, service)
                            .await
                    } else {
                        http1::Builder::new().serve_connection(io, service).await
                    };
                });
            }
        });
        Self {
            address,
            accepted,
            _tasks: tasks,
        }
    }
}

fn config(authority: &Authority, protocols: &[&str], clients: Option<&Authority>) -> ServerConfig {
    let (_, key) = authority.issue("127.0.0.1");
    let chain = authority.folder.path().join("127.0.0.1.pem");
    let chain = rustls::pki_types::CertificateDer::pem_file_iter(chain)
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(clients.certificate.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
        }
    };
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

fn answer(request: &Request<Incoming>, has_certificate: bool) -> Response<BoxBody<Bytes, Infallible>> {
    let path = request.uri().path();
    if let Some(location) = request.uri().query().filter(|_| path == "/redirect") {
        let mut moved = Response::new(Full::default().boxed());
        *moved.status_mut() = http::StatusCode::FOUND;
        moved.headers_mut().insert("location", location.parse().unwrap());
        return moved;
    }
    let text = format!("{:?} {path} certificate={has_certificate}", request.version());
    let trailers = HeaderMap::from_iter([(
        http::HeaderName::from_static("x-trailer"),
        HeaderValue::from_static("1"),
    )]);
    let body = Full::new(Bytes::from(text)).with_trailers(async move { Some(Ok(trailers)) });
    let mut response = Response::new(body.boxed());
    response
        .headers_mut()
        .insert("cache-control", HeaderValue::from_static("max-age=3600"));
    response
}
