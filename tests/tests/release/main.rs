//! Releases: published by the real `kato release`, and refused by it when somebody on the way changes, replays, hides or
//! inflates something.
//!
//! `kato release verify` takes the same way as a node (the same fetcher, trust and exit codes) and reads every byte.

mod caching;
mod forged;
mod on_a_node;
mod publishing;
mod refusing;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use integration_tests::{binaries, command};
use serde_json::Value;

/// The exit code of a refusal.
const TRUST: i32 = 26;
/// The exit code of a wrong command line or description.
const USAGE: i32 = 2;
/// The exit code of what may pass.
const TRY_AGAIN: i32 = 75;
const DAMAGED: i32 = 27;

const DEADLINE: Duration = Duration::from_secs(60);

/// Runs `kato` and returns how it ended.
fn kato<A: AsRef<std::ffi::OsStr>>(arguments: &[A]) -> Result<Output> {
    kato_in(&[], arguments)
}

/// Runs `kato` with more variables in its environment.
fn kato_in<A: AsRef<std::ffi::OsStr>>(variables: &[(&str, &str)], arguments: &[A]) -> Result<Output> {
    let mut command = command::new(binaries::built("kato")?);
    command.args(arguments).envs(variables.iter().copied());
    command::run(command, DEADLINE, &[])
}

/// Runs `kato`, wants success, and returns its JSON document.
fn document(arguments: &[&str]) -> Result<Value> {
    let output = kato(&[&["--json"], arguments].concat())?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "kato {arguments:?}: {}: {stderr}",
        output.status
    );
    let document: Value = serde_json::from_slice(&output.stdout).context("stdout is not one document")?;
    ensure!(document["schema"] == 1, "no schema in {document}");
    Ok(document)
}

/// Runs `kato`, wants the exit code `code`, and returns stderr, which must hold an error and a hint.
fn refused(arguments: &[&str], code: i32) -> Result<String> {
    let output = kato(arguments)?;
    let stderr = String::from_utf8(output.stderr)?;
    ensure!(
        output.status.code() == Some(code),
        "kato {arguments:?} ended with {}, expected {code}: {stderr}",
        output.status
    );
    for part in ["error: ", "hint: "] {
        ensure!(
            stderr.lines().any(|line| line.starts_with(part)),
            "no `{part}` on stderr: {stderr}"
        );
    }
    Ok(stderr)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test folders are named in UTF-8")
}

/// Copies the files of `from` (no folders) to `to`.
fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// The arguments of `kato release verify` for a web server.
fn verify_url<'a>(root: &'a str, url: &'a str) -> Vec<&'a str> {
    vec!["release", "verify", "--root", root, "--url", url]
}

/// Replaces the content of a file of the test.
fn overwrite(path: &Path, bytes: &[u8]) -> Result<()> {
    Ok(kato_shared::durable::write(path, bytes, 0o644)?)
}

/// All files below `folder` with their content.
fn snapshot(folder: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let (mut files, mut waiting) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(&next)? {
            let path = entry?.path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                files.push((path.clone(), fs::read(path)?));
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}
