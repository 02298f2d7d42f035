//! What a line of a rollout means to a person: whether it stays, is true for the moment, or is so much of so much.

use super::tables::{seconds, shown};
use crate::{
    cluster::{
        event::{ClusterEvent, Line},
        next::Goal,
    },
    run::event::{Event, EventKind},
};

/// The step whose progress is in bytes; others count something, and name it with its number.
const DOWNLOADS: &str = "stage";

/// What a line means to a person.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Stays on the screen.
    Stays(String),
    /// Is true for the moment; in a log it stays, too.
    Now(String),
    /// So much of so much.
    Progress { text: String, done: u64, total: u64 },
}

/// What `line` means; `None` for what other lines say better.
pub(super) fn describe(line: &Line) -> Option<Said> {
    match line {
        Line::Node(event) => of_node(event),
        Line::Cluster { event, .. } => of_cluster(event),
    }
}

fn of_node(event: &Event) -> Option<Said> {
    let node = &event.node;
    match &event.kind {
        EventKind::StepStarted { step } => Some(Said::Now(format!("{node}: {step}"))),
        EventKind::StepSkipped { step, reason } => {
            Some(Said::Stays(format!("{node}: {step} skipped: {reason}")))
        }
        EventKind::Progress {
            step,
            subject,
            done,
            total,
        } if step == DOWNLOADS => Some(Said::Progress {
            text: format!("{node}: {subject}"),
            done: *done,
            total: *total,
        }),
        EventKind::Progress { step, subject, .. } => Some(Said::Now(format!("{node}: {step}: {subject}"))),
        EventKind::Warning { text } => Some(Said::Stays(format!("{node}: warning: {text}"))),
        EventKind::Notice { text } => Some(Said::Stays(format!("{node}: notice: {text}"))),
        // The rollout's own events say it better.
        EventKind::RunStarted { .. } | EventKind::StepFinished { .. } | EventKind::RunFinished { .. } => None,
    }
}

fn of_cluster(event: &ClusterEvent) -> Option<Said> {
    let text = match event {
        ClusterEvent::ClusterStarted { plan, continued } => {
            let verb = if *continued { "continuing" } else { "following" };
            format!("{verb} plan {} to {}", plan.id, plan.target)
        }
        // Of a single node, its own start says it.
        ClusterEvent::BatchStarted { nodes } if nodes.len() < 2 => return None,
        ClusterEvent::BatchStarted { nodes } => format!("together: {}", nodes.join(", ")),
        ClusterEvent::ClusterPaused { since, reason } => format!(
            "paused since {since:.0}{}; no further node is begun until `kato cluster resume`",
            reason
                .as_ref()
                .map_or_else(String::new, |reason| format!(" ({reason})"))
        ),
        ClusterEvent::ClusterResumed => "goes on".into(),
        ClusterEvent::SoakStarted { nodes, seconds } => {
            format!("{}: watched for {seconds} s before the next", nodes.join(", "))
        }
        ClusterEvent::NodeNotCordoned { node, detail } => {
            format!("{node}: not taken out of service yet: {detail}")
        }
        ClusterEvent::NodeSkipped { node, version } => format!("{node}: at {version} already"),
        ClusterEvent::NodeStarted {
            node,
            goal: Goal::Stage,
            ..
        } => format!("{node}: fetching what it needs"),
        ClusterEvent::NodeStarted { node, run, .. } => format!("{node}: upgrading (run {run})"),
        ClusterEvent::NodeAttached { node, run } => format!("{node}: run {run} is at work; following it"),
        ClusterEvent::NodeLost { node, detail } => {
            format!("{node}: {detail}; its work goes on, calling again")
        }
        ClusterEvent::NodeBack { node } => format!("{node}: answers again"),
        ClusterEvent::NodeInterrupted { node, run } => {
            format!("{node}: run {run} was killed; resuming it")
        }
        ClusterEvent::NodeFinished { node, result } => format!(
            "{node}: {} → {} in {}",
            shown(result.from.as_ref()),
            shown(result.to.as_ref()),
            seconds(result.millis)
        ),
        ClusterEvent::NodeFailed { node, error, .. } => {
            format!("{node}: failed at {}: {}", error.step, error.message)
        }
        // Said as a list with remedies, and as a table.
        ClusterEvent::ClusterRefused { .. } | ClusterEvent::ClusterFinished { .. } => return None,
    };
    Some(Said::Stays(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_node_is_said_to_go_on() {
        let line = Line::from(ClusterEvent::NodeLost {
            node: "w1".into(),
            detail: "the connection to w1 (10.0.0.3) was lost: timeout".into(),
        });
        let Some(Said::Stays(text)) = describe(&line) else {
            panic!("{line:?}")
        };
        assert!(text.contains("its work goes on"), "{text}");
    }
}
