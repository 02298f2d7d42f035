//! What the verbs of `bundle` print: lines for people, or one JSON document.

use std::path::Path;

use jiff::Timestamp;
use kato_shared::settings::byte_size::human;
use serde_json::{Value, json};

use crate::{
    archive_keys::standing,
    bundle::{
        Bundle, Fault, Finding, Whole,
        export::{Exported, Written},
        import::Imported,
        plan::Plan,
        verify::Report,
    },
};

/// Groups that a plan lists.
const LISTED: usize = 40;

/// Speed of a USB stick of the common kind, by which times are told, in bytes a second.
const SPEED: u64 = 30_000_000;

/// What would be carried, and what of it is over `now`, or soon will be.
pub(super) fn plan(plan: &Plan, now: Timestamp, is_json: bool) -> String {
    if is_json {
        return document(&summary(plan));
    }
    let mut text = vec![format!(
        "bundle      {}\nkind        {:?}\nsnapshot    {} responses, {} contents\nnew         {} contents, {} on the medium, {} seconds at 30 MB/s\n",
        crate::bundle::header::name(&plan.record.series, plan.record.seq),
        plan.kind,
        plan.snapshot.entries().len(),
        plan.snapshot.contents().len(),
        plan.blobs.len(),
        human(plan.size()),
        plan.size().div_ceil(SPEED),
    )];
    if !plan.volumes.is_empty() {
        text.push(format!("volumes     {}\n", plan.volumes.len()));
    }
    for (group, count, bytes) in plan.by_group().into_iter().take(LISTED) {
        text.push(format!("  {:>10}  {count:>7}  {group}\n", human(bytes)));
    }
    for (reason, count) in &plan.left_out {
        text.push(format!("left out    {count}: {reason}\n"));
    }
    text.extend(parameters(plan));
    text.extend(asked(plan));
    for suite in &plan.horizon {
        let shown = |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), |time| time.to_string());
        let mark = |end| standing(end, now).map_or_else(String::new, |standing| format!(" ({standing})"));
        text.push(format!(
            "suite       {}  date {}  valid until {}{}\n",
            suite.what,
            shown(suite.date),
            shown(suite.valid_until),
            mark(suite.valid_until)
        ));
        for key in &suite.keys {
            let expires = match key.expires {
                Some(time) => format!("expires {time}{}", mark(key.expires)),
                None if key.is_known => "does not expire".to_owned(),
                None => "in no keyring here; name it with --apt-key".to_owned(),
            };
            text.push(format!("  signed by {}  {expires}\n", key.id));
        }
    }
    text.concat()
}

/// Which parameters of queries keep responses here, and how they are let go.
fn parameters(plan: &Plan) -> Vec<String> {
    let mut text: Vec<String> = plan
        .parameters
        .iter()
        .take(LISTED)
        .map(|((upstream, name), count)| {
            let name: String = name.chars().take(40).flat_map(char::escape_default).collect();
            format!("  {count:>7}  parameter `{name}` of upstream `{upstream}`\n")
        })
        .collect();
    if !text.is_empty() {
        let hint = "hint: where it holds no secret, carried_parameters = [\"NAME\"] at the [[upstream]] lets it cross\n";
        text.push(hint.to_owned());
    }
    text
}

/// What there is to say about a request.
fn asked(plan: &Plan) -> Vec<String> {
    let mut text = Vec::new();
    match plan.whole {
        Some(Whole::UnknownSite) => text.push(
            "whole       what the site has is not known here: all that the store holds is carried\n".to_owned(),
        ),
        Some(Whole::ContentGone) => text.push(
            "whole       what left before is not all in the store any more: all that it holds and the site has not is carried\n"
                .to_owned(),
        ),
        None => {}
    }
    let urls = plan.not_held.iter().take(LISTED);
    text.extend(urls.map(|url| format!("not held    {url}\n")));
    match plan.not_held.len().saturating_sub(LISTED) {
        0 => {}
        more => text.push(format!("not held    and {more} more\n")),
    }
    if !plan.not_held.is_empty() {
        text.push("hint: kato-proxy prefetch --request fetches what is asked for\n".to_owned());
    }
    text
}

/// What was written.
pub(super) fn exported(plan: &Plan, exported: &Exported, is_json: bool) -> String {
    let (folder, record) = (&exported.folder, &exported.record);
    let mut summary = summary(plan);
    summary["folder"] = json!(folder);
    summary["bundle"] = json!(crate::bundle::header::name(&record.series, record.seq));
    summary["seq"] = json!(record.seq);
    summary["written"] = json!(exported.written);
    if is_json {
        return document(&summary);
    }
    let written = format!(
        "{}  {:?}, {} contents, {}{}\nroot {}\n",
        folder.display(),
        plan.kind,
        plan.blobs.len(),
        human(plan.size()),
        match exported.written {
            Written::Now => "",
            Written::Before => ": it lies there already, and nothing has changed since",
        },
        record.root
    );
    written + &asked(plan).concat()
}

