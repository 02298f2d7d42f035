//! `kato demo`, and the preparation of the cache that it shows: the real programs, real processes, nothing left behind.

mod demo;
mod preparing;

use std::{process::Output, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The exit code of a refusal before anything was changed.
const PREFLIGHT: i32 = 20;

/// How long one command may take on a machine that is busy with other tests.
const DEADLINE: Duration = Duration::from_secs(150);

/// The one JSON document on stdout of a command that succeeded.
fn document(output: &Output) -> Result<Value> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {stderr}", output.status);
    serde_json::from_slice(&output.stdout).with_context(|| {
        format!(
            "not one JSON document: {}\n{stderr}",
            String::from_utf8_lossy(&output.stdout)
        )
    })
}
