//! `cargo xtask fuzz TARGET`: builds a fuzz target with coverage and runs libFuzzer on it.
//!
//! The stable compiler does: coverage is a pass of LLVM's, switched on for the members of this workspace alone
//! (`tests/fuzz/instrument`), so that dependencies stay as every other build has them. What is found new goes to
//! `target/fuzz/<target>`; `--minimise` brings what adds coverage into the corpus that each test run replays.
//!
//! Deliberately absent: sanitizers. There is no `unsafe` in this workspace for them to look at.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::{Stop, process::Tool, workspace};

/// Fuzzes `target` for `seconds`, or merges what was found into its corpus.
///
/// # Errors
/// [`Stop::Operator`] for a target that does not exist; else what failed, an input that was found included.
pub(crate) fn run(target: &str, seconds: u32, minimise: bool) -> Result<(), Stop> {
    let folder = workspace().join("tests/fuzz");
    let kept = folder.join("corpus").join(target);
    if target.contains(['/', '.']) || !kept.is_dir() {
        return Err(Stop::Operator(format!(
            "no fuzz target is called `{target}`: the folders of tests/fuzz/corpus are the targets"
        )));
    }
    let found = workspace().join("target/fuzz").join(target);
    fs::create_dir_all(&found).with_context(|| format!("cannot make `{}`", found.display()))?;
    let program = format!("fuzz_{target}");
    Tool::cargo()
        .args([
            "build",
            "--package",
            "fuzz-targets",
            "--features",
            "libfuzzer",
            "--bin",
            &program,
        ])
        .env(
            "RUSTC_WORKSPACE_WRAPPER",
            &folder.join("instrument").display().to_string(),
        )
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        .run()?;
    let fuzzer = Tool::new(workspace().join("target/debug").join(program));
    let fuzzer = if minimise {
        fuzzer.args(["-merge=1".as_ref(), kept.as_os_str(), found.as_os_str()])
    } else {
        let artifacts = format!("-artifact_prefix={}/", found.display());
        let limit = format!("-max_total_time={seconds}");
        fuzzer
            .args([
                artifacts,
                limit,
                "-timeout=10".to_owned(),
                "-print_final_stats=1".to_owned(),
            ])
            .args([found.as_os_str(), kept.as_os_str()])
    };
    let status = fuzzer.status()?;
    verdict(status.success(), target).map_err(Stop::from)
}

fn verdict(is_success: bool, target: &str) -> Result<()> {
    ensure!(
        is_success,
        "an input broke a property of `{target}`: its file is named above; mend it and keep the file in the corpus"
    );
    Ok(())
}
