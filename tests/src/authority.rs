//! A certificate authority of the test's own, and certificates by it for servers on loopback.

use std::path::{Path, PathBuf};

use anyhow::Result;
use kato_shared::durable;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// An authority that nobody trusts who is not told to.
#[derive(Debug)]
pub struct Authority {
    /// Its certificate, PEM.
    pub certificate: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
}

/// A certificate and its key, PEM files.
#[derive(Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: PathBuf,
    /// The key, which its owner alone can read.
    pub key: PathBuf,
}

impl Authority {
    /// One whose certificate goes into `folder`.
    ///
    /// # Errors
    /// When no key can be made, or the file not be written.
    pub fn new(folder: &Path) -> Result<Self> {
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters
            .distinguished_name
            .push(DnType::CommonName, "authority of a test");
        let key = KeyPair::generate()?;
        let certificate = folder.join("ca.crt");
        let text = parameters.self_signed(&key)?.pem();
        durable::write(&certificate, text.as_bytes(), 0o644)?;
        Ok(Self {
            certificate,
            issuer: Issuer::new(parameters, key),
            folder: folder.to_owned(),
        })
    }

    /// A certificate for the server `name` on `127.0.0.1`.
    ///
    /// # Errors
    /// As [`Authority::new`].
    pub fn server(&self, name: &str) -> Result<Pair> {
        self.server_called(name, &["127.0.0.1", "localhost"])
    }

    /// A certificate for the server `name`, which is called by all of `hosts`.
    ///
    /// # Errors
    /// As [`Authority::new`].
    pub fn server_called(&self, name: &str, hosts: &[&str]) -> Result<Pair> {
        let key = KeyPair::generate()?;
        let names: Vec<String> = hosts.iter().copied().map(str::to_owned).collect();
        let certificate = CertificateParams::new(names)?.signed_by(&key, &self.issuer)?;
        let pair = Pair {
            certificate: self.folder.join(format!("{name}.pem")),
            key: self.folder.join(format!("{name}.key")),
        };
        durable::write(&pair.certificate, certificate.pem().as_bytes(), 0o644)?;
        durable::write(&pair.key, key.serialize_pem().as_bytes(), 0o600)?;
        Ok(pair)
    }
}
