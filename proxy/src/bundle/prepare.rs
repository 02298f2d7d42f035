//! From an operator's order to a plan: which snapshot, which number, for whom.

use std::{
    fs,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use tokio::runtime::Handle;

use super::{
    BundleError,
    export::{begun, is_done},
    header::is_series,
    horizon::{has_suites, horizon},
    pack::Limit,
    plan::{Has, Plan},
    receipt::bases,
};
use crate::{
    archive_keys::{RingKey, ring, usual_keyrings},
    snapshot::{Library, Record, Side, Snapshot, Wanted, collect},
    store::Store,
};

/// The largest request file in bytes.
const LARGEST_REQUEST: u64 = 1 << 30;

/// What is to be exported.
#[derive(Debug, Clone, Default)]
pub struct Order {
    /// The name of the series.
    pub series: String,
    /// What the site has: a number, or a document of it. Nothing when there is none.
    pub since: Option<String>,
    /// How many bundles before that may have been lost.
    pub overlap: u64,
    /// A request file.
    pub satisfy: Option<PathBuf>,
    /// URL prefixes; everything when there are none.
    pub prefixes: Vec<String>,
    /// Keyrings of archives; those of this machine when there are none.
    pub keyrings: Vec<PathBuf>,
    /// Public keys of sites, by one of which a receipt has to be signed; any receipt does when there are none.
    pub sites: Vec<String>,
    /// The most bytes of a volume; none for a folder.
    pub limit: Option<Limit>,
}

/// The plan for `order`; `out` is where its folder will be made, and where an interrupted run may have begun it. With `keep`, the
/// snapshot goes into the library, as an export needs it.
///
/// # Errors
/// [`BundleError`].
pub fn prepare(
    (store, library, handle): (&Store, &Library, &Handle),
    order: &Order,
    out: &Path,
    now: Timestamp,
    keep: bool,
) -> Result<Plan, BundleError> {
    if !is_series(&order.series) {
        return Err(BundleError::Series(order.series.clone()));
    }
    let collected = handle.block_on(collect(store, &order.prefixes))?;
    if collected.snapshot.entries().is_empty() {
        return Err(BundleError::Empty);
    }
    let encoded = collected
        .snapshot
        .encode()
        .map_err(BundleError::file("encoding the snapshot for", out))?;
    if keep {
        library.keep(&encoded)?;
    }
    let records = library.records(Side::Exported, &order.series)?;
    let last = records.last();
    let mut record = Record {
        series: order.series.clone(),
        series_id: last.map_or_else(new_series, |last| Ok(last.series_id.clone()))?,
        seq: last.map_or(0, |last| last.seq) + 1,
        root: encoded.root,
        created: now,
    };
    if let Some(begun) = begun(out, &record) {
        record.series_id = begun.series_id;
        record.created = begun.created;
    }
    let wanted = order.satisfy.as_deref().map(read_wanted).transpose()?;
    let since = match (&order.since, &order.satisfy) {
        (Some(since), _) => Some(since.clone()),
        // A request file says what the site has.
        (None, Some(path)) if wanted.as_ref().is_some_and(|wanted| wanted.have.is_some()) => {
            Some(path.display().to_string())
        }
        (None, _) => None,
    };
    let bases = match since {
        Some(since) => bases(library, &order.series, &since, (order.overlap, &order.sites))?,
        None => Vec::new(),
    };
    let has = Has::reachable(library, bases)?;
    let horizon = horizon(
        store,
        &collected.snapshot,
        &handle.block_on(keys(order, &collected.snapshot)),
    );
    let mut plan = Plan::new(
        record,
        (collected.snapshot, &encoded),
        has,
        wanted.as_ref(),
        order.limit,
    )?;
    if let Some(last) = last
        && is_done(out, last, &plan)
    {
        plan.record = last.clone();
    }
    plan.left_out = collected.left_out;
    plan.horizon = horizon;
    Ok(plan)
}

/// The keys of archives that are known here; none where there is no archive.
async fn keys(order: &Order, snapshot: &Snapshot) -> Vec<RingKey> {
    if !has_suites(snapshot) {
        Vec::new()
    } else if order.keyrings.is_empty() {
        ring(&usual_keyrings()).await
    } else {
        ring(&order.keyrings).await
    }
}

fn read_wanted(path: &Path) -> Result<Wanted, BundleError> {
    let length = fs::metadata(path)
        .map_err(BundleError::file("reading", path))?
        .len();
    if length > LARGEST_REQUEST {
        return Err(BundleError::TooLarge {
            path: path.to_owned(),
            found: length,
            limit: LARGEST_REQUEST,
        });
    }
    let bytes = fs::read(path).map_err(BundleError::file("reading", path))?;
    Ok(Wanted::read(&bytes)?)
}

/// The identity of a new series: 128 bits by chance.
fn new_series() -> Result<String, BundleError> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_unspecified| std::io::Error::other("the system gave no random bytes"))
        .map_err(BundleError::file("drawing a name for", "the series"))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
