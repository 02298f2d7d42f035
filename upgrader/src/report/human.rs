//! Events as a person reads them: a line when a step begins to matter, a bar while something large moves.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kato_shared::settings::byte_size::human as bytes;

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
        Self { bar, draws }
    }

    /// Shows one event.
    pub fn show(&self, event: &Event) {
        if let EventKind::Progress {
            subject, done, total, ..
        } = &event.kind
        {
            self.progress(subject, *done, *total);
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

    fn progress(&self, subject: &str, done: u64, total: u64) {
        let text = amount(subject, done, total);
        if self.draws {
            if self.bar.is_finished() {
                self.bar.reset();
            }
            self.bar.set_message(text);
            self.bar.tick();
        } else {
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
        // A count that goes down tells its number itself.
        (0, _) if subject.contains(' ') => subject.to_owned(),
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
