//! What a person reads of a rollout: lines, one moving line for the node at work where stderr is a terminal, and tables. Or,
//! with `--json`, one object a line.

use std::{fmt, sync::Mutex, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kato_shared::{release::Version, settings::byte_size::human};

use super::{
    event::{ClusterEvent, Line, NodeResult, Outcome, Traffic, Watcher},
    inventory::Inventory,
    next::Goal,
};
use crate::{
    plan::{
        cluster::{Action, ClusterPlan},
        preflight::NodeProblem,
        survey::AtRisk,
    },
    prepare::report::Report,
    report::terminal,
    run::event::{Event, EventKind},
};

/// Prints every line as JSON on stdout.
#[derive(Debug)]
pub struct Json;

impl Watcher for Json {
    fn on(&self, line: &Line) {
        terminal::json(line);
    }
}

/// Prints for people, on stderr.
pub struct Human {
    /// The moving line; hidden where stderr is no terminal.
    bar: ProgressBar,
    /// The last progress that was printed where nothing moves.
    last_tenth: Mutex<(String, u64)>,
}

impl fmt::Debug for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Human").finish_non_exhaustive()
    }
}

/// The step whose progress is in bytes; others count something, and name it with its number.
const DOWNLOADS: &str = "stage";

/// What a line means to a person.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// Stays on the screen.
    Stays(String),
    /// Is true for the moment; in a log it stays, too.
    Now(String),
    /// So much of so much.
    Progress { text: String, done: u64, total: u64 },
}

impl Default for Human {
    fn default() -> Self {
        let target = if terminal::draws() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Self {
            bar,
            last_tenth: Mutex::default(),
        }
    }
}

impl Human {
    /// Prints a line that stays, above the moving one.
    fn stays(&self, text: &str) {
        self.bar.suspend(|| terminal::say(text));
    }

    fn now(&self, text: String) {
        if self.bar.is_hidden() {
            terminal::say(&text);
        } else {
            self.bar.enable_steady_tick(Duration::from_millis(120));
            self.bar.set_message(text);
        }
    }

    /// A moving percentage, or in a log a line for each tenth.
    fn progress(&self, text: &str, done: u64, total: u64) {
        let amount = if total == 0 {
            human(done)
        } else {
            format!("{} of {}", human(done), human(total))
        };
        if !self.bar.is_hidden() {
            self.now(format!("{text}: {amount}"));
            return;
        }
        let tenth = done.saturating_mul(10).checked_div(total).unwrap_or(0);
        let mut last = self
            .last_tenth
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let (is_new, is_whole) = (last.0 != text, done == total);
        if *last != (text.to_owned(), tenth) {
            *last = (text.to_owned(), tenth);
            // What is whole at the first look was there already.
            if is_new && is_whole {
                return;
            }
            terminal::say(&format!("{text}: {amount}"));
        }
    }
}

impl Watcher for Human {
    fn on(&self, line: &Line) {
        match describe(line) {
            None => {}
            Some(Said::Stays(text)) => self.stays(&text),
            Some(Said::Now(text)) => self.now(text),
            Some(Said::Progress { text, done, total }) => self.progress(&text, done, total),
        }
        if let Line::Cluster {
            event: ClusterEvent::ClusterFinished { .. },
            ..
        } = line
        {
            self.bar.finish_and_clear();
        }
    }
}

impl Report for Human {
    fn say(&self, line: &str) {
        self.stays(line);
    }

    fn warn(&self, text: &str) {
        self.stays(&format!("warning: {text}"));
    }

    fn progress(&self, subject: &str, done: u64, total: u64) {
        self.progress(subject, done, total);
    }
}

impl Report for Json {
    fn say(&self, line: &str) {
        terminal::say(line);
    }

    fn warn(&self, text: &str) {
        terminal::say(&format!("warning: {text}"));
    }

    fn progress(&self, _subject: &str, _done: u64, _total: u64) {}
}

