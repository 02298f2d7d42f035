//! Whether what leaves the nodes of a batch has room on those that stay: the sum over the others, with the batch excluded.

use std::collections::BTreeMap;

use super::{
    preflight::{NodeProblem, Problem},
    survey::Survey,
};

/// What is known about the room for the work of the batches.
#[derive(Debug, Default)]
pub struct Judged {
    /// The batches whose work does not fit anywhere else, each as a problem of its first node.
    pub short: Vec<NodeProblem>,
    /// The drained nodes whose platform does not say how much they have.
    pub mute: Vec<String>,
    /// The batches whose work fits only if there is room on nodes that do not say, in words.
    pub unsure: Vec<String>,
}

/// Whether the work of each of `batches` has room elsewhere.
///
/// `out` are the nodes that are out of service already: nothing can move to them.
pub fn check(batches: &[Vec<String>], surveys: &BTreeMap<String, Survey>, out: &[String]) -> Judged {
    let drained = || surveys.iter().filter(|(_, survey)| survey.is_drained);
    let mut judged = Judged {
        mute: drained()
            .filter(|(_, survey)| survey.capacity.is_none())
            .map(|(id, _)| id.clone())
            .collect(),
        ..Judged::default()
    };
    for batch in batches {
        let known = |id: &String| {
            let survey = surveys.get(id).filter(|survey| survey.is_drained)?;
            survey.capacity
        };
        let leaves = batch.iter().filter_map(known).map(|capacity| capacity.used).sum();
        let stays = |id: &String| !batch.contains(id) && !out.contains(id);
        let room: u64 = drained()
            .filter(|(id, _)| stays(id))
            .filter_map(|(_, survey)| survey.capacity)
            .map(|capacity| capacity.free)
            .sum();
        if leaves <= room {
            continue;
        }
        // With somebody who does not say, there may be more room than we know of.
        let others: Vec<&str> = judged
            .mute
            .iter()
            .filter(|id| stays(id))
            .map(String::as_str)
            .collect();
        if others.is_empty() {
            judged.short.push(NodeProblem {
                node: batch.first().cloned().unwrap_or_default(),
                problem: Problem::Capacity {
                    batch: batch.clone(),
                    leaves,
                    room,
                },
            });
        } else {
            judged.unsure.push(format!(
                "what leaves {} is {leaves}, those that say have room for {room}: whether {} can take the rest is not known",
                batch.join(", "),
                others.join(", ")
            ));
        }
    }
    judged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::survey::{Capacity, tests::survey};

    fn worker(id: &str, capacity: Option<(u64, u64)>) -> (String, Survey) {
        let survey = Survey {
            is_drained: true,
            capacity: capacity.map(|(used, free)| Capacity { used, free }),
            ..survey(id)
        };
        (id.to_owned(), survey)
    }

    fn problems(workers: &[(&str, Option<(u64, u64)>)], batches: &[&[&str]], out: &[&str]) -> Vec<String> {
        let surveys = workers
            .iter()
            .map(|(id, capacity)| worker(id, *capacity))
            .collect();
        let owned = |ids: &[&str]| ids.iter().map(ToString::to_string).collect::<Vec<String>>();
        let batches: Vec<_> = batches.iter().map(|batch| owned(batch)).collect();
        let judged = check(&batches, &surveys, &owned(out));
        let short = judged.short.iter().map(|found| found.problem.to_string());
        short.chain(judged.unsure).collect()
    }

    #[test]
    fn r22_what_leaves_a_batch_must_have_room_on_the_others() {
        let three = [
            ("w1", Some((60, 40))),
            ("w2", Some((60, 40))),
            ("w3", Some((60, 40))),
        ];
        assert!(problems(&three, &[&["w1"], &["w2"], &["w3"]], &[]).is_empty());
        // Two at once: what leaves both has only the third.
        assert_eq!(
            problems(&three, &[&["w1", "w2"], &["w3"]], &[]),
            ["what leaves w1, w2 is 120, and the others have room for 40: 80 short"]
        );
        assert_eq!(
            problems(&three, &[&["w1"]], &["w2"]),
            ["what leaves w1 is 60, and the others have room for 40: 20 short"]
        );
    }

    #[test]
    fn r22_a_node_that_does_not_say_is_not_taken_for_full() {
        let some = [("w1", Some((60, 0))), ("w2", None)];
        assert_eq!(
            problems(&some, &[&["w1"], &["w2"]], &[]),
            [
                "what leaves w1 is 60, those that say have room for 0: whether w2 can take the rest is not known"
            ]
        );
        // One that is out of service can take nothing, whatever it would say.
        assert_eq!(
            problems(&some, &[&["w1"]], &["w2"]),
            ["what leaves w1 is 60, and the others have room for 0: 60 short"]
        );
        let alone = [("w1", Some((60, 0)))];
        assert_eq!(problems(&alone, &[&["w1"]], &[]).len(), 1);
    }
}
