//! A step of a run: look, act, look again; and what to take back when the run ends early.

use async_trait::async_trait;

use super::Run;
use crate::exit::Failure;

/// What a step finds when it looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// There is something to do.
    Act,
    /// There is nothing to do, and why.
    Skip(String),
}

/// How an act ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acted {
    /// It is done.
    Done,
    /// The machine is restarting; a later run goes on from here.
    Rebooting,
}

/// A step.
#[async_trait]
pub trait Step: Send + Sync {
    /// Its name in plan, journal and events.
    fn name(&self) -> String;

    /// Whether it changes what runs on the node. From the first such step on, a failure leaves the failure marker.
    fn changes_node(&self) -> bool {
        false
    }

    /// Whether a signal ends it at once, in the middle of a command of the platform as well. A step that changes nothing of the
    /// node, or that the next run does once more, can be left anywhere, as by a kill; the others come to their end first.
    fn is_interruptible(&self) -> bool {
        !self.changes_node()
    }

    /// Whether the steps of its kind that follow are taken although it failed; the run then ends with its failure. Only asked on
    /// the way back.
    fn is_independent(&self) -> bool {
        false
    }

    /// Looks whether there is something to do. Changes nothing.
    async fn precheck(&self, _run: &mut Run) -> Result<Need, Failure> {
        Ok(Need::Act)
    }

    /// Does it. May be killed anywhere and called again.
    async fn act(&self, run: &mut Run) -> Result<Acted, Failure>;

    /// Confirms the effect by other means than the act's own word.
    async fn verify(&self, _run: &mut Run) -> Result<(), Failure> {
        Ok(())
    }

    /// Takes back what must not stay when a later step fails.
    async fn undo(&self, _run: &mut Run) -> Result<(), Failure> {
        Ok(())
    }
}
