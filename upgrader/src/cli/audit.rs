//! `kato audit …`: what was done to this node, and whether the record of it is whole.

use clap::{Args, Subcommand};
use kato_shared::Digest;

use super::{Context, node::load};
use crate::{
    audit::{AuditLog, Head, Outcome, Record, Report},
    exit::{Exit, Failure},
    report::terminal,
    run::Node,
};

/// The version of the JSON form of `kato audit verify`.
const SCHEMA: u32 = 1;

/// Arguments of `kato audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: AuditCommand,
}

/// What can be done with the audit log.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Print the records, oldest first; with `--json` as they are.
    Show {
        /// Only so many of the newest.
        #[arg(short = 'n', long, value_name = "COUNT")]
        last: Option<usize>,
    },
    /// Check that no record was changed, removed or put in.
    Verify {
        /// A record that must be there, as a notification named it.
        #[arg(long, value_name = "NUMBER:SHA256", value_parser = expected)]
        expect: Vec<Head>,
        /// The last record that was archived: the log may begin after it.
        #[arg(long, value_name = "NUMBER:SHA256", value_parser = expected)]
        after: Option<Head>,
    },
}

/// `12:<hex>`.
fn expected(text: &str) -> Result<Head, String> {
    let (seq, sha256) = text
        .split_once(':')
        .ok_or_else(|| format!("expected NUMBER:SHA256, found `{text}`"))?;
    let seq = seq.parse().map_err(|error| format!("`{seq}`: {error}"))?;
    let sha256: Digest = sha256.parse().map_err(|error| format!("`{sha256}`: {error}"))?;
    Ok(Head::new(seq, sha256))
}

/// Runs a `kato audit` command.
///
/// # Errors
/// [`Failure`]: 21 for a log that is not whole.
pub fn run(args: &AuditArgs, context: &Context) -> Result<Exit, Failure> {
    let node = Node::new(load(context)?);
    let log = AuditLog::of(&node);
    let mut report = log.check()?;
    match &args.command {
        AuditCommand::Show { last } => {
            show(&report, *last, context.json);
            if !report.findings.is_empty() {
                terminal::say("warning: the log is not whole; `kato audit verify` says where");
            }
            Ok(Exit::Done)
        }
        AuditCommand::Verify { expect, after } => {
            if let Some(last) = after {
                report.begins_after(*last);
            }
            for head in expect {
                report.expect(&node.paths.audit(), *head);
            }
            verify(&report, context.json)
        }
    }
}

fn show(report: &Report, last: Option<usize>, json: bool) {
    let skip = last.map_or(0, |last| report.records.len().saturating_sub(last));
    for record in report.records.iter().skip(skip) {
        if json {
            terminal::json(record);
        } else {
            terminal::data(&line(record));
        }
    }
}

/// A record as a person reads it.
fn line(record: &Record) -> String {
    let what = serde_json::to_value(record.what).unwrap_or_default();
    let forced = if record.forced { ", forced" } else { "" };
    let reason = record
        .reason
        .as_ref()
        .map(|reason| format!(", because: {reason}"));
    let outcome = match &record.outcome {
        Outcome::Begun => "begun".to_owned(),
        Outcome::Done => "done".to_owned(),
        Outcome::Paused => "goes on later".to_owned(),
        Outcome::Failed { exit, message } => format!("failed ({}): {message}", exit.code()),
    };
    format!(
        "{} {} {}: {} {}{forced}{}: {outcome}",
        record.seq,
        record.time.strftime("%Y-%m-%d %H:%M:%S UTC"),
        record.who.text(),
        what.as_str().unwrap_or_default(),
        record.about,
        reason.unwrap_or_default(),
    )
}

fn verify(report: &Report, json: bool) -> Result<Exit, Failure> {
    let first = report.records.first().map(|record| record.seq);
    if json {
        terminal::json(&serde_json::json!({
            "schema": SCHEMA,
            "records": report.records.len(),
            "first": first,
            "head": report.head,
            "torn_bytes": report.torn_bytes,
            "findings": report.findings,
        }));
    } else {
        for finding in &report.findings {
            terminal::data(&format!(
                "{} line {}: {}",
                finding.file.display(),
                finding.line,
                finding.problem
            ));
        }
    }
    if report.findings.is_empty() {
        if !json {
            terminal::data(&whole(report, first));
        }
        return Ok(Exit::Done);
    }
    let problem = anyhow::anyhow!(
        "the audit log is not whole: {}",
        kato_shared::counted(report.findings.len(), "finding", "findings")
    );
    Err(Failure::new(Exit::Failed, problem)
        .hint("compare it with a copy, or with the numbers and digests that notifications carried"))
}

fn whole(report: &Report, first: Option<u64>) -> String {
    match (first, report.head) {
        (Some(first), Some(head)) => format!(
            "{} whole, {first} to {}; the last is {}:{}",
            kato_shared::counted(report.records.len(), "record is", "records are"),
            head.seq,
            head.seq,
            head.sha256.hex()
        ),
        _ => "there are no records yet".into(),
    }
}
