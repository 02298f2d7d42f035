//! What a person reads of a rollout: lines, one moving line for the node at work where stderr is a terminal, and tables. Or,
//! with `--json`, one object a line.

mod said;
mod tables;

use std::{fmt, sync::Mutex, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kato_shared::settings::byte_size::human;

use self::said::{Said, describe};
pub(crate) use self::tables::columns;
pub use self::tables::{plan_lines, problem_lines, remedy, result_lines, traffic_line};
use super::event::{ClusterEvent, Line, Watcher};
use crate::{prepare::report::Report, report::terminal};

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
