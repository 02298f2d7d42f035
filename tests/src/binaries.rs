//! The programs that this workspace builds, where cargo has put them.

use std::{env, path::PathBuf};

use anyhow::{Context, Result, ensure};

/// The program `name` (`kato`, `kato-proxy`, `lab`) of the same profile as the running test.
///
/// # Errors
/// When it has not been built; `cargo xtask test` builds all of them first.
pub fn built(name: &str) -> Result<PathBuf> {
    let program = folder()?.join(name);
    ensure!(
        program.is_file(),
        "`{}` has not been built: expected a program there\nhint: cargo build --workspace --bins --all-features",
        program.display()
    );
    Ok(program)
}

/// The folder of built programs, such as `target/debug`.
///
/// # Errors
/// When the running program has no path.
pub fn folder() -> Result<PathBuf> {
    let mut folder = env::current_exe().context("the running program has no path")?;
    folder.pop();
    // Test binaries stand one level deeper than programs.
    if folder.ends_with("deps") {
        folder.pop();
    }
    Ok(folder)
}
