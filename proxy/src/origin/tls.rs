//! TLS towards origins and parents: whom we trust, and who we are.
//!
//! Trusted are this host's authorities, the `ca_file` of `[origins]` and that of the upstream. A client certificate is shown to
//! the hosts that the upstream's `urls` name and to nobody else, for what reads below its URLs (see `Profile::speaks_for_us`): a redirect
//! must not learn who we are, and no client acts in our name.

use std::{io, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use kato_shared::chain::Chain;
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    client::danger::ServerCertVerifier,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};
use rustls_platform_verifier::Verifier;

use super::OriginError;
use crate::settings::{Origins, TlsVersion, Upstream};

/// How TLS is spoken for one upstream; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    /// With the hosts that the upstream's `urls` name.
    pub(super) own: Arc<ClientConfig>,
    /// With all others: redirects' targets.
    pub(super) elsewhere: Arc<ClientConfig>,
    /// With a parent proxy: HTTP/1.1 alone, which CONNECT is sent over.
    pub(super) parent: Arc<ClientConfig>,
}

impl Tls {
    /// For upstreams that set nothing of their own.
    ///
    /// # Errors
    /// [`OriginError::File`], [`OriginError::Tls`].
    pub(super) fn common(origins: &Origins) -> Result<Self, OriginError> {
        let elsewhere = Arc::new(config(origins, None, None)?);
        Ok(Self {
            own: Arc::clone(&elsewhere),
            parent: without_http2(&elsewhere),
            elsewhere,
        })
    }

    /// For `upstream`: `common`, unless it sets something of its own. Reading this host's authorities takes time, so it is not
    /// done for each.
    ///
    /// # Errors
    /// [`OriginError::File`], [`OriginError::Tls`].
    pub(super) fn of(common: &Self, origins: &Origins, upstream: &Upstream) -> Result<Self, OriginError> {
        let identity = match (&upstream.client_certificate, &upstream.client_key) {
            (Some(certificate), Some(key)) => Some(identity(certificate, key)?),
            _ => None,
        };
        let ca = upstream.ca_file.as_deref();
        if identity.is_none() && ca.is_none() {
            return Ok(common.clone());
        }
        let elsewhere = match ca {
            Some(_) => Arc::new(config(origins, ca, None)?),
            None => Arc::clone(&common.elsewhere),
        };
        let own = match identity {
            Some(_) => Arc::new(config(origins, ca, identity)?),
            None => Arc::clone(&elsewhere),
        };
        Ok(Self {
            own,
            parent: without_http2(&elsewhere),
            elsewhere,
        })
    }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn config(
    origins: &Origins,
    ca_file: Option<&Path>,
    identity: Option<Identity>,
) -> Result<ClientConfig, OriginError> {
    let versions: &[&SupportedProtocolVersion] = match origins.minimum_tls {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut extra = Vec::new();
    for file in [origins.ca_file.as_deref(), ca_file].into_iter().flatten() {
        extra.extend(certificates("ca_file", file)?);
    }
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(OriginError::Tls)?;
    let builder = match Verifier::new_with_extra_roots(extra, provider) {
        Ok(verifier) => {
            let verifier: Arc<dyn ServerCertVerifier> = Arc::new(verifier);
            // "Dangerous" is any verifier but webpki's own; this one is webpki with this host's authorities.
            builder.dangerous().with_custom_certificate_verifier(verifier)
        }
        // Plain HTTP, and what is stored, need no certificates: a host without any is served all the same.
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "no https upstream can be verified; install the ca-certificates of this host");
            builder.with_root_certificates(RootCertStore::empty())
        }
    };
    let mut config = match identity {
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(OriginError::Tls)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn without_http2(config: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

fn identity(certificate: &Path, key: &Path) -> Result<Identity, OriginError> {
    warn_if_open(key);
    let chain = certificates("client_certificate", certificate)?;
    let key_of = PrivateKeyDer::from_pem_file(key).map_err(|error| OriginError::File {
        key: "client_key",
        path: key.to_owned(),
        expected: "a PEM block PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY",
        source: Some(io::Error::other(error)),
    })?;
    Ok((chain, key_of))
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, OriginError> {
    let bad = |source: Option<io::Error>| OriginError::File {
        key,
        path: path.to_owned(),
        expected: "one or more PEM blocks CERTIFICATE",
        source,
    };
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| bad(Some(io::Error::other(error))))?;
    // A certificate that is none would be found out by the first handshake only.
    let mut probe = RootCertStore::empty();
    for one in &found {
        probe
            .add(one.clone())
            .map_err(|error| bad(Some(io::Error::other(error))))?;
    }
    if found.is_empty() {
        return Err(bad(None));
    }
    Ok(found)
}

/// Warns about a file with a secret that every user of this host can read.
pub(super) fn warn_if_open(path: &Path) {
    if let Ok(metadata) = std::fs::metadata(path)
        && metadata.permissions().mode() & 0o007 != 0
    {
        tracing::warn!(path = %path.display(), "this file holds a secret and every user of this host may use it; hint: chmod o= it");
    }
}
