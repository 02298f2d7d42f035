//! From an operator's order to a plan: which snapshot, which number, for whom.

use std::{
    fs,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use kato_shared::Digest;
use tokio::runtime::Handle;

use super::{
    BundleError,
    again::{adopt, begun, begun_for},
    header::{Base, is_series},
    horizon::{has_suites, horizon},
    import::snapshot_of,
    medium::Bundle,
    numbers,
    pack::Limit,
    plan::{Has, Plan},
    receipt::{Place, Since, bases},
    satisfy::{Answer, Whole, answer},
    sign::Signer,
};
use crate::{
    archive_keys::{RingKey, ring, usual_keyrings},
    snapshot::{Library, Parameters, Record, Side, Snapshot, Wanted, collect},
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
    /// Parameters of queries that may cross beside those that are known.
    pub parameters: Parameters,
    /// Keyrings of archives; those of this machine when there are none.
    pub keyrings: Vec<PathBuf>,
    /// Public keys of sites, by one of which a receipt has to be signed; any receipt does when there are none.
    pub sites: Vec<String>,
    /// The most bytes of a volume; none for a folder.
    pub limit: Option<Limit>,
}

/// The plan for `order`; `out` is where its folder will be made, and where an interrupted run may have begun it. With a `signer`, the
/// snapshot goes into the library, as an export needs it.
///
/// # Errors
/// [`BundleError`].
pub fn prepare(
    (store, library, handle): (&Store, &Library, &Handle),
    order: &Order,
    out: &Path,
    now: Timestamp,
    signer: Option<&Signer>,
) -> Result<Plan, BundleError> {
    if !is_series(&order.series) {
        return Err(BundleError::Series(order.series.clone()));
    }
    let collected = handle.block_on(collect(store, &order.prefixes, &order.parameters))?;
    if collected.snapshot.entries().is_empty() {
        return Err(BundleError::Empty);
    }
    if let Some(signer) = signer {
        adopt(out, library, &order.series, signer)?;
    }
    let wanted = order.satisfy.as_deref().map(read_wanted).transpose()?;
    if let (Some(wanted), Some(path)) = (&wanted, &order.satisfy)
        && wanted.urls.is_empty()
        && wanted.digests.is_empty()
    {
        return Err(BundleError::NothingAsked(path.clone()));
    }
    let mut since = since(library, order, wanted.as_ref())?;
    let is_lost = order.satisfy.is_none() && forget_lost(library, order, &mut since);
    let place = since.place.clone();
    if order.since.is_some() {
        is_one_series(library, &order.series, place.as_ref())?;
    }
    let chosen = choose(
        (store, library, handle),
        order,
        (wanted.as_ref(), since.bases),
        collected.snapshot,
    )?;
    let encoded = chosen
        .snapshot
        .encode()
        .map_err(BundleError::file("encoding the snapshot for", out))?;
    if signer.is_some() {
        let size = || encoded.chunks.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        library
            .keep(&encoded)
            .map_err(BundleError::from)
            .map_err(BundleError::filled(store.dir(), size))?;
    }
    let record = next(library, out, (&order.series, encoded.root, place), now)?;
    let horizon = horizon(
        store,
        &chosen.snapshot,
        &handle.block_on(keys(order, library, &chosen.snapshot)),
    );
    let mut plan = Plan::new(
        record,
        (chosen.snapshot, &encoded),
        chosen.has,
        order.satisfy.is_some().then_some(&chosen.asked),
        order.limit,
    )?;
    plan.left_out = collected.left_out;
    plan.parameters = collected.parameters;
    plan.horizon = horizon;
    plan.not_held = chosen.not_held;
    plan.whole = chosen.whole.or(is_lost.then_some(Whole::UnknownSite));
    Ok(plan)
}

/// The plan of a bundle with all of `snapshot`, for somebody who has nothing: what a site has in the end that takes the bundle in of which it is the
/// snapshot. The snapshot goes into `library`.
///
/// # Errors
/// [`BundleError`].
pub fn whole(
    library: &Library,
    snapshot: &Snapshot,
    (series, out): (&str, &Path),
    now: Timestamp,
) -> Result<Plan, BundleError> {
    let encoded = snapshot
        .encode()
        .map_err(BundleError::file("encoding the snapshot for", out))?;
    library.keep(&encoded)?;
    let record = next(library, out, (series, encoded.root, None), now)?;
    let answer = Answer::of(snapshot.clone());
    Plan::new(record, (answer.snapshot, &encoded), answer.has, None, None)
}

/// What the site has.
fn since(library: &Library, order: &Order, wanted: Option<&Wanted>) -> Result<Since, BundleError> {
    let since = match (&order.since, &order.satisfy, wanted) {
        (Some(since), ..) => Some(since.clone()),
        // A request file says what the site has.
        (None, Some(path), Some(wanted)) if names_ours(wanted, &order.series) => {
            Some(path.display().to_string())
        }
        (None, ..) => None,
    };
    match since {
        Some(since) => bases(library, &order.series, &since, (order.overlap, &order.sites)),
        None => Ok(Since::default()),
    }
}

/// Nothing switches from one series to another of its name by the way: other sites go by the one that is going on.
fn is_one_series(library: &Library, series: &str, place: Option<&Place>) -> Result<(), BundleError> {
    let records = library.records(Side::Exported, series)?;
    match (place, records.last()) {
        (Some(place), Some(last)) if last.series_id != place.series_id => Err(BundleError::OtherSeries {
            series: series.to_owned(),
            ours: last.series_id.clone(),
            theirs: place.series_id.clone(),
            folder: library.exported(series),
        }),
        _ => Ok(()),
    }
}

/// Where the folder of snapshots was lost, a document of the site still says which series goes on, and from where: what the site has is looked for in
/// the bundle that the document is of, and else taken to be nothing. True for the latter.
fn forget_lost(library: &Library, order: &Order, since: &mut Since) -> bool {
    let is_lost = |base: &Base| library.load(base.root).is_err();
    if since.place.is_none() || !since.bases.iter().any(is_lost) {
        return false;
    }
    let path = order.since.as_deref().map(Path::new);
    let folder = path.map(|path| path.parent().filter(|above| !above.as_os_str().is_empty()));
    let bundle = folder.and_then(|folder| Bundle::open(folder.unwrap_or(Path::new(".")), None).ok());
    let found = bundle
        .filter(|bundle| since.bases.iter().all(|base| base.root == bundle.header.root))
        .and_then(|bundle| snapshot_of(&bundle, Some(library)).ok()?.encode().ok());
    if found.is_some_and(|encoded| library.keep(&encoded).is_ok()) && !since.bases.iter().any(is_lost) {
        return false;
    }
    since.bases.clear();
    true
}

/// Which snapshot is sent to whom, where the store holds `now`.
fn choose(
    (store, library, handle): (&Store, &Library, &Handle),
    order: &Order,
    (wanted, bases): (Option<&Wanted>, Vec<Base>),
    now: Snapshot,
) -> Result<Answer, BundleError> {
    let now = match known(library, order, &bases)? {
        Some(known) => now.settled_on(&known),
        None => now,
    };
    let missing = |contents| Ok(handle.block_on(store.missing(contents))?);
    match wanted {
        Some(wanted) => answer(
            (library, &order.series),
            (wanted, bases),
            (now, &order.parameters),
            missing,
        ),
        None => Ok(Answer {
            has: Has::reachable(library, bases)?,
            ..Answer::of(now)
        }),
    }
}

/// The snapshot whose entries stay as they are where they were merely validated since: the one that the bundle begins from, else the last one that
/// left.
fn known(library: &Library, order: &Order, bases: &[Base]) -> Result<Option<Snapshot>, BundleError> {
    let records = library.records(Side::Exported, &order.series)?;
    let last = records.last().map(|last| last.root);
    // A request is answered on top of the last one that left.
    let root = match (bases.first(), &order.satisfy) {
        (Some(base), None) => Some(base.root),
        _ => last,
    };
    Ok(root.and_then(|root| library.load(root).ok()))
}

/// Whether the snapshot that a site has is one to begin from. One of another series is, and is refused, unless one of `series` waits there.
fn names_ours(wanted: &Wanted, series: &str) -> bool {
    let waits = wanted
        .pending
        .as_ref()
        .is_some_and(|waiting| waiting.series == series);
    wanted
        .have
        .as_ref()
        .is_some_and(|have| have.series == series || !waits)
}

/// The next record of `series`, or that of an interrupted run which would write the same.
///
/// Where there are no records, or they end before where the site stands, it goes on after that.
fn next(
    library: &Library,
    out: &Path,
    (series, root, place): (&str, Digest, Option<Place>),
    now: Timestamp,
) -> Result<Record, BundleError> {
    let records = library.records(Side::Exported, series)?;
    let last = records.last();
    let after = last
        .map(|last| last.seq)
        .max(place.as_ref().map(|place| place.seq))
        .unwrap_or_default();
    let is_new = last.is_none() && place.is_none();
    if let Some(lost) = numbers::lost(last, place.clone())
        && let Some(begun) = begun_for(out, (series, root), &lost)
    {
        return Ok(begun);
    }
    let found = if is_new {
        Some((new_series()?, 1))
    } else {
        numbers::next((series, out), last, place, now)?
    };
    let (series_id, seq) =
        found.ok_or_else(|| BundleError::UnknownBase(format!("{after}, after which no number comes")))?;
    let record = Record {
        series: series.to_owned(),
        series_id,
        seq,
        root,
        created: now,
    };
    Ok(begun(out, &record).unwrap_or(record))
}

/// The keys of archives that are known here; none where there is no archive.
async fn keys(order: &Order, library: &Library, snapshot: &Snapshot) -> Vec<RingKey> {
    if !has_suites(snapshot) {
        Vec::new()
    } else if order.keyrings.is_empty() {
        let kept = library.keyrings().unwrap_or_default();
        ring(&[kept, usual_keyrings()].concat()).await
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