fn describe(line: &Line) -> Option<Said> {
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

fn shown(version: Option<&Version>) -> String {
    version.map_or_else(|| "none".into(), Version::to_string)
}

fn seconds(millis: u64) -> String {
    format!("{}.{} s", millis / 1000, millis % 1000 / 100)
}

/// The plan as lines for people.
pub fn plan_lines(plan: &ClusterPlan) -> Vec<String> {
    let header = ["", "node", "address", "version", "place"].map(String::from);
    let rows = plan.nodes.iter().zip(1..).map(|(node, number)| {
        let way = match node.action {
            Action::Upgrade => format!("{} → {}", shown(node.from.as_ref()), plan.target),
            Action::None => format!("{} (nothing to do)", plan.target),
            Action::LeftOut => format!("{} (left out)", shown(node.from.as_ref())),
        };
        [
            format!("{number}."),
            node.id.clone(),
            node.address.clone(),
            way,
            node.place.to_string(),
        ]
    });
    let mut lines = columns(std::iter::once(header).chain(rows));
    lines.extend(work_lines(plan));
    lines.extend(plan.warnings.iter().map(|text| format!("warning: {text}")));
    lines
}

/// What is fetched, what is upgraded together, and where the way back ends.
fn work_lines(plan: &ClusterPlan) -> Vec<String> {
    let mut lines = Vec::new();
    for node in plan.upgrades() {
        let Some(work) = &node.work else { continue };
        let between = work.hops.iter().filter(|hop| **hop != plan.target);
        let between: Vec<String> = between.map(Version::to_string).collect();
        let way = if between.is_empty() {
            String::new()
        } else {
            format!("by way of {}; ", between.join(", "))
        };
        lines.push(format!(
            "{}: {way}fetches {}, needs {} on its disks; no way back from {}{}",
            node.id,
            human(work.download_bytes),
            human(work.space_bytes),
            work.point_of_no_return,
            if work.is_drained { "; is emptied first" } else { "" },
        ));
        if let Some(risk) = work.at_risk.as_ref().filter(|risk| risk.count > 0) {
            lines.push(risk_line(&node.id, risk));
        }
    }
    let together: Vec<String> = plan
        .batches
        .iter()
        .filter(|batch| batch.len() > 1)
        .map(|batch| batch.join("+"))
        .collect();
    if !together.is_empty() {
        lines.push(format!("together: {}", together.join(", ")));
    }
    let bytes: u64 = plan
        .upgrades()
        .filter_map(|node| Some(node.work.as_ref()?.download_bytes))
        .sum();
    if bytes > 0 {
        lines.push(format!(
            "in all {} to the nodes, in {}",
            human(bytes),
            match plan.batches.len() {
                1 => "1 batch".to_owned(),
                count => format!("{count} batches"),
            }
        ));
    }
    if let Some(estimate) = &plan.estimate {
        let time = humantime::format_duration(Duration::from_secs(estimate.seconds));
        lines.push(format!("about {time}: {}", estimate.basis.join("; ")));
    }
    lines
}

/// Local changes that may not be in their place any more afterwards.
fn risk_line(node: &str, risk: &AtRisk) -> String {
    let named: Vec<String> = risk.first.iter().map(|path| path.display().to_string()).collect();
    let more = match risk.count.saturating_sub(named.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "{node}: {} local changes may be replaced, `kato customizations scan` there says how: {}{more}",
        risk.count,
        named.join(", ")
    )
}

/// What became of the nodes, as lines for people.
pub fn result_lines(results: &[NodeResult]) -> Vec<String> {
    let header = ["node", "before", "now", "time", ""].map(String::from);
    let rows = results.iter().map(|result| {
        let outcome = match result.outcome {
            Outcome::Upgraded => "upgraded",
            Outcome::AlreadyThere => "was there already",
            Outcome::Failed => "failed",
            Outcome::NotReached => "not reached",
            Outcome::LeftOut => "left out",
        };
        let time = if result.millis == 0 {
            "-".into()
        } else {
            seconds(result.millis)
        };
        [
            result.node.clone(),
            shown(result.from.as_ref()),
            shown(result.to.as_ref()),
            time,
            outcome.to_owned(),
        ]
    });
    columns(std::iter::once(header).chain(rows))
}

/// What keeps nodes from being upgraded, with what to do about each.
pub fn problem_lines(problems: &[NodeProblem], inventory: &Inventory) -> Vec<String> {
    problems
        .iter()
        .flat_map(|found| {
            let problem = format!("{}: {}", found.node, found.problem);
            let remedy = remedy(found, inventory);
            let remedy = (!remedy.is_empty()).then(|| format!("  hint: {remedy}"));
            std::iter::once(problem).chain(remedy)
        })
        .collect()
}

/// What to do about a problem; empty for a node that the inventory does not have.
pub fn remedy(found: &NodeProblem, inventory: &Inventory) -> String {
    let node = inventory.node(&found.node);
    node.map_or_else(String::new, |node| found.problem.remedy(node, &inventory.ssh))
}

/// What the cache was good for.
pub fn traffic_line(traffic: &Traffic) -> String {
    format!(
        "the nodes got {} from the cache, {} crossed the line to the upgrade hosts: {} saved",
        human(traffic.to_nodes),
        human(traffic.from_upstream),
        human(traffic.saved)
    )
}

/// Pads every column but the last to its widest cell.
pub(crate) fn columns<const N: usize>(rows: impl Iterator<Item = [String; N]>) -> Vec<String> {
    let rows: Vec<[String; N]> = rows.collect();
    let mut widths = [0_usize; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    rows.iter()
        .map(|row| {
            let padded: Vec<String> = row
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            padded.join("  ").trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_a_table() {
        let result = |node: &str, outcome, millis| NodeResult {
            node: node.into(),
            from: Some(Version::new(1, 0, 0)),
            to: Some(Version::new(2, 0, 0)),
            millis,
            outcome,
        };
        let lines = result_lines(&[
            result("w1", Outcome::Upgraded, 12_345),
            result("controller-1", Outcome::NotReached, 0),
        ]);
        assert_eq!(
            lines,
            [
                "node          before  now    time",
                "w1            1.0.0   2.0.0  12.3 s  upgraded",
                "controller-1  1.0.0   2.0.0  -       not reached",
            ]
        );
    }

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
