//! How long an upgrade of the cluster will take, as far as anything is known about it, and what the guess stands on. Pure.
//!
//! Two parts, one after the other: the files cross the line to the upgrade host once, at the configured or the last measured speed; and the
//! batches, each as long as its slowest node took last time. A node that was never timed counts as the mean of those that were. What nothing
//! is known about is said to be left out, and not guessed.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use kato_shared::settings::{ByteSize, byte_size::human};
use serde::{Deserialize, Serialize};

/// What earlier upgrades took: the document `state/history.json` on Core.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The version of this document.
    pub schema: u32,
    /// How long the last upgrade of each node took, in milliseconds as Core saw it.
    #[serde(default)]
    pub nodes: BTreeMap<String, Took>,
    /// What crossed the line to the upgrade host when the cache was last filled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<Took>,
}

/// Something that was timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Took {
    /// How long it took, in milliseconds.
    pub millis: u64,
    /// How many bytes it brought; 0 for a node.
    #[serde(default)]
    pub bytes: u64,
    /// When.
    pub time: Timestamp,
}

/// The guess.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// In all, in seconds.
    pub seconds: u64,
    /// What it stands on, and what is not in it.
    pub basis: Vec<String>,
}

/// The time for `bytes` from the upgrade host and then `batches`; `None` when nothing is known about either.
pub fn estimate(
    batches: &[Vec<String>],
    bytes: u64,
    configured: Option<ByteSize>,
    history: &History,
) -> Option<Estimate> {
    let (line, of_line) = line(bytes, configured, history.line.as_ref());
    let (nodes, of_nodes) = nodes(batches, &history.nodes);
    let known: Vec<Duration> = line.into_iter().chain(nodes).collect();
    (!known.is_empty()).then(|| Estimate {
        seconds: known.iter().sum::<Duration>().as_secs(),
        basis: [of_line, of_nodes].into_iter().flatten().collect(),
    })
}

/// How long the bytes take, and why.
fn line(
    bytes: u64,
    configured: Option<ByteSize>,
    measured: Option<&Took>,
) -> (Option<Duration>, Option<String>) {
    if bytes == 0 {
        return (None, None);
    }
    let last = measured.filter(|took| took.bytes > 0).map(|took| {
        let speed = u128::from(took.bytes) * 1000 / u128::from(took.millis.max(1));
        (
            u64::try_from(speed).unwrap_or(u64::MAX),
            "measured when the cache was last filled",
        )
    });
    let configured = configured.map(|speed| (speed.bytes(), "configured"));
    let Some((speed, source)) = configured.or(last).filter(|(speed, _)| *speed > 0) else {
        let basis = format!(
            "{} from the upgrade host are not in it: no speed is known",
            human(bytes)
        );
        return (None, Some(basis));
    };
    let time = Duration::from_secs(bytes.div_ceil(speed));
    let basis = format!(
        "{} s for {} from the upgrade host at {}/s ({source})",
        time.as_secs(),
        human(bytes),
        human(speed)
    );
    (Some(time), Some(basis))
}

/// How long the batches take, and why.
fn nodes(batches: &[Vec<String>], known: &BTreeMap<String, Took>) -> (Option<Duration>, Option<String>) {
    let all: Vec<&String> = batches.iter().flatten().collect();
    if all.is_empty() {
        return (None, None);
    }
    let timed: Vec<u64> = all.iter().filter_map(|id| Some(known.get(*id)?.millis)).collect();
    let Some(mean) = timed.iter().sum::<u64>().checked_div(timed.len() as u64) else {
        return (
            None,
            Some("the nodes are not in it: none of them was ever timed".into()),
        );
    };
    let of_batch = |batch: &Vec<String>| {
        let each = batch
            .iter()
            .map(|id| known.get(id).map_or(mean, |took| took.millis));
        each.max().unwrap_or(0)
    };
    let time = Duration::from_millis(batches.iter().map(of_batch).sum());
    let guessed = match all.len() - timed.len() {
        0 => String::new(),
        guessed => format!(", {guessed} of them by the mean of the others"),
    };
    let basis = format!(
        "{} s for {} in {}, by what they took last time{guessed}",
        time.as_secs(),
        kato_shared::counted(all.len(), "node", "nodes"),
        kato_shared::counted(batches.len(), "batch", "batches")
    );
    (Some(time), Some(basis))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(millis: u64, bytes: u64) -> Took {
        Took {
            millis,
            bytes,
            time: Timestamp::UNIX_EPOCH,
        }
    }

    fn batches(of: &[&[&str]]) -> Vec<Vec<String>> {
        of.iter()
            .map(|batch| batch.iter().map(ToString::to_string).collect())
            .collect()
    }

    #[test]
    fn what_is_not_known_is_left_out_and_said() {
        let nothing = History::default();
        assert_eq!(estimate(&batches(&[&["w1"]]), 1 << 20, None, &nothing), None);
        let some = estimate(&batches(&[&["w1"]]), 10 << 20, Some(ByteSize::mib(1)), &nothing).unwrap();
        assert_eq!(some.seconds, 10);
        assert!(some.basis[0].contains("configured"), "{some:?}");
        assert!(some.basis[1].contains("none of them was ever timed"), "{some:?}");
    }

    #[test]
    fn a_batch_takes_as_long_as_its_slowest_node_and_the_configured_speed_wins() {
        let history = History {
            schema: 1,
            nodes: [
                ("w1".to_owned(), took(10_000, 0)),
                ("w2".to_owned(), took(30_000, 0)),
            ]
            .into(),
            line: Some(took(2_000, 4 << 20)),
        };
        let two = batches(&[&["w1", "w2"], &["w3"]]);
        // 8 MiB at 2 MiB/s; 30 s for the first batch, 20 s (the mean) for the second.
        let measured = estimate(&two, 8 << 20, None, &history).unwrap();
        assert_eq!(measured.seconds, 4 + 30 + 20);
        assert!(measured.basis[0].contains("measured"), "{measured:?}");
        assert!(
            measured.basis[1].contains("1 of them by the mean"),
            "{measured:?}"
        );
        let configured = estimate(&two, 8 << 20, Some(ByteSize::mib(8)), &history).unwrap();
        assert_eq!(configured.seconds, 1 + 30 + 20);
    }
}
