//! The request file: what a site without a network asks for. Misses of clients and holes of an import make it; `prefetch` fetches
//! it and `bundle export --satisfy` sends it.

use jiff::Timestamp;
use kato_shared::Digest;
use serde::{Deserialize, Serialize};

use super::Record;

/// What the `format` of a request file is.
const FORMAT: &str = "kato/request/1";

/// The most URLs and digests that are read.
const MOST: usize = 4_000_000;

/// A request file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    format: String,
    /// When it was made.
    pub created: Timestamp,
    /// The newest snapshot that the site has whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub have: Option<Record>,
    /// The snapshot that came and waits for what `digests` says; the rest of it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Record>,
    /// What clients asked for, or what an import could not find.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<WantedUrl>,
    /// Content and chunks that are missing, by digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub digests: Vec<Digest>,
}

/// One URL of a request file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WantedUrl {
    /// The target URI, without secrets.
    pub url: String,
    /// The `Accept` of the client, where the response may depend on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<String>,
    /// Its content, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// How often it was asked for; 0 when nobody has asked yet.
    #[serde(default)]
    pub count: u64,
}

/// Why a text is no request file.
#[derive(Debug, thiserror::Error)]
pub enum WantedError {
    /// It is not the JSON of one.
    #[error("the request file cannot be read")]
    Syntax(#[from] serde_json::Error),
    /// A newer program wrote it.
    #[error("the request file has the format `{0}`, expected `{FORMAT}`")]
    Format(String),
    /// It is too long.
    #[error("the request file asks for {0} things, at most {MOST} are read")]
    TooLong(usize),
}

impl Wanted {
    /// A request for nothing yet.
    pub fn new(created: Timestamp) -> Self {
        Self {
            format: FORMAT.to_owned(),
            created,
            have: None,
            pending: None,
            urls: Vec::new(),
            digests: Vec::new(),
        }
    }

    /// Reads a request file.
    ///
    /// # Errors
    /// [`WantedError`].
    pub fn read(bytes: &[u8]) -> Result<Self, WantedError> {
        let wanted: Self = serde_json::from_slice(bytes)?;
        if wanted.format != FORMAT {
            return Err(WantedError::Format(wanted.format));
        }
        let count = wanted.urls.len() + wanted.digests.len();
        if count > MOST {
            return Err(WantedError::TooLong(count));
        }
        Ok(wanted)
    }
}
