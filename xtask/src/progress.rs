//! Headings with the time that has passed, and the one line at the end.

use std::time::{Duration, Instant};

use anyhow::Result;

/// A run of several stages; a stage that fails is remembered and the next one still runs.
#[derive(Debug)]
pub(crate) struct Progress {
    name: &'static str,
    start: Instant,
    failed: Vec<String>,
    notes: Vec<String>,
}

impl Progress {
    /// Starts the clock.
    #[expect(
        clippy::disallowed_methods,
        reason = "elapsed time for headings; no decision rests on it"
    )]
    pub(crate) fn start(name: &'static str) -> Self {
        Self {
            name,
            start: Instant::now(),
            failed: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Prints a heading.
    pub(crate) fn heading(&self, title: &str) {
        println!("\n=== [{}] {title}", clock(self.start.elapsed()));
    }

    /// Prints a heading on stderr, where stdout belongs to somebody else.
    pub(crate) fn aside(&self, title: &str) {
        eprintln!("=== [{}] {title}", clock(self.start.elapsed()));
    }

    /// Runs one stage under its heading. Its failure is printed now and again in the summary.
    pub(crate) fn stage<T>(&mut self, title: &str, stage: impl FnOnce() -> Result<T>) -> Option<T> {
        self.heading(title);
        match stage() {
            Ok(value) => Some(value),
            Err(error) => {
                eprintln!("{title}: {error:#}");
                self.failed.push(title.to_owned());
                None
            }
        }
    }

    /// Adds to the summary line.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Prints the summary line.
    ///
    /// # Errors
    /// When a stage failed.
    pub(crate) fn finish(self) -> Result<(), crate::Stop> {
        let verdict = if self.failed.is_empty() { "ok" } else { "FAILED" };
        let mut parts = self.notes;
        if !self.failed.is_empty() {
            parts.insert(0, format!("failed: {}", self.failed.join(", ")));
        }
        let detail = if parts.is_empty() {
            String::new()
        } else {
            format!(": {}", parts.join("; "))
        };
        println!(
            "\n=== {} {verdict} in {}{detail}",
            self.name,
            clock(self.start.elapsed())
        );
        if self.failed.is_empty() {
            return Ok(());
        }
        Err(anyhow::anyhow!("{} failed", self.failed.join(", ")).into())
    }
}

/// `m:ss`.
fn clock(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elapsed_time_reads_as_minutes_and_seconds() {
        assert_eq!(clock(Duration::from_secs(0)), "0:00");
        assert_eq!(clock(Duration::from_secs(3_725)), "62:05");
    }

    #[test]
    fn one_failed_stage_fails_the_run_and_the_later_ones_still_run() {
        let mut progress = Progress::start("probe");
        assert_eq!(
            progress.stage("one", || -> Result<u8> { anyhow::bail!("broken") }),
            None
        );
        assert_eq!(progress.stage("two", || Ok(2)), Some(2));
        assert!(progress.finish().is_err());
    }
}
