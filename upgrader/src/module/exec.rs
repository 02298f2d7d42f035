//! `exec`: a command that changes the node by itself, such as a migration.
//!
//! The contract: `probe` ends with 0 when the command is not needed or was successful, so the command runs at most until its
//! probe says so; one that was killed half way is run again and must bear that. `undo` takes it back and is likewise run
//! until the probe says otherwise. Programs that begin with `./` are taken from the module's archive, which stays unpacked
//! until the upgrade is recorded.

use std::path::Path;

use super::{
    Job, ModuleError, Report,
    child::Line,
    undo::{Act, Note},
};
use crate::{
    failpoint,
    platform::{Services, process::ProcessError},
};

/// The three commands of a module.
#[derive(Debug, Clone, Copy)]
pub(super) struct Commands<'a> {
    pub(super) cmd: &'a [String],
    pub(super) probe: &'a [String],
    pub(super) undo: &'a [String],
}

pub(super) async fn install(job: &Job<'_>, commands: Commands<'_>) -> Result<Report, ModuleError> {
    let content = job.content();
    let mut note = Note::open(job, true)?;
    note.leftover(&content);
    note.save(job.paths)?;
    job.unpack_content()?;
    let mut report = Report::default();
    if is_done(job, commands.probe).await? {
        report
            .lines
            .push("its probe says that there is nothing to do".to_owned());
        return Ok(report);
    }
    if !commands.undo.is_empty() {
        let act = Act::Command {
            line: line(job, "undo", commands.undo),
            probe: line(job, "probe", commands.probe),
        };
        note.act(act, job.module.timeout.get());
        note.save(job.paths)?;
    }
    let what = format!("the command of the module {}", job.module.name);
    line(job, "cmd", commands.cmd)
        .run(&job.children.with(Services::None), &what, job.deadline)
        .await?;
    failpoint::hit("exec.acted");
    Ok(report)
}

pub(super) async fn check(job: &Job<'_>, probe: &[String]) -> Result<(), ModuleError> {
    if is_done(job, probe).await? {
        return Ok(());
    }
    Err(ModuleError::Undone {
        module: job.module.name.clone(),
        problem: format!("`{}` says that the command is still needed", probe.join(" ")),
    })
}

/// Asks the probe. A probe that cannot be run, or does not end in time, answers nothing.
async fn is_done(job: &Job<'_>, probe: &[String]) -> Result<bool, ModuleError> {
    let limit = job
        .deadline
        .saturating_duration_since(tokio::time::Instant::now());
    let what = format!("the probe of the module {}", job.module.name);
    match line(job, "probe", probe)
        .ask(&job.children.on(&what).with(Services::None), limit)
        .await
    {
        Ok(_) => Ok(true),
        // 126 and 127 are those of `env`: there is no such program.
        Err(ProcessError::Status { status, .. })
            if status.code().is_some_and(|code| code != 126 && code != 127) =>
        {
            Ok(false)
        }
        Err(source) => Err(ModuleError::Command { what, source }),
    }
}

/// `argv` with the words that every command of a module is told.
fn line(job: &Job<'_>, phase: &str, argv: &[String]) -> Line {
    let content = job.content();
    let shown = |path: &Path| path.display().to_string();
    let from = job.attempt.from.as_ref().map(ToString::to_string);
    let words = [
        ("KATO_PHASE", phase.to_owned()),
        ("KATO_MODULE", job.module.name.clone()),
        ("KATO_NODE", job.node.to_owned()),
        ("KATO_ROOT", shown(job.paths.root())),
        ("KATO_DIR", shown(&content)),
        ("KATO_FROM", from.unwrap_or_default()),
        ("KATO_VERSION", job.release().version.to_string()),
    ];
    let mut argv = argv.to_vec();
    if let Some(first) = argv.first_mut()
        && let Some(own) = first.strip_prefix("./")
    {
        *first = shown(&content.join(own));
    }
    Line {
        env: words
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect(),
        argv,
    }
}
