//! What a test has passed and cut off, for the summary of `cargo xtask test -- crash`: one JSON file a test.

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::{Result, ensure};
use kato_shared::durable;
use serde::Serialize;

use crate::stage::Visit;

/// The file of one test, in `target/tmp/crash`.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    scenario: String,
    /// What was done at each place, in the past tense: `killed`, `full`, `cut`.
    what: &'static str,
    part: usize,
    /// The places that an undisturbed run passes.
    places: BTreeSet<String>,
    /// Where it was done, `<call> <place>:<n>`.
    done: Vec<String>,
    /// What was different after the same calls again.
    differences: Vec<String>,
}

impl Report {
    pub(crate) fn new(scenario: &str, what: &'static str, part: usize, visits: &[Visit]) -> Self {
        Self {
            scenario: scenario.to_owned(),
            what,
            part,
            places: visits.iter().map(|visit| visit.place().to_owned()).collect(),
            done: Vec::new(),
            differences: Vec::new(),
        }
    }

    /// It was done at `visit`, and `found` was different afterwards.
    pub(crate) fn took(&mut self, visit: &Visit, found: Vec<String>) {
        let at = format!("{} {}", visit.call, visit.name);
        let (scenario, what) = (&self.scenario, self.what);
        self.differences.extend(
            found
                .into_iter()
                .map(|found| format!("{scenario} {what} at {at}: {found}")),
        );
        self.done.push(at);
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When there was a difference.
    pub(crate) fn close(self) -> Result<()> {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("crash");
        durable::create_folder(&folder)?;
        let name = format!("{}-{}-{}.json", self.scenario, self.what, self.part);
        durable::write_json(&folder.join(name), &self, 0o644)?;
        ensure!(
            !self.done.is_empty(),
            "{}: nothing was {}",
            self.scenario,
            self.what
        );
        ensure!(self.differences.is_empty(), "{:#?}", self.differences);
        Ok(())
    }
}
