//! What upgrades took, remembered on Core for the next plan's estimate. Losing it costs a guess and nothing else, so that no call fails for it.

use std::path::PathBuf;

use kato_shared::{chain::Chain, durable};

use super::Call;
use crate::{
    cluster::event::{NodeResult, Outcome},
    document,
    plan::estimate::{History, Took},
};

/// The version of the document.
const SCHEMA: u32 = 1;

/// Less than this says more about the delay of the line than about its speed.
const WORTH_NOTING: u64 = 1 << 20;

impl Call<'_> {
    fn history_path(&self) -> PathBuf {
        self.paths().state_dir().join("state/history.json")
    }

    pub(super) fn history(&self) -> History {
        let found = document::read(&self.history_path(), "what earlier upgrades took");
        let found =
            found.inspect_err(|error| tracing::warn!(error = %Chain(error), "no earlier times are known"));
        found.ok().flatten().unwrap_or_default()
    }

    /// Notes how long the nodes took that this call brought all the way.
    pub(super) fn note_times(&self, results: &[NodeResult]) {
        let done = results
            .iter()
            .filter(|result| result.outcome == Outcome::Upgraded);
        let times = done.map(|result| (result.node.clone(), self.took(result.millis, 0)));
        let mut history = self.history();
        history.nodes.extend(times);
        self.remember(history);
    }

    /// Notes how fast the line to the upgrade host was.
    pub(super) fn note_line(&self, bytes: u64, millis: u64) {
        if bytes >= WORTH_NOTING {
            let line = Some(self.took(millis, bytes));
            self.remember(History {
                line,
                ..self.history()
            });
        }
    }

    fn took(&self, millis: u64, bytes: u64) -> Took {
        Took {
            millis,
            bytes,
            time: self.clock.now(),
        }
    }

    fn remember(&self, history: History) {
        let history = History {
            schema: SCHEMA,
            ..history
        };
        if let Err(error) = durable::write_json(&self.history_path(), &history, 0o644) {
            tracing::warn!(error = %Chain(&error), "the times of this upgrade are not remembered");
        }
    }
}
