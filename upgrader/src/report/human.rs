//! Events as a person reads them: a line when a step begins to matter, a bar while something large moves. Where nobody watches
//! (a log, a pipe) the bar is a line now and then: see [`Seldom`].

use std::{sync::Mutex, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kato_shared::settings::byte_size::human as bytes;
use tokio::time::Instant;

use super::terminal;
use crate::{
    exit::Exit,
    run::event::{Event, EventKind},
};

/// The state of what is drawn.
#[derive(Debug)]
pub struct Human {
    bar: ProgressBar,
    draws: bool,
    seldom: Mutex<Seldom>,
}

/// How seldom progress is a line of its own: a server that drips would fill a log with nothing new.
const SELDOM: Duration = Duration::from_secs(10);

/// Which progress becomes a line.
#[derive(Debug, Default)]
struct Seldom {
    /// The step, when its last line was written (or when it began to move something), and that line.
    last: Option<(String, Instant, String)>,
}

impl Seldom {
    /// Whether `line` of `step` is written at `now`: what is complete always, what moves after a while, what is waited for at
    /// once, and nothing twice.
    fn admits(&mut self, step: &str, line: &str, stage: Stage, now: Instant) -> bool {
        let known = self.last.as_ref().filter(|(of, ..)| of == step);
        let admits = match known {
            Some((.., before)) if before == line => false,
            Some((_, since, _)) => stage == Stage::Complete || now.duration_since(*since) >= SELDOM,
            None => stage != Stage::Moving,
        };
        if admits || known.is_none() {
            let line = if admits { line } else { "" };
            self.last = Some((step.to_owned(), now, line.to_owned()));
        }
        admits
    }
}

/// How far something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Bytes move.
    Moving,
    /// All of them are there.
    Complete,
    /// Something is waited for, or counted down.
    Waiting,
}

impl Stage {
    fn of(subject: &str, done: u64, total: u64) -> Self {
        match (done, total) {
            (_, 0) => Self::Waiting,
            (0, _) if is_count(subject) => Self::Waiting,
            (done, total) if done == total => Self::Complete,
            _ => Self::Moving,
        }
    }
}

/// A count that goes down tells its number itself; what moves has the name of a file.
fn is_count(subject: &str) -> bool {
    subject.contains(' ')
}

impl Human {
    /// Draws on stderr when it is a terminal; else prints plain lines.
    pub fn new() -> Self {
        let draws = terminal::draws();
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        if draws {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {wide_msg}") {
            bar.set_style(style);
        }
        Self {
            bar,
            draws,
            seldom: Mutex::default(),
        }
    }

    /// Shows one event.
    pub fn show(&self, event: &Event) {
        if let EventKind::Progress {
            step,
            subject,
            done,
            total,
        } = &event.kind
        {
            self.progress(step, subject, (*done, *total));
        } else if let Some(line) = line(&event.kind) {
            self.bar.suspend(|| terminal::say(&line));
        }
        if matches!(
            event.kind,
            EventKind::StepFinished { .. } | EventKind::RunFinished { .. }
        ) {
            self.bar.finish_and_clear();
        }
    }

    fn progress(&self, step: &str, subject: &str, (done, total): (u64, u64)) {
        let text = amount(subject, done, total);
        if self.draws {
            if self.bar.is_finished() {
                self.bar.reset();
            }
            self.bar.set_message(terminal::flat(&text).into_owned());
            self.bar.tick();
            return;
        }
        let stage = Stage::of(subject, done, total);
        if self
            .seldom
            .lock()
            .is_ok_and(|mut seldom| seldom.admits(step, &text, stage, Instant::now()))
        {
            terminal::say(&format!("    {text}"));
        }
    }
}

impl Default for Human {
    fn default() -> Self {
        Self::new()
    }
}

fn amount(subject: &str, done: u64, total: u64) -> String {
    match (done, total) {
        (_, 0) => subject.to_owned(),
        (0, _) if is_count(subject) => subject.to_owned(),
        (done, total) if done == total => format!("{subject}  {}", bytes(total)),
        (done, total) => format!("{subject}  {} of {}", bytes(done), bytes(total)),
    }
}

