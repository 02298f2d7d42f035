//! `kato status --watch`: every node's step, its speed and what it waits for, as it changes.
//!
//! At a terminal the table is drawn over itself; elsewhere a line is printed for each change, and with `--json` a whole document.
//! It ends when the work that it has seen is over, and at Ctrl-C; it is no part of the work.

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, stdout},
    path::Path,
    time::Duration,
};

use kato_shared::{settings::byte_size::human, shutdown};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    connect,
    facts::{self, Answers},
    inventory::Inventory,
    overview,
    remote::RemoteNode,
    report,
};
use crate::{
    exit::{Exit, Failure},
    lease::Standing,
    plan::facts::{NodeStatus, Progress, RunState},
    report::terminal,
    settings::Settings,
};

/// How long between two looks.
const PAUSE: Duration = Duration::from_secs(2);

/// The step whose progress is in bytes.
const DOWNLOADS: &str = "stage";

/// `kato status --watch`.
///
/// # Errors
/// As [`overview::status`].
pub async fn run(settings: &Settings, config: &Path, is_json: bool) -> Result<Exit, Failure> {
    let inventory = super::load(settings, config)?;
    super::refuse_off_core(settings, &inventory)?;
    let nodes = connect::ready(&inventory, settings, config).await?;
    let token = CancellationToken::new();
    let outcome = tokio::select! {
        outcome = follow(settings, &inventory, &nodes, is_json) => outcome,
        _twice = shutdown::on_signals(token.clone()) => Ok(Exit::Done),
        () = token.cancelled() => Ok(Exit::Done),
    };
    connect::close(&nodes).await;
    outcome
}

async fn follow(
    settings: &Settings,
    inventory: &Inventory,
    nodes: &BTreeMap<String, RemoteNode>,
    is_json: bool,
) -> Result<Exit, Failure> {
    let mut screen = Screen::new(!is_json && stdout().is_terminal());
    let mut speeds = Speeds::default();
    let mut was_at_work = false;
    let mut last = String::new();
    loop {
        let answers = overview::own_words(facts::gather(nodes.values()).await, inventory);
        let lease = overview::last_lease(settings);
        let is_at_work = lease
            .as_ref()
            .is_some_and(|(_, standing)| *standing != Standing::Free)
            || answers
                .facts
                .values()
                .any(|status| status.state == RunState::Running);
        if is_json {
            let document = overview::document(settings, inventory, &answers)?;
            if document != last {
                terminal::document(&document);
                last = document;
            }
        } else {
            let headline = overview::headline(&overview::Rollout::of(settings)?, inventory, &answers);
            screen.show(&headline, rows(inventory, &answers, &mut speeds, Instant::now()));
        }
        if was_at_work && !is_at_work {
            return Ok(Exit::Done);
        }
        was_at_work |= is_at_work;
        sleep(PAUSE).await;
    }
}

/// One node's line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    node: String,
    version: String,
    /// What changes seldom enough to be a line of its own.
    text: String,
    /// What changes at every look.
    speed: String,
}

fn rows(inventory: &Inventory, answers: &Answers, speeds: &mut Speeds, now: Instant) -> Vec<Row> {
    let row = |node: &super::inventory::InventoryNode| match answers.facts.get(&node.id) {
        None => Row {
            node: node.id.clone(),
            version: "?".into(),
            text: "no answer".into(),
            speed: String::new(),
        },
        Some(status) => Row {
            node: node.id.clone(),
            version: overview::version(status),
            text: overview::state(status),
            speed: speeds.of(status, now),
        },
    };
    inventory.nodes.iter().map(row).collect()
}

/// How fast nodes download, from one look to the next.
#[derive(Debug, Default)]
struct Speeds {
    seen: BTreeMap<String, (Instant, Progress)>,
}

impl Speeds {
    fn of(&mut self, status: &NodeStatus, now: Instant) -> String {
        let is_running = status.state == RunState::Running;
        let Some(progress) = status
            .progress
            .as_ref()
            .filter(|progress| is_running && progress.step == DOWNLOADS)
        else {
            self.seen.remove(&status.node);
            return String::new();
        };
        let amount = if progress.total == 0 {
            human(progress.done)
        } else {
            format!("{} of {}", human(progress.done), human(progress.total))
        };
        let before = self.seen.insert(status.node.clone(), (now, progress.clone()));
        match before.and_then(|(then, before)| speed(&before, progress, now - then)) {
            Some(speed) => format!("{amount}, {}/s", human(speed)),
            None => amount,
        }
    }
}

/// Bytes per second; `None` between two files.
fn speed(before: &Progress, now: &Progress, took: Duration) -> Option<u64> {
    let millis = u64::try_from(took.as_millis())
        .ok()
        .filter(|millis| *millis > 0)?;
    if before.subject != now.subject {
        return None;
    }
    let bytes = now.done.checked_sub(before.done)?;
    bytes.checked_mul(1000).map(|bytes| bytes / millis)
}

/// Where the lines go.
#[derive(Debug)]
struct Screen {
    draws: bool,
    /// How many lines stand on it, which the next ones replace.
    drawn: usize,
    said: BTreeMap<String, String>,
    headline: String,
}

impl Screen {
    const fn new(draws: bool) -> Self {
        Self {
            draws,
            drawn: 0,
            said: BTreeMap::new(),
            headline: String::new(),
        }
    }

    fn show(&mut self, headline: &str, rows: Vec<Row>) {
        let lines = if self.draws {
            if self.drawn > 0 {
                terminal::rewind(self.drawn);
            }
            self.table(headline, rows)
        } else {
            self.changes(headline, rows)
        };
        for line in lines {
            terminal::data(&line);
        }
    }

    /// The whole table, which replaces the one before.
    fn table(&mut self, headline: &str, rows: Vec<Row>) -> Vec<String> {
        let rows = rows
            .into_iter()
            .map(|row| [row.node, row.version, row.speed, row.text]);
        let mut lines = vec![headline.to_owned()];
        lines.extend(report::columns(rows));
        self.drawn = lines.len();
        lines
    }

    /// The lines that say something new.
    fn changes(&mut self, headline: &str, rows: Vec<Row>) -> Vec<String> {
        let mut lines = Vec::new();
        if self.headline != headline {
            headline.clone_into(&mut self.headline);
            lines.push(headline.to_owned());
        }
        for row in rows {
            let text = format!("{} {}", row.version, row.text);
            if self.said.get(&row.node) != Some(&text) {
                lines.push(format!("{}: {}", row.node, terminal::flat(&text)));
                self.said.insert(row.node, text);
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests;
