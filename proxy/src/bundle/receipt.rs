//! What a site says that it has: `export --since` takes it in the place of a number, and so do a request file and an old `BUNDLE.json`.

use std::{
    io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use kato_shared::{Digest, durable};
use serde::{Deserialize, Serialize};

use super::{
    BundleError,
    header::Base,
    medium::read_bounded,
    sign::{Signer, Trust},
};
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

    /// Writes it to `path`, and its signature beside it, by `signer`, where there is one.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn write(&self, path: &Path, signer: Option<&Signer>) -> Result<(), BundleError> {
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(io::Error::other)
            .map_err(BundleError::file("writing", path))?;
        text.push(b'\n');
        // First the signature: a receipt without one is never the last to be seen.
        if let Some(signer) = signer {
            let comment = format!(
                "site:{} series:{} seq:{} root:{}",
                self.site, self.have.series, self.have.seq, self.have.root
            );
            durable::write(&signature(path), signer.sign(&text, &comment)?.as_bytes(), 0o644)?;
        }
        durable::hand_out(path, &text, 0o644)?;
        Ok(())
    }
}

/// Where the signature of the document at `path` is.
fn signature(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".minisig");
    PathBuf::from(name)
}

/// What each of these documents says about a snapshot; the rest of it does not matter here.
#[derive(Deserialize)]
struct Named {
    series: Option<String>,
    series_id: Option<String>,
    seq: Option<u64>,
    root: Option<Digest>,
    created: Option<Timestamp>,
    have: Option<Record>,
    pending: Option<Record>,
}

/// Where a site stands in a series, by what a document of it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which series of that name.
    pub series_id: String,
    /// The highest number that the site knows.
    pub seq: u64,
    /// When what the site has was made, as far as the document says.
    pub at: Option<Timestamp>,
    /// Whether a site that is known has signed that.
    pub is_signed: bool,
}

/// What a site has.
#[derive(Debug, Default)]
pub struct Since {
    /// The snapshots.
    pub bases: Vec<Base>,
    /// Where it stands, where a document and no number says so.
    pub place: Option<Place>,
}

/// The snapshots that `since` names, for a site that has them: a number of `series`, or a receipt, a request file or an old `BUNDLE.json`. With
/// `overlap`, a number means the one that many before it, so that as many bundles may be lost. A receipt has to be signed by one of `sites`, where
/// there are any.
///
/// # Errors
/// [`BundleError::UnknownBase`] when nothing of the kind left from here; [`BundleError::Sign`] for a receipt that is not signed as it must be.
pub fn bases(
    library: &Library,
    series: &str,
    since: &str,
    (overlap, sites): (u64, &[String]),
) -> Result<Since, BundleError> {
    let records = library.records(Side::Exported, series)?;
    let unknown = || BundleError::UnknownBase(since.to_owned());
    let base = |record: &Record| Base {
        seq: record.seq,
        root: record.root,
    };
    if let Ok(seq) = since.parse::<u64>() {
        let seq = seq.saturating_sub(overlap);
        if seq == 0 {
            return Ok(Since::default());
        }
        let record = records
            .iter()
            .find(|record| record.seq == seq)
            .ok_or_else(unknown)?;
        return Ok(Since {
            bases: vec![base(record)],
            place: None,
        });
    }
    let bytes = read_bounded(Path::new(since), LARGEST)?;
    let is_receipt = serde_json::from_slice::<Receipt>(&bytes).is_ok();
    let is_signed = is_receipt && !sites.is_empty();
    if is_signed {
        Trust::read(sites)?.verify(&bytes, &signature(Path::new(since)))?;
    }
    let named: Named = serde_json::from_slice(&bytes).map_err(|_no_document| unknown())?;
    let (of, series_id, seq, root, at) = match named.have {
        Some(have) => (
            Some(have.series),
            Some(have.series_id),
            Some(have.seq),
            Some(have.root),
            Some(have.created),
        ),
        None => (
            named.series,
            named.series_id,
            named.seq,
            named.root,
            named.created,
        ),
    };
    if of.is_some_and(|of| of != series) {
        return Err(unknown());
    }
    let (Some(seq), Some(root)) = (seq, root) else {
        return Err(unknown());
    };
    let is_of_it = |waiting: &Record| Some(&waiting.series_id) == series_id.as_ref();
    let waiting = named.pending.filter(is_of_it).map_or(0, |waiting| waiting.seq);
    Ok(Since {
        bases: vec![Base { seq, root }],
        place: series_id.map(|series_id| Place {
            series_id,
            seq: seq.max(waiting),
            at,
            is_signed,
        }),
    })
}
