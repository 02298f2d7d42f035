//! What is wrong with a member, a file or a volume of a bundle: a matter of that one thing, while the rest is of use.

use std::collections::BTreeSet;

use kato_shared::Digest;
use serde::{Deserialize, Serialize};

use super::{header::Volume, medium::Bundle, tar::Name};
use crate::snapshot::Snapshot;

/// The most URLs that a finding names.
const NAMED: usize = 10;

/// What kind of wrong it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// It is not there: it may come later.
    Missing,
    /// It is there, and not what was signed.
    Wrong,
    /// The medium went away while it was read.
    Gone,
}

/// What is wrong with a file.
#[derive(Debug)]
pub(super) struct Problem {
    fault: Fault,
    text: String,
}

impl From<String> for Problem {
    fn from(text: String) -> Self {
        Self {
            fault: Fault::Wrong,
            text,
        }
    }
}

impl Problem {
    /// That there is nothing.
    pub(super) fn missing(text: &str) -> Self {
        Self {
            fault: Fault::Missing,
            text: text.to_owned(),
        }
    }

    /// That the medium is not there any more.
    pub(super) fn gone(text: String) -> Self {
        Self {
            fault: Fault::Gone,
            text,
        }
    }

    /// In words.
    pub(super) fn text(self) -> String {
        self.text
    }
}

/// Something that is wrong with a member or a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The member, or the file.
    pub what: String,
    /// The volume; none beside `BUNDLE.json`.
    pub volume: Option<String>,
    /// Whether it is missing or wrong.
    pub fault: Fault,
    /// What is wrong.
    pub problem: String,
    /// URLs that need it, as far as they are known; the first ten.
    pub urls: Vec<String>,
}

/// A finding about `what`, which may lie in `volume`.
pub(super) fn finding(what: &str, volume: Option<&Volume>, problem: impl Into<Problem>) -> Finding {
    let problem = problem.into();
    Finding {
        what: what.to_owned(),
        volume: volume.map(|volume| volume.file.clone()),
        fault: problem.fault,
        problem: problem.text,
        urls: Vec::new(),
    }
}

/// Names in `findings` about `bundle` the URLs of `snapshot` that are affected: of a member, or of all members of a volume.
pub(super) fn name_urls(findings: &mut [Finding], bundle: &Bundle, snapshot: &Snapshot) {
    for finding in findings {
        let volumes = bundle.header.volumes.iter();
        let lost: BTreeSet<Digest> = match volumes.clone().find(|volume| volume.file == finding.what) {
            Some(volume) => {
                let members = bundle.table.iter();
                let members = members.filter(|(_, member)| member.volume == volume.n);
                members.map(|(name, _)| name.digest()).collect()
            }
            None => Name::parse(&finding.what).iter().map(Name::digest).collect(),
        };
        let entries = snapshot.entries().iter();
        let affected = entries.filter(|entry| lost.contains(&entry.digest));
        finding.urls = affected.take(NAMED).map(|entry| entry.url().to_owned()).collect();
    }
}
