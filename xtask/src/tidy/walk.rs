//! Every text file of the workspace, whether git knows it yet or not.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::source::Source;

/// Folders that hold nothing written by hand. `tests/data` keeps defects on purpose.
const SKIPPED: &[&str] = &[
    "target",
    ".git",
    "tests/data",
    "tests/fuzz/corpus",
    "tests/fuzz/target",
];

/// What is looked at: by extension, or a file without one.
const EXTENSIONS: &[&str] = &[
    "rs", "toml", "md", "txt", "sh", "json", "conf", "service", "html", "css", "js", "",
];

/// Written by a tool or by lawyers.
const GENERATED: &[&str] = &["Cargo.lock", "LICENSE-MIT", "LICENSE-APACHE"];

/// Reads them all, sorted by path.
///
/// # Errors
/// When a folder or a file cannot be read. A file that is not UTF-8 is not text and is left out.
pub(crate) fn sources(root: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    visit(root, "", &mut sources)?;
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

fn visit(root: &Path, folder: &str, sources: &mut Vec<Source>) -> Result<()> {
    let entries =
        fs::read_dir(root.join(folder)).with_context(|| format!("cannot read the folder `{folder}`"))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read the folder `{folder}`"))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() {
            name.clone()
        } else {
            format!("{folder}/{name}")
        };
        let kind = entry
            .file_type()
            .with_context(|| format!("cannot look at `{path}`"))?;
        if SKIPPED.contains(&path.as_str()) || (kind.is_dir() && name == ".git") {
            continue;
        }
        if kind.is_dir() {
            visit(root, &path, sources)?;
            continue;
        }
        let extension = Path::new(&name).extension().unwrap_or_default().to_string_lossy();
        if !kind.is_file() || GENERATED.contains(&name.as_str()) || !EXTENSIONS.contains(&extension.as_ref())
        {
            continue;
        }
        let bytes = fs::read(root.join(&path)).with_context(|| format!("cannot read `{path}`"))?;
        if let Ok(text) = String::from_utf8(bytes) {
            sources.push(Source::new(path, &text));
        }
    }
    Ok(())
}