/// The line of an event; `None` for one that needs none.
pub fn line(kind: &EventKind) -> Option<String> {
    Some(match kind {
        EventKind::RunStarted { from, to } => match (from, to.split_once('+')) {
            (Some(from), Some((_, patches))) if patches.contains('.') => {
                format!("patches {} on {from}", patches.replace('.', ", "))
            }
            (Some(from), Some((_, patch))) => format!("patch {patch} on {from}"),
            (Some(from), None) if from.contains('+') => {
                format!("taking back patch {}", from.replace(&format!("{to}+"), ""))
            }
            (Some(from), None) => format!("upgrading from {from} to {to}"),
            (None, _) => format!("installing {to}"),
        },
        EventKind::StepStarted { step } => format!("  {step}"),
        EventKind::StepSkipped { step, reason } => format!("  {step}: skipped, {reason}"),
        EventKind::StepFinished { step, millis } if *millis >= 1000 => {
            format!("  {step}: done in {}.{} s", millis / 1000, millis % 1000 / 100)
        }
        EventKind::Warning { text } => format!("  warning: {text}"),
        EventKind::Notice { text } => format!("note: {text}"),
        EventKind::RunFinished {
            exit: Exit::Done,
            version,
            ..
        } => match version {
            Some(version) => format!("done: this node runs {version}"),
            None => "done".into(),
        },
        // What took no time needs no second line; an error is printed when the program ends.
        EventKind::StepFinished { .. } | EventKind::Progress { .. } | EventKind::RunFinished { .. } => {
            return None;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c11_a_line_that_drips_fills_no_log() {
        let mut seldom = Seldom::default();
        let began = Instant::now();
        let mut lines = Vec::new();
        // An hour, with a word every half second: first a head that does not come, then a body that hardly does.
        for tick in 0_u64..7200 {
            let now = began + Duration::from_millis(tick * 500);
            let done = tick.saturating_sub(3600);
            let text = amount("web.tar.zst", done, 1 << 20);
            let stage = Stage::of("web.tar.zst", done, 1 << 20);
            if seldom.admits("stage", &text, stage, now) {
                lines.push(text);
            }
        }
        assert!(lines.len() <= 181, "{}", lines.len());
        assert_eq!(lines[0], "web.tar.zst  0 B of 1.0 MiB");
        assert!(
            lines[1].starts_with("web.tar.zst  1 B"),
            "nothing is said twice: {lines:?}"
        );
    }

    #[test]
    fn what_is_complete_and_what_is_waited_for_is_said_at_once() {
        let mut seldom = Seldom::default();
        let now = Instant::now();
        let mut said = |step: &str, subject: &str, amounts: (u64, u64)| {
            let stage = Stage::of(subject, amounts.0, amounts.1);
            seldom.admits(step, &amount(subject, amounts.0, amounts.1), stage, now)
        };
        assert!(!said("stage", "a", (1, 2)));
        assert!(said("stage", "a", (2, 2)) && said("stage", "b", (7, 7)));
        assert!(said("retire", "3 units of work are left", (0, 3)));
        assert!(
            !said("retire", "2 units of work are left", (0, 2)),
            "not so soon after"
        );
        assert!(said("verify", "waiting for health: not yet", (0, 0)));
    }

    #[test]
    fn lines_are_short_and_say_what_happens() {
        let started = EventKind::RunStarted {
            from: Some("1.0.0".into()),
            to: "2.0.0".into(),
        };
        assert_eq!(line(&started).as_deref(), Some("upgrading from 1.0.0 to 2.0.0"));
        for (from, to, expected) in [
            ("1.0.0", "1.0.0+one", "patch one on 1.0.0"),
            ("1.0.0", "1.0.0+one.two", "patches one, two on 1.0.0"),
            ("1.0.0+one", "1.0.0", "taking back patch one"),
        ] {
            let (from, to) = (Some(from.to_owned()), to.to_owned());
            assert_eq!(
                line(&EventKind::RunStarted { from, to }).as_deref(),
                Some(expected)
            );
        }
        let slow = EventKind::StepFinished {
            step: "stage".into(),
            millis: 1234,
        };
        assert_eq!(line(&slow).as_deref(), Some("  stage: done in 1.2 s"));
        assert_eq!(amount("web", 512, 1024), "web  512 B of 1.0 KiB");
        assert_eq!(
            amount("3 units of work are left", 0, 3),
            "3 units of work are left"
        );
    }
}
