//! `cargo xtask check`: everything that can be said about the source without running it.
//!
//! All stages run even when one fails, so that one run names all there is to mend.

use anyhow::Result;

use crate::{
    Stop,
    process::{Tool, ensure_cargo_tool},
    progress::Progress,
    tidy,
};

/// Runs fmt, clippy, rustdoc, cargo-deny and tidy.
///
/// # Errors
/// When a stage failed.
pub(crate) fn run() -> Result<(), Stop> {
    let mut progress = Progress::start("check");
    progress.stage("fmt", || Tool::cargo().args(["fmt", "--all", "--check"]).run());
    progress.stage("tidy", tidy::check);
    progress.stage("clippy", || {
        Tool::cargo()
            .args([
                "clippy",
                "--workspace",
                "--all-targets",
                "--all-features",
                "--",
                "-D",
                "warnings",
            ])
            .run()
    });
    // Private items too: most of the essays of this workspace stand in private modules, and their links rot like any other.
    progress.stage("rustdoc", || {
        Tool::cargo()
            .args([
                "doc",
                "--workspace",
                "--no-deps",
                "--all-features",
                "--document-private-items",
            ])
            .env("RUSTDOCFLAGS", "-D warnings")
            .run()
    });
    progress.stage("deny", || {
        ensure_cargo_tool("deny")?;
        deny(&["bans", "licenses", "sources"])
    });
    if let Some(false) = progress.stage("advisories", advisories) {
        progress.note("advisories SKIPPED: their database cannot be reached from here");
    }
    progress.finish()
}

fn deny(checks: &[&str]) -> Result<()> {
    Tool::cargo()
        .args(["deny", "--all-features", "check", "--hide-inclusion-graph"])
        // Exceptions that have become needless must go.
        .args([
            "-D",
            "unmatched-skip",
            "-D",
            "unnecessary-skip",
            "-D",
            "license-not-encountered",
        ])
        .args(checks)
        .run()
}

/// `Ok(false)` when the advisory database cannot be fetched: a machine without a network can still check the rest.
fn advisories() -> Result<bool> {
    ensure_cargo_tool("deny")?;
    let fetch = Tool::cargo().args(["deny", "fetch", "db"]).output()?;
    if !fetch.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&fetch.stderr).trim_end());
        println!("SKIPPED: the advisory database cannot be reached from here");
        return Ok(false);
    }
    deny(&["advisories"])?;
    Ok(true)
}
