//! `cargo xtask demo`: the two programs as they are handed out, then `kato demo`, whose exit code is ours.

use std::process::ExitCode;

use anyhow::Result;

use crate::{dist, process::Tool, progress::Progress};

/// Builds and runs; 1 when the build fails or the demo dies by a signal.
pub(crate) fn run(args: &[String]) -> ExitCode {
    match build_and_run(args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Headings go to stderr here: with `--json`, stdout is the demo's one document.
fn build_and_run(args: &[String]) -> Result<u8> {
    let progress = Progress::start("demo");
    progress.aside("building kato and kato-proxy");
    let programs = dist::programs()?;
    progress.aside("kato demo");
    let status = Tool::new(programs.join("bin/kato"))
        .args(["demo"])
        .args(args)
        .status()?;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1))
}