fn summary(plan: &Plan) -> Value {
    json!({
        "schema": 1,
        "bundle": crate::bundle::header::name(&plan.record.series, plan.record.seq),
        "kind": plan.kind,
        "seq": plan.record.seq,
        "root": plan.record.root,
        "entries": plan.snapshot.entries().len(),
        "contents": plan.snapshot.contents().len(),
        "new_contents": plan.blobs.len(),
        "bytes": plan.size(),
        "volumes": plan.volumes.len(),
        "groups": plan.by_group().iter().map(|(group, count, bytes)| json!({"group": group, "contents": count, "bytes": bytes})).collect::<Vec<_>>(),
        "left_out": plan.left_out,
        "not_held": plan.not_held,
        "whole": plan.whole,
        "horizon": plan.horizon,
    })
}

/// A verdict.
pub(super) fn verified(report: &Report, is_json: bool) -> String {
    if is_json {
        return document(report);
    }
    let mut text = vec![format!("{}  root {}\n", report.bundle, report.root)];
    for line in &report.evidence {
        text.push(format!("  {line}\n"));
    }
    text.push(findings(&report.findings));
    let verdict = if report.is_good() { "good\n" } else { "not good\n" };
    text.push(verdict.to_owned());
    text.concat()
}

/// What came in.
pub(super) fn imported(imported: &Imported, bundle: &Bundle, request: &Path, is_json: bool) -> String {
    if is_json {
        let mut document = json!(imported);
        document["schema"] = json!(1);
        document["bundle"] = json!(bundle.header.name());
        return self::document(&document);
    }
    let mut text = vec![format!(
        "{}  {} stored\n",
        bundle.header.name(),
        human(imported.stored)
    )];
    text.push(findings(&imported.findings));
    match &imported.active {
        Some(active) => {
            text.push(format!(
                "active      {} {}, root {}\n",
                active.series, active.seq, active.root
            ));
        }
        None => text.push("active      none\n".to_owned()),
    }
    let is_gone = imported.findings.iter().any(|found| found.fault == Fault::Gone);
    if let Some(wanted) = &imported.wanted {
        text.push(format!(
            "incomplete  {} contents are missing, {} URLs of them are known; this snapshot is not served yet\n",
            wanted.digests.len(),
            wanted.urls.len(),
        ));
        if !is_gone {
            text.push(format!(
                "hint: bring the volumes that are missing, or send `{}` back: kato-proxy bundle export --satisfy {}\n",
                request.display(),
                request.display(),
            ));
        }
    }
    if is_gone {
        text.push("hint: put the medium in again; the same command then goes on where it ended\n".to_owned());
    }
    text.concat()
}

/// What a bundle says about itself.
pub(super) fn info(bundle: &Bundle, is_json: bool) -> String {
    let header = &bundle.header;
    if is_json {
        let mut document = json!(header);
        document["signed_by"] = json!(bundle.signed.as_ref().map(|signed| &signed.key));
        return self::document(&document);
    }
    let signature = match &bundle.signed {
        Some(signed) => format!("by {}", signed.key),
        None => "not verified: no --trust was given".to_owned(),
    };
    let mut text = vec![format!(
        "bundle      {}\nsignature   {signature}\nmade        {}\nkind        {:?}\nroot        {}\nsnapshot    {} responses, {} contents, {}\nhere        {} contents, {}\nneeds       {} free\n",
        header.name(),
        header.created,
        header.kind,
        header.root,
        header.counts.entries,
        header.counts.blobs_root,
        human(header.bytes.root),
        header.counts.blobs_here,
        human(header.bytes.here),
        human(header.need_free),
    )];
    for base in &header.base {
        text.push(format!("since       {} ({})\n", base.seq, base.root));
    }
    for volume in &header.volumes {
        text.push(format!("volume      {}  {}\n", volume.file, human(volume.size)));
    }
    for (what, proof) in [("complete", &header.closure), ("rehearsed", &header.rehearsal)] {
        text.push(format!(
            "{what:<10}  {}\n",
            if proof.ok {
                "yes".to_owned()
            } else {
                format!("waived: {}", proof.waived.join("; "))
            }
        ));
    }
    text.concat()
}

fn findings(findings: &[Finding]) -> String {
    let mut lines = Vec::new();
    for finding in findings {
        let volume = finding.volume.as_ref().filter(|volume| **volume != finding.what);
        let volume = volume.map(|volume| format!(" in {volume}")).unwrap_or_default();
        let fault = match finding.fault {
            Fault::Missing => "missing",
            Fault::Wrong => "wrong",
            Fault::Gone => "gone",
        };
        lines.push(format!(
            "{fault:<10}  {}{volume}: {}\n",
            finding.what, finding.problem
        ));
        lines.extend(finding.urls.iter().map(|url| format!("    needed by {url}\n")));
    }
    lines.concat()
}

pub(super) fn document(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).map_or_else(|error| error.to_string(), |text| text + "\n")
}
