//! From items to content: what is held is left out, the rest is measured, fetched several at a time, and looked for again at the end.

mod plan;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use kato_shared::backoff::Backoff;
use serde::Serialize;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{AskError, Cache, Failure, Gathered, Item, cache::Source};
pub use plan::Plan;

/// How often something that may succeed later is asked for.
const ATTEMPTS: u32 = 4;
/// How long something that was received may take to be stored: flushing takes milliseconds, on a busy disk a second.
const KEPT_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks for it.
const LOOKS_EVERY: Duration = Duration::from_millis(20);

/// How far it is. Shared with whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes received.
    pub bytes: AtomicU64,
    /// Items that are done, well or not.
    pub items: AtomicU64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The version of this document; 1.
    pub schema: u32,
    /// Documents that said what is needed; they are in the cache.
    pub documents: u64,
    /// Items that were held before.
    pub held: u64,
    /// Bytes of them.
    pub held_bytes: u64,
    /// Items that came now.
    pub fetched: u64,
    /// Bytes of them.
    pub fetched_bytes: u64,
    /// Paths at which there is nothing, which is known now.
    pub absent: Vec<String>,
    /// What could not be had.
    pub failures: Vec<Failure>,
    /// Whether some content was not what was promised.
    pub has_mismatch: bool,
}

/// Looks which items are held, `jobs` at a time.
///
/// # Errors
/// [`AskError`] when there is no cache.
pub async fn measure(cache: &Cache, gathered: &Gathered, jobs: usize) -> Result<Plan, AskError> {
    let mut looking = JoinSet::new();
    let permits = Arc::new(Semaphore::new(jobs.max(1)));
    for item in gathered.items().cloned() {
        let (cache, permits) = (cache.clone(), Arc::clone(&permits));
        looking.spawn(async move {
            let _permit = permits.acquire_owned().await;
            let held = cache.held(&item).await?;
            Ok::<_, AskError>((item, held))
        });
    }
    let mut plan = Plan::default();
    while let Some(looked) = looking.join_next().await {
        let Ok(looked) = looked else { continue };
        let (item, held) = looked?;
        let is_of_an_index = item.integrity.is_some() || item.size.is_some();
        match held {
            Some(bytes) if is_of_an_index => {
                plan.held += 1;
                plan.held_bytes += bytes;
            }
            Some(_) => plan.again.push(item),
            None => plan.missing.push(item),
        }
    }
    for items in [&mut plan.missing, &mut plan.again] {
        items.sort_by(|one, other| one.path.cmp(&other.path));
    }
    Ok(plan)
}

/// Fetches what is missing or may have changed, `jobs` at a time.
pub async fn fetch(
    cache: &Cache,
    plan: Plan,
    gathered: Gathered,
    (jobs, progress): (usize, Arc<Progress>),
) -> Summary {
    let mut summary = Summary {
        schema: 1,
        documents: gathered.documents,
        held: plan.held,
        held_bytes: plan.held_bytes,
        fetched: 0,
        fetched_bytes: 0,
        absent: Vec::new(),
        failures: gathered.failures,
        has_mismatch: false,
    };
    let mut fetching = JoinSet::new();
    let permits = Arc::new(Semaphore::new(jobs.max(1)));
    for item in plan.missing.into_iter().chain(plan.again) {
        let (cache, permits, progress) = (cache.clone(), Arc::clone(&permits), Arc::clone(&progress));
        fetching.spawn(async move {
            let _permit = permits.acquire_owned().await;
            let outcome = persistently(&cache, &item, &progress).await;
            progress.items.fetch_add(1, Ordering::Relaxed);
            (item, outcome)
        });
    }
    let mut failed = BTreeMap::new();
    while let Some(ended) = fetching.join_next().await {
        let Ok((item, outcome)) = ended else { continue };
        match outcome {
            Ok((bytes, Source::Store)) => {
                summary.held += 1;
                summary.held_bytes += bytes;
            }
            Ok((bytes, Source::Upstream { .. })) => {
                summary.fetched += 1;
                summary.fetched_bytes += bytes;
            }
            Err(error) if item.may_be_absent && error.is_absent() => summary.absent.push(item.path),
            Err(error) => {
                summary.has_mismatch |= error.is_mismatch();
                let failure = Failure {
                    subject: item.path.clone(),
                    why: kato_shared::chain::Chain(&error).to_string(),
                    is_temporary: error.is_temporary(),
                };
                failed.insert(item.path, failure);
            }
        }
    }
    summary.absent.sort();
    summary.failures.extend(failed.into_values());
    summary
}

/// Fetches one item, and again while that may help. Its bytes, and where they came from.
async fn persistently(cache: &Cache, item: &Item, progress: &Progress) -> Result<(u64, Source), AskError> {
    let mut attempt = 0;
    loop {
        let received = AtomicU64::new(0);
        let note = |length: u64| {
            let before = received.swap(length, Ordering::Relaxed);
            progress.bytes.fetch_add(length - before, Ordering::Relaxed);
        };
        match cache.drain(item, &note).await {
            Ok(source) => {
                kept(cache, item, source).await?;
                return Ok((received.into_inner(), source));
            }
            Err(error) if error.is_temporary() && attempt + 1 < ATTEMPTS => {
                // What came before it broke off comes again, quickly: the cache has it.
                progress.bytes.fetch_sub(received.into_inner(), Ordering::Relaxed);
                sleep(Backoff::NETWORK.wait_jittered(attempt)).await;
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Waits until the cache has what was received. A cache that passes on without keeping it what an index promises has no room, and is of no use here; of
/// the rest, it may find at the end that it is not to be kept.
async fn kept(cache: &Cache, item: &Item, source: Source) -> Result<(), AskError> {
    let is_promised = item.integrity.is_some();
    if !is_promised && source != (Source::Upstream { is_stored: true }) {
        return Ok(());
    }
    let end = Instant::now() + KEPT_WITHIN;
    while cache.held(item).await?.is_none() {
        if Instant::now() > end {
            if !is_promised {
                return Ok(());
            }
            return Err(AskError::Status {
                status: http::StatusCode::INSUFFICIENT_STORAGE,
                why: "it came, and the cache did not keep it: is max_size in the section [cache] too small, or its disk full?".into(),
            });
        }
        sleep(LOOKS_EVERY).await;
    }
    Ok(())
}
