//! What the preparation tells while it works. `--prepare` prints it; `--cluster` puts it among its own lines.

use std::{sync::Mutex, time::Duration};

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

/// Reports to stderr.
#[derive(Debug, Default)]
pub struct Lines {
    last: Mutex<Option<Instant>>,
}

/// A line of progress at most this often, so that a log stays readable.
const EVERY: Duration = Duration::from_secs(1);

impl Report for Lines {
    fn say(&self, line: &str) {
        terminal::say(line);
    }

    fn warn(&self, text: &str) {
        terminal::say(&format!("warning: {text}"));
    }

    fn progress(&self, subject: &str, done: u64, total: u64) {
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
