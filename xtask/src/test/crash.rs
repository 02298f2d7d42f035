//! What the tests of the area `crash` have cut off: they leave a file each, and this adds them up.

use std::{collections::BTreeSet, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Where the tests write: `CARGO_TARGET_TMPDIR`, below.
fn folder() -> Result<PathBuf> {
    let metadata = crate::tidy::metadata()?;
    let target = metadata["target_directory"]
        .as_str()
        .context("cargo metadata has no target directory")?;
    Ok(PathBuf::from(target).join("tmp/crash"))
}

/// Forgets what earlier runs wrote.
///
/// # Errors
/// When it cannot be removed.
pub(crate) fn forget() -> Result<()> {
    let folder = folder()?;
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove `{}`", folder.display()))?;
    }
    Ok(())
}

/// Lines for the summary; none when no such test ran.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn lines() -> Result<Vec<String>> {
    let folder = folder()?;
    let mut reports = Vec::new();
    let Ok(listing) = fs::read_dir(&folder) else {
        return Ok(Vec::new());
    };
    for item in listing {
        reports.push(serde_json::from_slice(&fs::read(item?.path())?)?);
    }
    Ok(sum(&reports))
}

fn sum(reports: &[Value]) -> Vec<String> {
    let texts = |value: &Value| -> Vec<String> {
        let texts = value.as_array().into_iter().flatten();
        texts.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let of = |what: &'static str| reports.iter().filter(move |report| report["what"] == what);
    let mut lines = Vec::new();
    for (what, sentence) in [
        ("killed", "killed at"),
        ("full", "with a full disk"),
        ("cut", "requests cut off"),
    ] {
        let (mut places, mut at, mut visits, mut differences) = (BTreeSet::new(), BTreeSet::new(), 0, 0);
        for report in of(what) {
            places.extend(texts(&report["places"]));
            let done = texts(&report["done"]);
            visits += done.len();
            at.extend(done.iter().map(|visit| place(visit)));
            differences += texts(&report["differences"]).len();
        }
        if visits == 0 {
            continue;
        }
        lines.push(if what == "cut" {
            format!("{visits} {sentence}, {differences} differences")
        } else {
            format!(
                "{} checkpoints, {} {sentence} ({visits} runs), {differences} differences",
                places.len(),
                at.len()
            )
        });
    }
    lines
}

/// The place of `<call> <place>:<n>`.
fn place(visit: &str) -> String {
    let name = visit.split_once(' ').map_or(visit, |(_, name)| name);
    name.rsplit_once(':').map_or(name, |(place, _)| place).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_once_and_runs_each_time() {
        let report = |places: &[&str], done: &[&str], differences: &[&str]| serde_json::json!({"what": "killed", "places": places, "done": done, "differences": differences});
        let lines = sum(&[
            report(&["a", "b x@1"], &["0 a:1", "0 a:2"], &[]),
            report(&["a", "c"], &["1 b x@1:7"], &["a tree differs"]),
        ]);
        assert_eq!(lines, ["3 checkpoints, 2 killed at (3 runs), 1 differences"]);
        assert_eq!(sum(&[]), Vec::<String>::new());
    }
}
