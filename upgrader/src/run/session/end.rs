//! The end of a run: what it took out of service is back, what it held is given back, and its last event is written.

use kato_shared::chain::Chain;

use super::Session;
use crate::{
    attempt::Attempt,
    exit::{Exit, Failure},
    fetch,
    journal::Act,
    report::terminal,
    resume::{self, ResumeUnit},
    run::{
        ending::{self, Ending, report_of},
        engine::Stopped,
        event::EventKind,
        room,
    },
    space::reserve,
};

impl Session {
    /// The end of the run, however it came: what we took out of service is back, and the last event is written.
    ///
    /// # Errors
    /// The failure that ended the run.
    pub(in crate::run) async fn finish(mut self, outcome: Result<Ending, Stopped>) -> Result<Exit, Failure> {
        let outcome = outcome.map_err(|Stopped { step, failure }| Stopped {
            step,
            failure: room::explain(&self.node, [], failure),
        });
        let (exit, error) = match &outcome {
            Ok(Ending::Rebooting | Ending::Awaiting(_)) => (Exit::TryAgain, None),
            Ok(Ending::Done | Ending::Shown) => (Exit::Done, None),
            Ok(Ending::Declined) => (Exit::Declined, None),
            Err(stopped) => {
                // A look puts nothing back: the run that it found interrupted does. What used the patience up after a signal has said so.
                if !self.request.plan_only
                    && self.may(None).put_back
                    && !self.node.stop.is_over()
                    && let Err(failure) = self.rejoined().await
                {
                    let text = terminal::describe(&failure);
                    self.tell(EventKind::Warning { text });
                }
                (stopped.failure.exit, Some(report_of(stopped)))
            }
        };
        let goes_on = self.unit_after(exit).await;
        self.give_space_back();
        self.audit_end(&outcome);
        let version = self.version.take();
        self.tell(EventKind::RunFinished { exit, version, error });
        if let Some((journal, _)) = &mut self.desk {
            // It must not hide how the run ended.
            if let Err(error) = journal.record(Act::Finished { exit }) {
                tracing::error!(error = %Chain(&error), "the end of the run could not be journalled");
            }
        }
        if let Some(notifier) = self.notifier.take() {
            notifier.close().await;
        }
        ending::exit(outcome, goes_on)
    }

    /// What was held for steps that did not come about.
    fn give_space_back(&mut self) {
        fetch::give_back(&self.node.paths.staging());
        if let Err(error) = reserve::give_all(&self.node.paths) {
            let text = format!("held space: {}", Chain(&error));
            self.tell(EventKind::Warning { text });
        }
    }

    /// The unit that goes on after a restart of the machine stays as long as the upgrade is in progress, whatever this run was about and however it
    /// ended; gives whether it does.
    async fn unit_after(&mut self, exit: Exit) -> bool {
        let Some(unit) = ResumeUnit::of(&self.node.paths, &self.node.children) else {
            return false;
        };
        // A record that cannot be read is one.
        let is_over = matches!(Attempt::load(&self.node.paths), Ok(None));
        if exit != Exit::TryAgain
            && is_over
            && let Err(error) = unit.remove().await
        {
            let text = format!("{} was not removed: {}", resume::UNIT, Chain(&error));
            self.tell(EventKind::Warning { text });
        }
        unit.is_there()
    }
}
