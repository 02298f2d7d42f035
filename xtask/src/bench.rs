//! `cargo xtask bench`: the peers' Debian packages, the release binaries, then the harness of `bench/`, whose exit code is ours.
//!
//! Deliberately absent: what is measured, and how. That is the harness's; this brings it a machine that has everything.

use crate::{Stop, packages, process::Tool, progress::Progress};

/// Builds and runs.
///
/// # Errors
/// [`Stop::Operator`] for packages that only root may install; else what failed.
pub(crate) fn run(args: &[String]) -> Result<(), Stop> {
    let progress = Progress::start("bench");
    let simulates = args.iter().any(|arg| arg == "hits");
    if simulates {
        Tool::cargo()
            .args(["build", "--package", "kato-proxy", "--example", "eviction"])
            .run()?;
    }
    // Who only reads results or the help needs neither peers nor programs.
    let reads = args
        .iter()
        .any(|arg| matches!(arg.as_str(), "report" | "--help" | "-h"));
    // The mirror has no peers, and no load but its own.
    let is_mirror = args.iter().any(|arg| arg == "mirror");
    if is_mirror && !reads {
        progress.aside("building kato-proxy");
        Tool::cargo()
            .args(["build", "--release", "--package", "kato-proxy"])
            .run()?;
    }
    if !reads && !simulates && !is_mirror {
        progress.aside("Debian packages of bench/packages.txt");
        packages::ensure("bench/packages.txt")?;
        progress.aside("building kato-proxy and the load generator");
        Tool::cargo()
            .args(["build", "--release", "--package", "kato-proxy", "--package", "lg"])
            .run()?;
    }
    let status = Tool::new("python3")
        .args(["bench/harness"])
        .args(args)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .status()?;
    if status.success() {
        return Ok(());
    }
    Err(anyhow::anyhow!("the harness ended with {status}").into())
}
