//! Keys and signatures: minisign, so that `minisign -V` says the same as we do.
//!
//! The trusted comment, which the signature covers, holds series, sequence and root: a person sees with any minisign what was signed.
//! Deliberately absent: legacy signatures over unhashed files, trust on first use, any clock.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use kato_shared::durable::{self, DurableError};
use minisign::{KeyPair, SecretKey, SecretKeyBox};
use minisign_verify::{PublicKey, Signature};

use super::medium::open_regular;

/// The largest key or signature file in bytes.
const LARGEST: u64 = 4096;

/// What goes wrong with keys and signatures.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// There is no signature.
    #[error(
        "`{0}` is missing: the bundle is not signed\nhint: import only what was signed by a key that you have from its owner"
    )]
    Unsigned(PathBuf),
    /// A signature that cannot be read.
    #[error("the signature `{path}` is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: minisign_verify::Error,
    },
    /// By somebody else.
    #[error(
        "the bundle is signed by key {found}, trusted are {trusted}\nhint: give the right key with --trust, if you have it from its owner"
    )]
    OtherKey {
        /// The key of the signature.
        found: String,
        /// The keys that are trusted.
        trusted: String,
    },
    /// It is not of this file.
    #[error("the signature `{path}` is not that of BUNDLE.json: one of the two was changed")]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: minisign_verify::Error,
    },
    /// No key.
    #[error("no key is trusted\nhint: name the public key with --trust FILE or --trust KEY")]
    NoTrust,
    /// A key that cannot be read.
    #[error("`{name}` is no public key of minisign")]
    PublicKey {
        /// The file or the text.
        name: String,
        /// Why.
        #[source]
        source: minisign_verify::Error,
    },
    /// Neither a file nor a key.
    #[error(
        "`{0}` is no file that is here, and no public key of minisign\nhint: is the path right, and may this user read it?"
    )]
    NoKey(String),
    /// A secret key that cannot be used.
    #[error("the secret key `{path}` cannot be used\nhint: is the password right (--password-file)?")]
    SecretKey {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: minisign::PError,
    },
    /// Signing itself.
    #[error("signing failed")]
    Sign(#[source] minisign::PError),
    /// A file.
    #[error("reading `{path}` failed")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A key file that is there already.
    #[error("`{0}` is there already; a key that is overwritten is lost\nhint: choose another name")]
    Exists(PathBuf),
    /// A file that cannot be written.
    #[error(transparent)]
    Durable(#[from] DurableError),
}

/// Public keys whose signatures are believed.
#[derive(Debug, Default)]
pub struct Trust(Vec<(String, PublicKey)>);

impl Trust {
    /// The keys of `named`, each a file or the key itself.
    ///
    /// # Errors
    /// [`SignError::NoTrust`] when there are none, else what is wrong with one.
    pub fn read(named: &[String]) -> Result<Self, SignError> {
        let mut keys = Vec::new();
        for name in named {
            let wrong = |source| SignError::PublicKey {
                name: name.clone(),
                source,
            };
            let key = if Path::new(name).is_file() {
                PublicKey::decode(&small(Path::new(name))?).map_err(wrong)?
            } else {
                PublicKey::from_base64(name).map_err(|_no_key| SignError::NoKey(name.clone()))?
            };
            keys.push((name.clone(), key));
        }
        if keys.is_empty() {
            return Err(SignError::NoTrust);
        }
        Ok(Self(keys))
    }

    /// The keys of `named` themselves, for somebody who does not see the same files.
    ///
    /// # Errors
    /// As [`Trust::read`].
    pub fn spelled(named: &[String]) -> Result<Vec<String>, SignError> {
        let _they_are_keys = Self::read(named)?;
        let spelled = named.iter().map(|name| {
            if !Path::new(name).is_file() {
                return Ok(name.clone());
            }
            let text = small(Path::new(name))?;
            // The first line of a file of minisign is a comment.
            Ok(text
                .lines()
                .map(str::trim)
                .rfind(|line| !line.is_empty())
                .unwrap_or_default()
                .to_owned())
        });
        spelled.collect()
    }

    /// Verifies that `path` holds a signature of `bytes` by one of the keys; returns which key, and the trusted comment.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn verify(&self, bytes: &[u8], path: &Path) -> Result<Signed, SignError> {
        if !path.exists() {
            return Err(SignError::Unsigned(path.to_owned()));
        }
        let text = foreign(path)?;
        let signature = Signature::decode(&text).map_err(|source| SignError::Damaged {
            path: path.to_owned(),
            source,
        })?;
        let mut mismatch = None;
        for (name, key) in &self.0 {
            match key.verify(bytes, &signature, false) {
                Ok(()) => {
                    return Ok(Signed {
                        key: name.clone(),
                        comment: signature.trusted_comment().to_owned(),
                    });
                }
                Err(minisign_verify::Error::UnexpectedKeyId) => {}
                Err(source) => mismatch = Some(source),
            }
        }
        Err(match mismatch {
            Some(source) => SignError::Mismatch {
                path: path.to_owned(),
                source,
            },
            None => SignError::OtherKey {
                found: key_id(&text),
                trusted: self
                    .0
                    .iter()
                    .map(|(name, _)| name.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            },
        })
    }
}

/// A signature that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The trusted key, as it was named.
    pub key: String,
    /// The trusted comment.
    pub comment: String,
}

