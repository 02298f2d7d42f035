//! From a store to a snapshot: a walk over its index in the order of keys, in pages, so that serving goes on beside it.
//!
//! It is no transaction: what is stored or evicted meanwhile is in it or not. A suite of packages is never torn by that, since its parts
//! are in it by their digests.

use std::collections::BTreeMap;

use super::{Entry, LeftOut, Parameters, Snapshot};
use crate::store::{Store, StoreError};

/// Keys that are read at a time.
const PAGE: usize = 512;

/// What a walk found.
#[derive(Debug, Default)]
pub struct Collected {
    /// The entries.
    pub snapshot: Snapshot,
    /// How many responses stay here, by reason.
    pub left_out: BTreeMap<LeftOut, u64>,
    /// How many of them have which parameter that is not known, by upstream and parameter.
    pub parameters: BTreeMap<(String, String), u64>,
}

/// The snapshot of what `store` holds below `prefixes` of URLs, of everything when there are none; `allowed` parameters of queries may cross.
///
/// # Errors
/// [`StoreError`] when the index cannot be read.
pub async fn collect(
    store: &Store,
    prefixes: &[String],
    allowed: &Parameters,
) -> Result<Collected, StoreError> {
    let mut entries = Vec::new();
    let mut left_out = BTreeMap::new();
    let mut parameters = BTreeMap::new();
    let everything = [String::new()];
    for prefix in if prefixes.is_empty() {
        &everything[..]
    } else {
        prefixes
    } {
        let prefix = format!("GET {}", if prefix.is_empty() { "http" } else { prefix });
        let mut after = String::new();
        loop {
            let page = store.list(prefix.clone(), after.clone(), PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            after.clone_from(last);
            for (key, responses) in &page {
                for response in responses {
                    match Entry::new(key, response, allowed) {
                        Ok(entry) => entries.push(entry),
                        Err(stays) => {
                            *left_out.entry(stays.reason).or_default() += 1;
                            if let Some(name) = stays.parameter {
                                *parameters.entry((response.upstream.clone(), name)).or_default() += 1;
                            }
                        }
                    }
                }
            }
        }
    }
    Ok(Collected {
        snapshot: Snapshot::new(entries),
        left_out,
        parameters,
    })
}
