//! The rules of this workspace that neither rustc, clippy nor cargo-deny knows.
//!
//! Flow: read every text file once → each rule is a function from [`Source`]s (or cargo's metadata) to [`Violation`]s → print
//! `file:line: [rule] what is wrong; what to do`. Warnings are printed and do not fail.
//!
//! | Rule | Says |
//! |---|---|
//! | `size` | above 350 non-test lines a file is questioned, above 500 refused |
//! | `module-doc` | a Rust file begins with `//!` |
//! | `todo` | TODO, FIXME and XXX carry a reference: `TODO(#12)` |
//! | `commented-code` | code is deleted, not commented out |
//! | `sleep` | tests wait for a state, not for a time |
//! | `owner` | cacache, redb, reqwest, openssh are named by the folder that owns them |
//! |  | and in `shared` and `upgrader`, files are flushed and renamed by `shared/src/durable.rs` alone |
//! | `edge` | which member may depend on which, and what `shared` must not know |
//! | `host` | no public package registry is named: tests and examples use `*.example` |
//! | `whitespace` | no byte order mark, tab, carriage return or trailing blank; one newline at the end |
//! | `link` | a relative link of a page leads to a file |
//! | `exit-codes` | README's table of exit codes is that of `upgrader/src/exit.rs` |
//! | `behaviour` | each row of `docs/behaviour.md` that is said to be done names a test that exists |
//!
//! Deliberately absent: a Rust parser. The scanner of [`source`] tells code, comments, strings and test modules apart, which is
//! all that these rules need.

mod behaviour;
mod edges;
mod owners;
mod pages;
mod prose;
mod shape;
mod source;
mod walk;

use std::fmt;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use self::source::Source;
use crate::{Stop, process::Tool, workspace};

/// One place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    /// Relative to the workspace.
    file: String,
    /// From 1.
    line: usize,
    rule: &'static str,
    /// What is wrong and what to do.
    what: String,
    /// Printed, and not counted as a failure.
    warning: bool,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = if self.warning { "warning" } else { "error" };
        write!(
            f,
            "{}:{}: {level} [{}] {}",
            self.file, self.line, self.rule, self.what
        )
    }
}

impl Violation {
    fn new(source: &Source, line: usize, rule: &'static str, what: impl Into<String>) -> Self {
        Self {
            file: source.path.clone(),
            line,
            rule,
            what: what.into(),
            warning: false,
        }
    }
}

/// `cargo xtask tidy`.
///
/// # Errors
/// When a rule is broken.
pub(crate) fn run() -> Result<(), Stop> {
    Ok(check()?)
}

/// Checks every rule and prints each violation.
///
/// # Errors
/// When a rule is broken, a file cannot be read, or cargo fails.
pub(crate) fn check() -> Result<()> {
    let sources = walk::sources(&workspace())?;
    let mut found: Vec<Violation> = sources.iter().flat_map(of_one_file).collect();
    found.extend(edges::check(&metadata()?, &sources));
    found.extend(behaviour::check(&sources));
    found.extend(pages::links(&sources, |path| workspace().join(path).exists()));
    found.extend(pages::exit_codes(&sources));
    found.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    for violation in &found {
        println!("{violation}");
    }
    let errors = found.iter().filter(|violation| !violation.warning).count();
    println!(
        "tidy: {} files, {errors} errors, {} warnings",
        sources.len(),
        found.len() - errors
    );
    if errors > 0 {
        bail!("{errors} places break a rule");
    }
    Ok(())
}

/// The rules that look at one file alone.
fn of_one_file(source: &Source) -> Vec<Violation> {
    let rules = [
        prose::whitespace,
        prose::hosts,
        shape::size,
        shape::module_doc,
        shape::todo,
        shape::commented_code,
        shape::waiting,
        owners::check,
        owners::disk,
    ];
    rules.iter().flat_map(|rule| rule(source)).collect()
}

/// What cargo knows about the members of the workspace.
///
/// # Errors
/// When cargo fails or prints no JSON.
pub(crate) fn metadata() -> Result<Value> {
    let json = Tool::cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .stdout()?;
    serde_json::from_str(&json).context("cargo metadata printed no JSON")
}