/// A secret key, unlocked.
pub struct Signer(SecretKey);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

impl Signer {
    /// The key in `path`, with its password where it has one.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn read(path: &Path, password: Option<String>) -> Result<Self, SignError> {
        let wrong = |source| SignError::SecretKey {
            path: path.to_owned(),
            source,
        };
        let text = SecretKeyBox::from_string(&small(path)?).map_err(wrong)?;
        let key = match password {
            Some(password) => text.into_secret_key(Some(password)),
            None => text.into_unencrypted_secret_key(),
        };
        key.map(Self).map_err(wrong)
    }

    /// Trust in this key and no other.
    ///
    /// # Errors
    /// [`SignError::Sign`] when the key has no public one.
    pub fn trust(&self) -> Result<Trust, SignError> {
        let public = minisign::PublicKey::from_secret_key(&self.0).map_err(SignError::Sign)?;
        Trust::read(&[public.to_base64()])
    }

    /// The text of a signature of `bytes`, with `comment` as the trusted comment.
    ///
    /// # Errors
    /// [`SignError::Sign`].
    pub fn sign(&self, bytes: &[u8], comment: &str) -> Result<String, SignError> {
        let signature = minisign::sign(
            None,
            &self.0,
            bytes,
            Some(comment),
            Some("signature of a kato bundle"),
        )
        .map_err(SignError::Sign)?;
        Ok(signature.into_string())
    }
}

/// Writes a new pair of keys; returns the public key in one line, as it is told on paper.
///
/// # Errors
/// [`SignError::Exists`] when a file is there; else what went wrong.
pub fn keygen(secret: &Path, public: &Path, password: Option<String>) -> Result<String, SignError> {
    for path in [secret, public] {
        if path.exists() {
            return Err(SignError::Exists(path.to_owned()));
        }
    }
    let pair = match password {
        Some(password) => KeyPair::generate_encrypted_keypair(Some(password)),
        None => KeyPair::generate_unencrypted_keypair(),
    }
    .map_err(SignError::Sign)?;
    let secret_text = pair
        .sk
        .to_box(Some("secret key for kato bundles"))
        .map_err(SignError::Sign)?;
    let public_text = pair.pk.to_box().map_err(SignError::Sign)?;
    durable::write(secret, secret_text.into_string().as_bytes(), 0o600)?;
    durable::write(public, public_text.into_string().as_bytes(), 0o644)?;
    Ok(pair.pk.to_base64())
}

/// The text of a small file of ours.
fn small(path: &Path) -> Result<String, SignError> {
    let failed = |source| SignError::Read {
        path: path.to_owned(),
        source,
    };
    bounded(File::open(path).map_err(failed)?).map_err(failed)
}

/// The text of a small file on a medium that anybody may have made: nothing but a regular file is opened.
fn foreign(path: &Path) -> Result<String, SignError> {
    let failed = |source| SignError::Read {
        path: path.to_owned(),
        source,
    };
    let file = open_regular(path, None).map_err(|problem| failed(io::Error::other(problem.text())))?;
    bounded(file).map_err(failed)
}

/// What `file` says of its size is not believed.
fn bounded(file: File) -> io::Result<String> {
    let mut text = String::new();
    let read = file.take(LARGEST + 1).read_to_string(&mut text)?;
    if read as u64 > LARGEST {
        return Err(io::Error::other(format!("more than {LARGEST} bytes")));
    }
    Ok(text)
}

/// The identity of the key that made a signature, as minisign shows it.
fn key_id(signature: &str) -> String {
    use base64::Engine as _;
    let raw = signature
        .lines()
        .nth(1)
        .and_then(|line| base64::engine::general_purpose::STANDARD.decode(line.trim()).ok());
    raw.and_then(|raw| raw.get(2..10).and_then(|id| <[u8; 8]>::try_from(id).ok()))
        .map_or_else(
            || "unknown".to_owned(),
            |id| format!("{:016X}", u64::from_le_bytes(id)),
        )
}
