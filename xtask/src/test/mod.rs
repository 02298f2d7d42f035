//! `cargo xtask test`: packages → nextest → build → what is skipped, by name → tests → doc tests → one summary line.
//!
//! Tests that need root (they make namespaces, mounts and network links) stand in a module named [`AS_ROOT`]. That name is
//! the whole convention: nextest filters by it, `.config/nextest.toml` runs such tests one at a time, and here they are listed as
//! skipped where root is missing.
//!
//! Deliberately absent: retries. A test that fails now and then is a bug.

mod area;
mod crash;
mod listing;

use std::env;

use anyhow::{Context, Result, bail};

use self::area::Area;
use crate::{
    Stop, packages,
    process::{Tool, ensure_cargo_tool},
    progress::Progress,
};

/// The module name that marks tests which need root and namespaces.
const AS_ROOT: &str = "as_root";

/// Where property tests begin. A landing must not depend on luck: without this variable, every run tries the same cases;
/// `PROPTEST_RNG_SEED=$RANDOM cargo xtask test` tries others.
const SEED: &str = "PROPTEST_RNG_SEED";
const FIXED_SEED: &str = "1";

/// What every build and test command has in common, so that cargo builds each crate once.
const WORKSPACE: [&str; 2] = ["--workspace", "--all-features"];

/// Runs all tests, or those of the area `name`.
///
/// # Errors
/// [`Stop::Operator`] for an unknown area and for packages that only root may install; else what failed.
pub(crate) fn run(name: Option<&str>) -> Result<(), Stop> {
    let area = name.map(Area::named).transpose().map_err(Stop::Operator)?;
    // Before minutes are spent on building.
    let filter = area.map_or_else(
        || Ok("all()".to_owned()),
        |area| area.filter(&listing::integration_binaries()?),
    )?;
    let mut progress = Progress::start("test");
    progress.heading("Debian packages of tests/packages.txt");
    packages::ensure("tests/packages.txt")?;
    progress.heading("cargo-nextest");
    ensure_cargo_tool("nextest")?;
    progress.heading("build");
    // All targets at once: programs and test binaries then agree on features, and no crate is built twice.
    Tool::cargo()
        .args(["build", "--all-targets"])
        .args(WORKSPACE)
        .run()?;
    progress.heading("list");
    let obstacle = root_obstacle()?;
    let selected = select(&filter, obstacle.as_deref())?;
    if let Some(reason) = &obstacle {
        for test in &selected.skipped {
            println!("SKIPPED ({reason}): {test}");
        }
    }
    println!(
        "{} tests to run, {} skipped",
        selected.run.len(),
        selected.skipped.len()
    );
    progress.note(format!("{} tests", selected.run.len()));
    if !selected.skipped.is_empty() {
        progress.note(format!("{} SKIPPED (listed above)", selected.skipped.len()));
    }
    crash::forget()?;
    progress.stage("unit and integration tests", || nextest(&selected));
    for line in crash::lines()? {
        println!("crash: {line}");
        progress.note(format!("crash: {line}"));
    }
    if area.is_none() {
        progress.stage("doc tests", || {
            Tool::cargo().args(["test", "--doc"]).args(WORKSPACE).run()
        });
    }
    progress.finish()
}

/// The tests of one run.
#[derive(Debug)]
struct Selection {
    filter: String,
    run: Vec<String>,
    skipped: Vec<String>,
}

/// Splits what `filter` matches by whether this user may run it.
fn select(filter: &str, obstacle: Option<&str>) -> Result<Selection> {
    let (rooted, rest): (Vec<_>, Vec<_>) = listing::tests(filter)?
        .into_iter()
        .partition(|test| test.rsplit(' ').next().is_some_and(needs_root));
    if obstacle.is_none() {
        let run = rest.into_iter().chain(rooted).collect();
        return Ok(Selection {
            filter: filter.to_owned(),
            run,
            skipped: Vec::new(),
        });
    }
    Ok(Selection {
        filter: format!(r"({filter}) & not test(/(^|::){AS_ROOT}::/)"),
        run: rest,
        skipped: rooted,
    })
}

/// Whether the test path, such as `as_root::nodes_have_their_own_files`, has a part [`AS_ROOT`] before its last.
fn needs_root(test: &str) -> bool {
    let mut parts = test.rsplit("::");
    parts.next();
    parts.any(|part| part == AS_ROOT)
}

fn nextest(selected: &Selection) -> Result<()> {
    if selected.run.is_empty() {
        bail!("no test is left to run here");
    }
    let tests = Tool::cargo()
        .args(["nextest", "run", "--no-fail-fast", "-E", &selected.filter])
        .args(WORKSPACE);
    match env::var_os(SEED) {
        Some(seed) => {
            println!("{SEED}={}, as the environment says", seed.display());
            tests.run()
        }
        None => tests.env(SEED, FIXED_SEED).run(),
    }
}

/// Why tests that need root cannot run here; `None` when they can.
fn root_obstacle() -> Result<Option<String>> {
    if !packages::is_root()? {
        return Ok(Some("needs root".to_owned()));
    }
    // Root of a container without CAP_SYS_ADMIN may not make namespaces either.
    let probe = Tool::new("unshare")
        .args(["-n", "-m", "-p", "-u", "-f", "true"])
        .output()
        .context("util-linux is in tests/packages.txt")?;
    Ok((!probe.status.success()).then(|| "this root may not make namespaces".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::needs_root;

    #[test]
    fn the_module_name_marks_a_test_and_its_own_name_does_not() {
        assert!(needs_root("as_root::hostnames_differ"));
        assert!(needs_root("upgrade::as_root::nested::order"));
        assert!(!needs_root("as_root"));
        assert!(!needs_root("runs_as_root::order"));
    }
}
