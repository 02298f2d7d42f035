//! The event stream of a node: numbered lines in a file, and at the same time what the person at the terminal reads.

use std::path::{Path, PathBuf};

use kato_shared::clock::Clock;

use super::event::{Event, EventKind, SCHEMA};
use crate::{
    jsonl::{self, LinesError},
    notify::Watcher,
    report::Output,
};

/// The stream, open for a run.
#[derive(Debug)]
pub struct Stream {
    path: PathBuf,
    node: String,
    run: String,
    clock: Clock,
    last: u64,
    output: Output,
    watcher: Option<Watcher>,
}

impl Stream {
    /// Opens the stream for `run` on `node` and cuts off what a killed run left of its last line.
    ///
    /// # Errors
    /// [`LinesError`].
    pub fn open(
        path: &Path,
        node: &str,
        run: &str,
        clock: Clock,
        output: Output,
    ) -> Result<Self, LinesError> {
        let last = jsonl::open::<Event>(path)?.last().map_or(0, |event| event.seq);
        Ok(Self {
            path: path.to_owned(),
            node: node.to_owned(),
            run: run.to_owned(),
            clock,
            last,
            output,
            watcher: None,
        })
    }

    /// The same stream, whose events `watcher` sees as well.
    #[must_use]
    pub fn watched(mut self, watcher: Option<Watcher>) -> Self {
        self.watcher = watcher;
        self
    }

    /// The number of the last event.
    pub const fn last_seq(&self) -> u64 {
        self.last
    }

    /// Tells an event. One that cannot be written is logged: a run does not fail for want of an audience.
    pub fn tell(&mut self, kind: EventKind) {
        let event = Event {
            schema: SCHEMA,
            seq: self.last + 1,
            time: self.clock.now(),
            node: self.node.clone(),
            run: self.run.clone(),
            kind,
        };
        match jsonl::append(&self.path, &event) {
            Ok(()) => self.last += 1,
            Err(error) => {
                tracing::error!(error = %kato_shared::chain::Chain(&error), "an event could not be written");
            }
        }
        if let Some(watcher) = &self.watcher {
            watcher.see(&event);
        }
        self.output.show(&event);
    }
}
