//! Who uses a mount: what an operator would ask `du` when it is full, within bounds.

use std::{
    collections::VecDeque,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use kato_shared::settings::byte_size::human;

/// So many files are looked at; on a mount with more, sizes are said to be at least so large.
const FILES: usize = 20_000;
/// So many folders are named.
const NAMED: usize = 3;

/// What a folder takes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Usage {
    path: PathBuf,
    bytes: u64,
    is_whole: bool,
}

/// The folders below the mount point `point` that take most, in words; empty when nothing can be seen.
///
/// `ours` are folders of the upgrade itself, which are looked at by themselves and with what to do about them.
pub fn largest(point: &Path, ours: &[(&Path, &str)]) -> String {
    let Ok(device) = fs::metadata(point).map(|metadata| metadata.dev()) else {
        return String::new();
    };
    let mut found: Vec<(Usage, &str)> = Vec::new();
    for (folder, advice) in ours {
        if fs::metadata(folder).is_ok_and(|metadata| metadata.dev() == device) {
            found.push((measure(folder, device, &[]), advice));
        }
    }
    let known: Vec<&Path> = ours.iter().map(|(folder, _)| *folder).collect();
    for item in fs::read_dir(point).into_iter().flatten().flatten() {
        let path = item.path();
        // Not what is mounted there.
        if item.metadata().is_ok_and(|metadata| metadata.dev() == device) {
            found.push((measure(&path, device, &known), ""));
        }
    }
    found.retain(|(usage, _)| usage.bytes > 0);
    found.sort_by_key(|(usage, _)| std::cmp::Reverse(usage.bytes));
    let named: Vec<_> = found
        .iter()
        .take(NAMED)
        .map(|(usage, advice)| words(usage, advice))
        .collect();
    named.join(", ")
}

fn words(usage: &Usage, advice: &str) -> String {
    let least = if usage.is_whole { "" } else { "more than " };
    let advice = if advice.is_empty() {
        String::new()
    } else {
        format!(" ({advice})")
    };
    format!("{} {least}{}{advice}", usage.path.display(), human(usage.bytes))
}

/// What is below `path` on the device, without what is at or below `apart`; folder by folder, so that the bound cuts depth.
fn measure(path: &Path, device: u64, apart: &[&Path]) -> Usage {
    let mut folders = VecDeque::from([path.to_owned()]);
    let (mut bytes, mut seen, mut is_whole) = (0_u64, 0_usize, true);
    while let Some(folder) = folders.pop_front() {
        if apart.contains(&folder.as_path()) {
            continue;
        }
        let Ok(metadata) = fs::symlink_metadata(&folder) else {
            continue;
        };
        if metadata.dev() != device {
            continue;
        }
        bytes = bytes.saturating_add(metadata.blocks().saturating_mul(512));
        seen += 1;
        if seen >= FILES {
            is_whole = false;
            break;
        }
        if metadata.is_dir() {
            let below = fs::read_dir(&folder).into_iter().flatten().flatten();
            folders.extend(below.map(|item| item.path()));
        }
    }
    Usage {
        path: path.to_owned(),
        bytes,
        is_whole,
    }
}

#[cfg(test)]
mod tests {
    use kato_shared::durable;

    use super::*;

    #[test]
    fn c13_the_largest_are_named_ours_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let at = |below: &str| folder.path().join(below);
        for (path, bytes) in [
            ("log/a/b", 300_000),
            ("log/c", 100_000),
            ("kato/backup/x", 200_000),
            ("small", 10),
        ] {
            durable::create_folder(at(path).parent().unwrap()).unwrap();
            durable::write(&at(path), &vec![7; bytes], 0o644).unwrap();
        }
        let backups = at("kato/backup");
        let said = largest(folder.path(), &[(&backups, "old backups")]);
        let places: Vec<_> = said.split(", ").collect();
        assert!(
            places[0].starts_with(&format!("{} ", at("log").display())),
            "{said}"
        );
        assert!(
            places[1].starts_with(&backups.display().to_string()) && places[1].ends_with("(old backups)"),
            "{said}"
        );
        assert_eq!(largest(Path::new("/nonexistent"), &[]), "");
    }
}
