//! The folder of an authority.
//!
//! ```text
//! <folder>/authority.json    what it is: name, hosts, validity, certificate, predecessor; anybody may read it
//! <folder>/<name>.key        its private key, PEM, mode 0600
//! ```
//! The key is written first, under a name of its own; the record, which names it, replaces the one before in a single step. So a
//! rotation that is killed leaves the old authority whole, and at worst a key that nothing refers to.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
};

use jiff::{SignedDuration, Timestamp};
use kato_shared::{Digest, durable};
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};

use super::{
    AuthorityError, Hosts,
    mint::{self, AUTHORITY_DAYS, Validity, minting},
};

const FILE: &str = "authority.json";
const SCHEMA: u32 = 1;
/// The mode of the key, and the bits that nobody else may have.
const KEY_MODE: u32 = 0o600;
const OTHERS: u32 = 0o077;
/// So long before its end an authority is warned about: clients have to be visited.
const WARN: SignedDuration = SignedDuration::from_hours(24 * 60);

/// What is known about an authority, and may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The version of this document; 1.
    pub schema: u32,
    /// The common name of its certificate, unique to it.
    pub name: String,
    /// The hosts that it may sign for.
    pub hosts: Hosts,
    /// When it begins to be valid.
    pub from: Timestamp,
    /// When it ends to be.
    pub until: Timestamp,
    /// The file of its key, in the same folder.
    key: String,
    /// Its certificate, PEM.
    pub certificate: String,
    /// The one that it replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predecessor: Option<Predecessor>,
}

/// An authority that was replaced. Its key is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predecessor {
    /// Its certificate, PEM.
    pub certificate: String,
    /// When it ends to be valid; from then on nobody is vouched for.
    pub until: Timestamp,
    /// The successor's certificate as the predecessor signed it, PEM.
    pub vouches: String,
}

