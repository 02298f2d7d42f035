//! What a site says that it has: `export --since` takes it in the place of a number, and so do a request file and an old `BUNDLE.json`.

use std::path::Path;

use jiff::Timestamp;
use kato_shared::Digest;
use serde::{Deserialize, Serialize};

use super::{BundleError, header::Base, medium::read_bounded};
use crate::snapshot::{Library, Record, Side};

/// The largest of these documents that is read, in bytes.
const LARGEST: u64 = 1 << 30;

/// A receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// `kato/receipt/1`.
    pub format: String,
    /// The name that the site gives itself.
    pub site: String,
    /// The snapshot that it has, whole.
    #[serde(flatten)]
    pub have: Record,
    /// How that is known: `full`, every byte.
    pub verify: String,
    /// When it was written.
    pub at: Timestamp,
}

impl Receipt {
    /// A receipt of `site` for `have`.
    pub fn new(site: &str, have: Record, at: Timestamp) -> Self {
        Self {
            format: "kato/receipt/1".to_owned(),
            site: site.to_owned(),
            have,
            verify: "full".to_owned(),
            at,
        }
    }
}

/// What each of these documents says about a snapshot; the rest of it does not matter here.
#[derive(Deserialize)]
struct Named {
    series: Option<String>,
    seq: Option<u64>,
    root: Option<Digest>,
    have: Option<Record>,
}

/// The snapshots that `since` names, for a site that has them: a number of `series`, or a receipt, a request file or an old `BUNDLE.json`. With
/// `overlap`, a number means the one that many before it, so that as many bundles may be lost.
///
/// # Errors
/// [`BundleError::UnknownBase`] when nothing of the kind left from here.
pub fn bases(library: &Library, series: &str, since: &str, overlap: u64) -> Result<Vec<Base>, BundleError> {
    let records = library.records(Side::Exported, series)?;
    let unknown = || BundleError::UnknownBase(since.to_owned());
    let base = |record: &Record| Base {
        seq: record.seq,
        root: record.root,
    };
    if let Ok(seq) = since.parse::<u64>() {
        let seq = seq.saturating_sub(overlap);
        if seq == 0 {
            return Ok(Vec::new());
        }
        let record = records
            .iter()
            .find(|record| record.seq == seq)
            .ok_or_else(unknown)?;
        return Ok(vec![base(record)]);
    }
    let bytes = read_bounded(Path::new(since), LARGEST)?;
    let named: Named = serde_json::from_slice(&bytes).map_err(|_no_document| unknown())?;
    let (of, seq, root) = match named.have {
        Some(have) => (Some(have.series), Some(have.seq), Some(have.root)),
        None => (named.series, named.seq, named.root),
    };
    if of.is_some_and(|of| of != series) {
        return Err(unknown());
    }
    match (seq, root) {
        (Some(seq), Some(root)) => Ok(vec![Base { seq, root }]),
        _ => Err(unknown()),
    }
}
