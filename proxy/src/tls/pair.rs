//! A certificate chain and its private key, in two PEM files.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    sign::CertifiedKey,
};

/// The most bytes of a file. Chains have a few thousand; a path to something else must not fill the memory.
const MAX_FILE: u64 = 1 << 20;

/// Where the pair is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairFiles {
    /// The certificate of this host, then those that lead to a root that clients know.
    pub certificate: PathBuf,
    /// Its private key: PKCS #8, SEC 1 or PKCS #1.
    pub key: PathBuf,
}

/// A pair that can be used.
#[derive(Debug)]
pub struct Pair {
    pub(super) files: PairFiles,
    /// Of the files, before they were read: what is written while they are read makes another pair.
    pub(super) stamps: Stamps,
    pub(super) key: CertifiedKey,
}

/// Why a pair cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// A file cannot be read.
    #[error("`{}` cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file has nothing of what is needed.
    #[error("`{}` holds no usable {expected}: expected a PEM file with one", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// The kind of PEM block that was expected.
        expected: &'static str,
        /// What is wrong, where it is more than absence.
        #[source]
        source: pem::Error,
    },
    /// The two do not fit, or the key is of a kind that is not supported.
    #[error(
        "`{}` and `{}` cannot be used together: expected a certificate and the private key that belongs to it",
        certificate.display(), key.display()
    )]
    Pair {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
        /// What does not fit.
        #[source]
        source: rustls::Error,
    },
}

/// What tells a changed file from the one before: where it lies, when it was written, how long it is. `None`: it is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamps([Option<Stamp>; 2]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    length: u64,
}

impl PairFiles {
    /// The state of both files now, through symbolic links.
    pub(super) fn stamps(&self) -> Stamps {
        Stamps([&self.certificate, &self.key].map(|path| {
            let found = fs::metadata(path).ok()?;
            Some(Stamp {
                device: found.dev(),
                inode: found.ino(),
                modified: (found.mtime(), found.mtime_nsec()),
                length: found.len(),
            })
        }))
    }

    /// Reads both files. Blocks.
    ///
    /// # Errors
    /// [`PairError`] naming the file.
    pub fn load(self) -> Result<Pair, PairError> {
        let stamps = self.stamps();
        let key = self.read()?;
        let files = self;
        Ok(Pair { files, stamps, key })
    }

    fn read(&self) -> Result<CertifiedKey, PairError> {
        let chain = read(&self.certificate)?;
        let in_certificate = |source| PairError::Pem {
            path: self.certificate.clone(),
            expected: "CERTIFICATE",
            source,
        };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain)
            .collect::<Result<_, _>>()
            .map_err(in_certificate)?;
        if chain.is_empty() {
            return Err(in_certificate(pem::Error::NoItemsFound));
        }
        warn_of_readers(&self.key);
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?).map_err(|source| PairError::Pem {
            path: self.key.clone(),
            expected: "PRIVATE KEY",
            source,
        })?;
        CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|source| PairError::Pair {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            source,
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, PairError> {
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE).read_to_end(&mut content))
        .map_err(|source| PairError::Read {
            path: path.to_owned(),
            source,
        })?;
    Ok(content)
}

/// Keys that everybody on this host can read protect nothing from them.
fn warn_of_readers(key: &Path) {
    if let Ok(found) = fs::metadata(key)
        && found.mode() & 0o007 != 0
    {
        tracing::warn!(
            key = %key.display(),
            mode = format!("{:03o}", found.mode() & 0o777),
            "others on this host can read the private key; expected at most mode 640"
        );
    }
}
