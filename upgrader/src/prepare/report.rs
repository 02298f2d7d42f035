//! What the preparation tells while it works. `--prepare` prints it; `--cluster` puts it among its own lines.

use std::{sync::Mutex, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use kato_shared::settings::byte_size::human;
use tokio::time::Instant;

use crate::report::terminal;

/// Somebody who wants to know how it goes.
pub trait Report: Send + Sync {
    /// Something was done or decided.
    fn say(&self, line: &str);
    /// The operator should read this.
    fn warn(&self, text: &str);
    /// `done` of `total` bytes of `subject`; called often.
    fn progress(&self, subject: &str, done: u64, total: u64);
}

/// Reports to stderr: on a terminal with one moving line, else with a line now and then.
#[derive(Debug)]
pub struct Lines {
    /// Hidden where nothing can be drawn.
    bar: ProgressBar,
    last: Mutex<Option<Instant>>,
}

/// A line of progress at most this often, so that a log stays readable.
const EVERY: Duration = Duration::from_secs(1);

/// The moving line.
const TEMPLATE: &str = "  {msg} {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}";

impl Default for Lines {
    fn default() -> Self {
        let bar = if terminal::draws() {
            ProgressBar::no_length()
        } else {
            ProgressBar::hidden()
        };
        // The template is a constant; one that this version of the library refuses leaves its own.
        let style =
            ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_refused| ProgressStyle::default_bar());
        Self {
            bar: bar.with_style(style),
            last: Mutex::new(None),
        }
    }
}

impl Report for Lines {
    fn say(&self, line: &str) {
        // Before the first progress there is no moving line, and suspending it would draw an empty one.
        if self.bar.length().is_some() {
            self.bar.suspend(|| terminal::say(line));
        } else {
            terminal::say(line);
        }
    }

    fn warn(&self, text: &str) {
        self.say(&format!("warning: {text}"));
    }

    fn progress(&self, subject: &str, done: u64, total: u64) {
        if !self.bar.is_hidden() {
            self.bar.set_length(total);
            self.bar.set_message(terminal::flat(subject).into_owned());
            self.bar.set_position(done);
            if done >= total {
                self.bar.finish_and_clear();
            }
            return;
        }
        let now = Instant::now();
        let mut last = self
            .last
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.is_none_or(|last| now - last >= EVERY) {
            *last = Some(now);
            terminal::say(&format!("  {subject}: {} of {}", human(done), human(total)));
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
