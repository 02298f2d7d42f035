//! The settings know better than the messages: said in the log at info once per upstream and rule, then at debug.

use std::{
    collections::{HashMap, HashSet},
    fmt::Display,
    sync::{PoisonError, RwLock},
};

use super::Pipeline;
use crate::route::Target;

/// The rules that were said aloud, each with its upstreams.
#[derive(Debug, Default)]
pub(super) struct Deviations(RwLock<HashMap<&'static str, HashSet<String>>>);

impl Deviations {
    /// Whether this is the first time for `upstream` and `rule`.
    fn is_first(&self, upstream: &str, rule: &'static str) -> bool {
        let is_known = {
            let said = self.0.read().unwrap_or_else(PoisonError::into_inner);
            said.get(rule)
                .is_some_and(|upstreams| upstreams.contains(upstream))
        };
        if is_known {
            return false;
        }
        let mut said = self.0.write().unwrap_or_else(PoisonError::into_inner);
        said.entry(rule).or_default().insert(upstream.to_owned())
    }
}

impl Pipeline {
    /// Says that `rule` changed what the messages alone would have decided about `target`.
    pub(super) fn deviates(&self, target: &Target, rule: &'static str, deviation: &dyn Display) {
        let upstream = target.upstream.name.as_str();
        let url = target.key.uri();
        if self.0.fills.deviations.is_first(upstream, rule) {
            tracing::info!(
                upstream,
                rule,
                url,
                %deviation,
                "the settings change caching decisions; from now on this is logged at debug"
            );
        } else {
            tracing::debug!(upstream, rule, url, %deviation, "the settings changed a caching decision");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_is_said_aloud_once_for_each_upstream() {
        let deviations = Deviations::default();
        assert!(
            deviations.is_first("a", "x") && deviations.is_first("a", "y") && deviations.is_first("b", "x")
        );
        assert!(!deviations.is_first("a", "x") && !deviations.is_first("b", "x"));
    }
}
