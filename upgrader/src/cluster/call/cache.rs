//! The cache that the nodes download through, and what came out of it in the end.

use std::collections::BTreeMap;

use kato_shared::api::Stats;
use url::Url;

use super::{Call, Reporter};
use crate::{
    cli::node::UpgradeRequest,
    cluster::{event::Traffic, remote::RemoteNode},
    exit::Failure,
    plan::cluster::ClusterPlan,
    prepare::{self, CacheDecision, profile},
};

/// The cache of this call.
#[derive(Debug)]
pub(super) struct Cache {
    decision: CacheDecision,
    /// Where its counters are, when it is ours.
    counters: Option<Url>,
    /// What they said when the nodes began.
    before: Option<Stats>,
    /// Bytes that crossed the line to fill it.
    fetched: u64,
}

impl Cache {
    /// Where it is; `None` when the nodes do without.
    pub(super) const fn url(&self) -> Option<&Url> {
        match &self.decision {
            CacheDecision::Use(url) => Some(url),
            CacheDecision::Skip { .. } => None,
        }
    }

    /// What the nodes got and what crossed the line for it; `None` where that cannot be told, also because the cache was started anew meanwhile.
    pub(super) async fn traffic(&self) -> Option<Traffic> {
        let before = self.before.as_ref()?;
        let after = prepare::counters(self.counters.as_ref()?).await?;
        Traffic::between(self.fetched, before, &after)
    }
}

impl Call<'_> {
    /// Makes the cache ready, and tells the nodes to do without where the site has a proxy of its own.
    pub(super) async fn cache(
        &self,
        nodes: BTreeMap<String, RemoteNode>,
        plan: &ClusterPlan,
        report: &dyn Reporter,
    ) -> Result<(BTreeMap<String, RemoteNode>, Cache), Failure> {
        let request = UpgradeRequest {
            version: Some(plan.target.clone()),
            ..self.request.clone()
        };
        let others: Vec<_> = plan.upgrades().filter_map(|node| node.from.clone()).collect();
        let ready = prepare::ensure(self.settings, &self.inventory, &request, &others, report).await?;
        self.note_line(ready.fetched_bytes, ready.millis);
        let mut cache = Cache {
            decision: ready.decision,
            counters: ready.counters,
            before: None,
            fetched: ready.fetched_bytes,
        };
        if let Some(url) = &cache.counters {
            cache.before = prepare::counters(url).await;
        }
        if let CacheDecision::Skip { reason } = &cache.decision {
            report.say(&format!("nodes download without a cache: {reason}"));
            let skip = vec![(profile::SKIP.to_owned(), "1".to_owned())];
            let nodes = nodes
                .into_iter()
                .map(|(id, node)| (id, node.with_env(skip.clone())));
            return Ok((nodes.collect(), cache));
        }
        Ok((nodes, cache))
    }
}
