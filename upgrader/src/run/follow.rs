//! Prints the event stream of this node after a number, and goes on while a run is alive: what an orchestrator attaches to.

use std::time::Duration;

use tokio::time::sleep;

use super::{Node, event::EventKind, status::at_work};
use crate::{
    exit::{Exit, Failure},
    report::terminal,
};

/// How often the stream is looked at.
const POLL: Duration = Duration::from_millis(200);

/// Prints all events after `after` as JSON lines; with `follow` until the run's last event.
///
/// Without a live run and without its last event the end is [`Exit::TryAgain`]: the run was cut off.
///
/// # Errors
/// [`Failure`] when the stream cannot be read.
pub async fn events(node: &Node, after: u64, follow: bool) -> Result<Exit, Failure> {
    let mut seen = after;
    loop {
        let (holder, events) = at_work(node)?;
        let mut finished = false;
        for event in events.iter().filter(|event| event.seq > seen) {
            terminal::json(event);
            finished = matches!(event.kind, EventKind::RunFinished { .. });
        }
        seen = events.last().map_or(seen, |event| event.seq.max(seen));
        if !follow || finished {
            return Ok(Exit::Done);
        }
        if holder.is_none() {
            // Nothing new and nobody who could write it; the last event was seen before, or never came.
            let ended = events
                .last()
                .is_some_and(|last| matches!(last.kind, EventKind::RunFinished { .. }));
            return Ok(if ended { Exit::Done } else { Exit::TryAgain });
        }
        sleep(POLL).await;
    }
}
