//! What the audit log says of a run: that it begins, before the first step; and how it ended. The id of the run is in both.

use kato_shared::chain::Chain;

use super::Session;
use crate::{
    audit::{AuditError, AuditLog, Deed, Outcome, Subject},
    run::{ending::Ending, engine::Stopped, event::EventKind},
};

impl Session {
    fn deed(&self, from: Option<&str>) -> Deed {
        let what = if self.start.kato_alone {
            Subject::UpdateKato
        } else {
            Subject::Upgrade
        };
        let about = match from {
            Some(from) => format!("{from} to {}", self.to),
            None => format!("to {}", self.to),
        };
        let deed = Deed::new(what, about)
            .run(self.id.clone())
            .forced(self.request.force)
            .tolerant(self.request.tolerant);
        if self.request.download_only {
            deed.detail("only", "download")
        } else {
            deed
        }
    }

    /// Records that the run begins.
    ///
    /// # Errors
    /// [`AuditError`]; the run must then not begin.
    pub(super) fn audit_begin(&self, from: Option<&str>) -> Result<(), AuditError> {
        AuditLog::of(&self.node)
            .note(&self.deed(from), Outcome::Begun)
            .map(drop)
    }

    /// Records how the run ended: one that had begun, and a forced one also when it was refused. What cannot be recorded is
    /// told; it must not hide how the run ended.
    pub(super) fn audit_end(&mut self, outcome: &Result<Ending, Stopped>) {
        let was_forced = self.request.force && !self.request.plan_only && outcome.is_err();
        if !self.begun && !was_forced {
            return;
        }
        let how = match outcome {
            Ok(Ending::Rebooting | Ending::Awaiting(_)) => Outcome::Paused,
            Ok(Ending::Done | Ending::Shown | Ending::Declined) => Outcome::Done,
            Err(stopped) => Outcome::failed(&stopped.failure),
        };
        if let Err(error) = AuditLog::of(&self.node).note(&self.deed(None), how) {
            let text = format!("the audit log: {}", Chain(&error));
            self.tell(EventKind::Warning { text });
        }
    }
}
