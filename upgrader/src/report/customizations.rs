//! Local changes as a person reads them: in a plan, and from `kato customizations`.

use std::{fmt::Write as _, path::Path};

use kato_shared::settings::byte_size::human as bytes;

use crate::{
    customizations::{
        Change, Class, Fate, Scan, What,
        archive::Manifest,
        difference::Difference,
        outlook::{LISTED, ModuleOutlook},
        reapply::{Action, Reapplied},
    },
    path_text,
    report::terminal,
};

/// The lines of a plan about local changes: for each module what happens to how many, and the gravest by name.
pub fn outlook_lines(modules: &[ModuleOutlook]) -> Vec<String> {
    let mut lines = Vec::new();
    for module in modules {
        let counts: Vec<String> = module
            .counts
            .iter()
            .map(|(fate, count)| format!("{count} × {}", fate.phrase()))
            .collect();
        let (name, class, dest) = (&module.module, module.class.name(), module.dest.display());
        let unknown = if module.is_known {
            ""
        } else {
            " (what was installed there is not known: the backup has all of it)"
        };
        lines.push(format!(
            "local      {name} ({class} at {dest}): {}{unknown}",
            counts.join(", ")
        ));
        if !module.is_known {
            continue;
        }
        // What stays needs no list.
        let moved: Vec<_> = module
            .files
            .iter()
            .filter(|file| file.fate != Fate::Kept)
            .collect();
        for file in &moved {
            let (path, what) = (shown(&file.path), words(&file.what));
            lines.push(format!("             {path} ({what}): {}", file.fate.phrase()));
        }
        let unlisted = moved.len() == LISTED && module.more > 0;
        if unlisted {
            lines.push("             … `kato customizations scan` lists all".into());
        }
    }
    lines
}

/// The lines of `kato customizations scan`.
pub fn scan_lines(scan: &Scan) -> Vec<String> {
    let mut lines = Vec::new();
    for class in [Class::Replace, Class::Versioned, Class::Overlay, Class::Safe] {
        let mine: Vec<&Change> = scan
            .changes
            .iter()
            .filter(|change| change.class == class)
            .collect();
        if mine.is_empty() {
            continue;
        }
        let sum = mine.iter().map(|change| change.bytes).sum();
        lines.push(format!(
            "{}: {}, {}; {}",
            class.name(),
            kato_shared::counted(mine.len(), "file", "files"),
            bytes(sum),
            about(class)
        ));
        lines.extend(mine.into_iter().map(change_line));
    }
    if scan.changes.is_empty() {
        lines.push(format!("everything is as {} installed it", scan.version));
    }
    lines
}

const fn about(class: Class) -> &'static str {
    match class {
        Class::Replace => "an upgrade exchanges these folders: what is only here leaves them",
        Class::Versioned => "an upgrade makes another folder: changes stay behind in this one",
        Class::Overlay => {
            "these stay; behind each, the worst that becomes of it where a release brings the file in another form: its rules \
             for single files (`conffiles`) may keep or merge it, which `kato node upgrade --plan` then says"
        }
        Class::Safe => "no upgrade touches them",
    }
}

fn change_line(change: &Change) -> String {
    let (what, path) = (words(&change.what), shown(&change.path));
    let worst = match change.class {
        Class::Overlay if change.at_worst == Fate::Kept => "  (stays)".to_owned(),
        Class::Overlay => format!("  (stays, or at worst: {})", change.at_worst.phrase()),
        Class::Replace | Class::Versioned | Class::Safe => String::new(),
    };
    format!("  {what:<16} {path}{worst}")
}

/// A path in one line: what is in its name must not look like another line.
fn shown(path: &Path) -> String {
    terminal::flat(&path_text::show(path)).into_owned()
}

fn words(what: &[What]) -> String {
    let words: Vec<_> = what.iter().map(|what| what.word()).collect();
    words.join(", ")
}

/// The lines of `kato customizations list`.
pub fn archive_lines(archives: &[Manifest]) -> Vec<String> {
    let line = |archive: &Manifest| {
        let sum = archive.files.iter().map(|file| file.bytes).sum();
        let count = kato_shared::counted(archive.files.len(), "file", "files");
        format!("{}  of {}  {count}, {}", archive.id, archive.version, bytes(sum))
    };
    archives.iter().map(line).collect()
}

/// The text of `kato customizations diff` for one file, without a final newline.
pub fn difference_text(difference: &Difference) -> String {
    let mut text = String::new();
    if let Some(diff) = &difference.diff {
        text.push_str(diff);
    }
    for note in &difference.notes {
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "# {}: {note}", shown(&difference.path));
    }
    text.truncate(text.trim_end_matches('\n').len());
    text
}

/// The line of `kato customizations reapply` for one file.
pub fn reapplied_line(reapplied: &Reapplied, plan_only: bool) -> String {
    let path = shown(&reapplied.path);
    let beside = reapplied
        .beside
        .as_ref()
        .map(|beside| shown(beside))
        .unwrap_or_default();
    match (reapplied.action, plan_only) {
        (Action::InPlace, _) => format!("{path}: is as it was saved"),
        (Action::PutBack, true) => format!("{path}: would be put back"),
        (Action::PutBack, false) => format!("{path}: put back"),
        (Action::Attributes, true) => format!("{path}: would get its bits and owner again"),
        (Action::Attributes, false) => format!("{path}: has its bits and owner again"),
        (Action::Delete, true) => format!("{path}: would be deleted again"),
        (Action::Delete, false) => format!("{path}: deleted again"),
        (Action::Merge, true) => format!("{path}: would be merged with the release's changes"),
        (Action::Merge, false) => format!("{path}: merged with the release's changes"),
        (Action::Beside(why), true) => format!("{path}: {why}; would be put beside it as {beside}"),
        (Action::Beside(why), false) => format!("{path}: {why}; put beside it as {beside}"),
        (Action::Leave(why), _) => format!("{path}: left alone, {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r45_a_newline_in_a_name_makes_no_second_line() {
        let shown = shown(Path::new("/s/web/a\n  added            /s/web/b\u{1b}[2J"));
        assert_eq!(shown, "/s/web/a   added            /s/web/b\u{fffd}[2J");
    }
}