impl Record {
    /// The record in `folder`; `None` where there is none.
    ///
    /// # Errors
    /// [`AuthorityError`] when it cannot be read or understood.
    pub fn read(folder: &Path) -> Result<Option<Self>, AuthorityError> {
        let path = folder.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(AuthorityError::Read { path, source }),
        };
        // Before the rest, which a later program may write otherwise.
        let schema = serde_json::from_slice(&text).map(|Schema { schema }| schema);
        match schema {
            Ok(found) if found > SCHEMA => {
                return Err(AuthorityError::Newer {
                    path,
                    found,
                    expected: SCHEMA,
                });
            }
            _ => {}
        }
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| AuthorityError::Record { path, source })
    }

    /// Makes an authority for `hosts` in `folder`, where there is none.
    ///
    /// # Errors
    /// [`AuthorityError::Exists`], and what making and writing it brings.
    pub fn create(folder: &Path, hosts: &Hosts, now: Timestamp) -> Result<Self, AuthorityError> {
        if Self::read(folder)?.is_some() {
            return Err(AuthorityError::Exists {
                folder: folder.to_owned(),
            });
        }
        Self::write_new(folder, hosts, now, None)
    }

    /// Replaces the authority in `folder` by a new one for `hosts`, for which the old one vouches if its time is not over.
    ///
    /// # Errors
    /// [`AuthorityError::Absent`], and what making and writing it brings; the old one stays then.
    pub fn rotate(folder: &Path, hosts: &Hosts, now: Timestamp) -> Result<Self, AuthorityError> {
        let Some(old) = Self::read(folder)? else {
            return Err(AuthorityError::Absent {
                folder: folder.to_owned(),
            });
        };
        let new = Self::write_new(folder, hosts, now, Some(&old).filter(|old| old.until > now))?;
        durable::remove(&folder.join(&old.key))?;
        Ok(new)
    }

    fn write_new(
        folder: &Path,
        hosts: &Hosts,
        now: Timestamp,
        old: Option<&Self>,
    ) -> Result<Self, AuthorityError> {
        let key = mint::new_key()?;
        let id = Digest::of(key.public_key_raw()).hex();
        let name = format!("Kato local authority {}", &id[..8]);
        let validity = Validity::of_days(AUTHORITY_DAYS, now);
        let params = mint::authority(&name, hosts, validity);
        let own = params.self_signed(&key).map_err(minting("a local authority"))?;
        let predecessor = match old {
            None => None,
            Some(old) => Some(Predecessor {
                vouches: mint::vouch(params, &key, &old.issuer(folder)?)?.pem(),
                certificate: old.certificate.clone(),
                until: old.until,
            }),
        };
        let record = Self {
            schema: SCHEMA,
            name,
            hosts: hosts.clone(),
            from: validity.from,
            until: validity.until,
            key: format!("{}.key", &id[..16]),
            certificate: own.pem(),
            predecessor,
        };
        let is_new_folder = !folder.exists();
        durable::create_folder(folder)?;
        if is_new_folder {
            adopt(folder)?;
        }
        let key_file = folder.join(&record.key);
        durable::write(&key_file, key.serialize_pem().as_bytes(), KEY_MODE)?;
        adopt(&key_file)?;
        let file = folder.join(FILE);
        durable::write_json(&file, &record, 0o644)?;
        adopt(&file)?;
        Ok(record)
    }

    /// Whether this authority in `folder` will do for `hosts` now.
    ///
    /// # Errors
    /// [`AuthorityError::Uncovered`] and [`AuthorityError::Over`].
    pub fn require(&self, folder: &Path, hosts: &Hosts, now: Timestamp) -> Result<(), AuthorityError> {
        let missing = hosts.without(&self.hosts);
        if !missing.is_empty() {
            tracing::debug!(folder = %folder.display(), %missing, "the constraints are too narrow");
            return Err(AuthorityError::Uncovered {
                missing: missing.to_string(),
                covered: self.hosts.to_string(),
            });
        }
        if self.until <= now {
            return Err(AuthorityError::Over { until: self.until });
        }
        Ok(())
    }

    pub(super) fn warn_before_the_end(&self, now: Timestamp) {
        if self.until.duration_since(now) < WARN {
            tracing::warn!(until = %self.until, "the local authority ends soon: `kato-proxy ca rotate`");
        }
    }

    /// The SHA-256 fingerprint of its certificate, as browsers and openssl show it.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.certificate)
    }

    /// What signs, with the key from its file.
    pub(super) fn issuer(&self, folder: &Path) -> Result<Issuer<'static, KeyPair>, AuthorityError> {
        let path = folder.join(&self.key);
        let read = |source| AuthorityError::Read {
            path: path.clone(),
            source,
        };
        let mode = fs::metadata(&path).map_err(read)?.permissions().mode() & 0o777;
        if mode & OTHERS != 0 {
            return Err(AuthorityError::Exposed { path, mode });
        }
        let text = fs::read_to_string(&path).map_err(read)?;
        let key = KeyPair::from_pem(&text).map_err(minting("the key of the local authority"))?;
        let validity = Validity {
            from: self.from,
            until: self.until,
        };
        let params: CertificateParams = mint::authority(&self.name, &self.hosts, validity);
        Ok(Issuer::new(params, key))
    }
}

impl Predecessor {
    /// As [`Record::fingerprint`].
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.certificate)
    }
}

/// The version alone; other keys are looked at when it is known.
#[derive(Deserialize)]
struct Schema {
    schema: u32,
}

fn fingerprint(pem: &str) -> String {
    let Ok(der) = CertificateDer::from_pem_slice(pem.as_bytes()) else {
        return "unknown".into();
    };
    let hex = Digest::of(&der).hex().to_ascii_uppercase();
    let pairs: Vec<_> = hex.as_bytes().chunks(2).map(String::from_utf8_lossy).collect();
    pairs.join(":")
}

/// Gives `path` the owner of its folder: an administrator who makes the authority by hand makes it for the service.
fn adopt(path: &Path) -> Result<(), AuthorityError> {
    let read = |source| AuthorityError::Read {
        path: path.to_owned(),
        source,
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    let (own, its) = (
        fs::metadata(path).map_err(read)?,
        fs::metadata(folder).map_err(read)?,
    );
    if own.uid() != its.uid() && rustix::process::geteuid().is_root() {
        chown(path, Some(its.uid()), Some(its.gid())).map_err(read)?;
    }
    Ok(())
}
