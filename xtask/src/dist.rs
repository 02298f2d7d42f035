//! `cargo xtask dist`: what is handed out. The release programs without symbols, the settings with their units and presets, the
//! documents, one digest for each file, and all of it as one archive.
//!
//! `kato` is built for size and `kato-proxy` for speed (`[profile.small]` and `[profile.release]`). The symbols stay in `target/small` and
//! `target/release`, beside the line tables.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use crate::{Stop, process::Tool, progress::Progress, workspace};

/// The programs: package, name, profile.
const PROGRAMS: [(&str, &str, &str); 2] = [
    ("kato-upgrader", "kato", "small"),
    ("kato-proxy", "kato-proxy", "release"),
];
/// What a program may be large, in bytes, without symbols: `kato` is copied to every node before it does anything there.
const LIMITS: [(&str, u64); 1] = [("kato", 15_000_000)];
/// What lies beside them.
const COMPANIONS: [&str; 6] = [
    "config",
    "docs",
    "README.md",
    "CHANGELOG.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
];

/// Builds, strips, packs; says what it made.
pub(crate) fn run() -> Result<(), Stop> {
    let mut progress = Progress::start("dist");
    progress.heading("building the release programs");
    let folder = programs()?;
    for (program, size) in sizes(&folder)? {
        progress.note(format!("{program}: {size} bytes"));
        within_limit(program, size)?;
    }
    progress.heading("packing");
    let archive = pack(&folder)?;
    let size = fs::metadata(&archive)
        .with_context(|| format!("cannot look at `{}`", archive.display()))?
        .len();
    progress.note(format!("{} ({size} bytes)", archive.display()));
    progress.finish()
}

/// Builds the two programs and leaves them, without symbols, in `bin/` of the folder that is returned.
pub(crate) fn programs() -> Result<PathBuf> {
    for (package, program, profile) in PROGRAMS {
        Tool::cargo()
            .args(["build", "--locked", "--profile", profile])
            .args(["--package", package, "--bin", program])
            .run()?;
    }
    let name = format!(
        "kato-{}-{}-{}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        std::env::consts::OS
    );
    let folder = workspace().join("target/dist").join(name);
    // What was made before goes: a copy that is running keeps its file.
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove `{}`", folder.display()))?;
    }
    let bin = folder.join("bin");
    fs::create_dir_all(&bin).with_context(|| format!("cannot create `{}`", bin.display()))?;
    for (_, program, profile) in PROGRAMS {
        let built = workspace().join("target").join(profile).join(program);
        let stripped = bin.join(program);
        Tool::new("strip")
            .args(["--strip-all", "-o"])
            .args([&stripped, &built])
            .run()
            .context("`strip` is part of Debian's package `binutils`, which every linker needs")?;
    }
    Ok(folder)
}

/// The programs in `bin/` of `folder` with their sizes in bytes.
fn sizes(folder: &Path) -> Result<Vec<(&'static str, u64)>> {
    let size = |(_, program, _): (&str, &'static str, &str)| {
        let path = folder.join("bin").join(program);
        let metadata = fs::metadata(&path).with_context(|| format!("cannot look at `{}`", path.display()))?;
        Ok((program, metadata.len()))
    };
    PROGRAMS.into_iter().map(size).collect()
}

fn within_limit(program: &str, size: u64) -> Result<()> {
    let limit = LIMITS.into_iter().find(|(name, _)| *name == program);
    if let Some((_, limit)) = limit {
        ensure!(
            size < limit,
            "`{program}` has {size} bytes without symbols, expected less than {limit}: look for new dependencies and features with `cargo tree -e features`"
        );
    }
    Ok(())
}

/// The companions, `SHA256SUMS`, and the archive.
fn pack(folder: &Path) -> Result<PathBuf> {
    for companion in COMPANIONS {
        let from = workspace().join(companion);
        ensure!(from.exists(), "`{}` is not there", from.display());
        Tool::new("cp")
            .args(["-R", "--no-target-directory"])
            .args([&from, &folder.join(companion)])
            .run()?;
    }
    let files = Tool::new("find")
        .args([folder, Path::new("-type"), Path::new("f")])
        .args(["-not", "-name", "SHA256SUMS", "-printf", "%P\n"])
        .stdout()?;
    let mut files: Vec<&str> = files.lines().collect();
    files.sort_unstable();
    let sums = Tool::new("env")
        .args(["--chdir"])
        .args([folder])
        .args(["sha256sum", "--"])
        .args(files)
        .stdout()?;
    write(&folder.join("SHA256SUMS"), &sums)?;
    let (parent, name) = (folder.parent(), folder.file_name());
    let (Some(parent), Some(name)) = (parent, name) else {
        anyhow::bail!("`{}` is not a folder in a folder", folder.display());
    };
    let archive = parent.join(format!("{}.tar.gz", name.to_string_lossy()));
    // The same bytes for the same content, whoever packs it and when.
    Tool::new("tar")
        .args([
            "--sort=name",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "--mtime=@0",
        ])
        .args([
            Path::new("-C"),
            parent,
            Path::new("-czf"),
            &archive,
            Path::new(name),
        ])
        .run()?;
    Ok(archive)
}

#[expect(
    clippy::disallowed_methods,
    reason = "made anew by each run, and read by nobody before it has ended"
)]
fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_has_grown_too_large_is_refused_with_both_numbers() {
        within_limit("kato", 14_999_999).unwrap();
        within_limit("kato-proxy", 40_000_000).unwrap();
        let said = within_limit("kato", 15_000_000).unwrap_err().to_string();
        assert!(
            said.contains("15000000 bytes") && said.contains("less than 15000000"),
            "{said}"
        );
    }
}
