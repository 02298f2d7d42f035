//! Before an export: is all that was declared in the snapshot, and are the declared clients content with it?

use bytes::Bytes;
use kato_shared::{Digest, clock::Clock};

use super::{ExportArgs, Opened, args::RehearseArgs};
use crate::{
    bundle::{header::Proof, plan::Plan},
    cli::{explain, fail, print, tell},
    closure::{Declared, check},
    exit,
    rehearsal::{RehearsalError, Scratch, Stage, inside, rehearse},
};

/// The most findings that are printed.
const MOST_SHOWN: usize = 50;

/// What an export says about its completeness.
pub(super) struct Proofs {
    pub(super) closure: Proof,
    pub(super) rehearsal: Proof,
}

impl ExportArgs {
    /// What is declared; nothing where there is no file.
    pub(super) fn declared(&self) -> Result<Declared, u8> {
        let Some(path) = &self.declare else {
            return Ok(Declared::default());
        };
        Declared::read(path).map_err(|error| fail(exit::USAGE, &explain(&error)))
    }

    /// Checks and rehearses what is declared. What was not shown is waived by the operator's reasons, else this ends here.
    pub(super) fn prove(&self, opened: &Opened, plan: &Plan, declared: &Declared) -> Result<Proofs, u8> {
        Ok(Proofs {
            closure: self.judge(declared.subjects(), "what is declared to be there", || {
                Ok(self.closure(opened, plan, declared))
            })?,
            rehearsal: self.judge(commands(declared), "that clients are content with it", || {
                self.rehearsal(opened, plan, declared)
            })?,
        })
    }

    /// The proof for `subjects`, of which `findings` says what is wrong.
    fn judge(
        &self,
        subjects: Vec<String>,
        what: &str,
        findings: impl FnOnce() -> Result<Vec<String>, u8>,
    ) -> Result<Proof, u8> {
        let found = if subjects.is_empty() {
            None
        } else {
            Some(findings()?)
        };
        let is_ok = found.as_ref().is_some_and(Vec::is_empty);
        if !is_ok && self.waive.is_empty() {
            let why = if found.is_some() {
                "see above"
            } else {
                "nothing of the kind is in --declare"
            };
            return Err(fail(
                exit::REFUSED,
                &format!(
                    "not shown: {what} ({why})\nhint: fetch what is missing with `kato-proxy prefetch`, declare it, or say why not with --waive REASON"
                ),
            ));
        }
        Ok(Proof {
            ok: is_ok,
            declared: subjects,
            waived: if is_ok { Vec::new() } else { self.waive.clone() },
        })
    }

    fn closure(&self, opened: &Opened, plan: &Plan, declared: &Declared) -> Vec<String> {
        let content = |digest: &Digest| {
            let bytes = std::fs::read(opened.store.content_path(digest)).ok()?;
            (Digest::of(&bytes) == *digest).then(|| Bytes::from(bytes))
        };
        let report = check(&plan.snapshot, &content, &declared.what, &opened.indexes);
        if !self.plan.json {
            report.notes.iter().for_each(|note| tell(note));
            tell(&format!(
                "checked {} things, {} are missing",
                report.checked,
                report.gaps.len()
            ));
        }
        let gaps = report.gaps.into_iter();
        let gaps: Vec<String> = gaps
            .map(|gap| format!("missing {} ({})", gap.missing, gap.subject))
            .collect();
        show(&gaps);
        report
            .hints
            .iter()
            .for_each(|hint| tell(&format!("hint: {hint}")));
        gaps
    }

    fn rehearsal(&self, opened: &Opened, plan: &Plan, declared: &Declared) -> Result<Vec<String>, u8> {
        match self.rehearsed(opened, plan, declared) {
            Ok(findings) => {
                show(&findings);
                Ok(findings)
            }
            // That there was none is waived as well.
            Err(error) if !self.waive.is_empty() => {
                tell(&explain(&error));
                Ok(vec![error.to_string()])
            }
            Err(error) => Err(fail(exit::REFUSED, &explain(&error))),
        }
    }

    fn rehearsed(
        &self,
        opened: &Opened,
        plan: &Plan,
        declared: &Declared,
    ) -> Result<Vec<String>, RehearsalError> {
        let parties = (&opened.store, &opened.cache, opened.runtime.handle());
        let scratch = Scratch::fill(parties, &plan.snapshot, Clock::system().now())?;
        let stage = Stage {
            config: opened.config.clone(),
            store: scratch.store(),
            declaration: self.declare.clone().unwrap_or_default(),
        };
        let rehearsed = opened.runtime.block_on(rehearse(&stage, &declared.commands))?;
        Ok(rehearsed.findings().collect())
    }
}

fn commands(declared: &Declared) -> Vec<String> {
    let commands = declared.commands.iter();
    commands.map(|command| command.argv.join(" ")).collect()
}

fn show(findings: &[String]) {
    for finding in findings.iter().take(MOST_SHOWN) {
        tell(finding);
    }
    if let Some(more) = findings.len().checked_sub(MOST_SHOWN).filter(|more| *more > 0) {
        tell(&format!("… and {more} more"));
    }
}

/// `bundle rehearse`, which [`rehearse`] starts: says what came of the commands.
pub(super) fn rehearsed(args: &RehearseArgs) -> Result<u8, u8> {
    let declared = Declared::read(&args.declare).map_err(|error| fail(exit::USAGE, &explain(&error)))?;
    let (config, settings) = args.store.settled()?;
    let stage = Stage {
        config,
        store: settings.cache.dir,
        declaration: args.declare.clone(),
    };
    let runtime = super::event_loop()?;
    let rehearsed = runtime.block_on(inside(&stage, &declared.commands));
    let rehearsed = rehearsed.map_err(|error| fail(exit::REFUSED, &explain(&error)))?;
    print(&super::report::document(&rehearsed));
    Ok(exit::DONE)
}
