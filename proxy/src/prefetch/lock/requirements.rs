//! Files of requirements, as pip reads them: with the files that they name, and what is in none of them. Pure but for the function that
//! reads a file.
//!
//! | In the file | What it comes to |
//! |---|---|
//! | `name==version --hash=sha256:…` | a package |
//! | `-r FILE`, `--requirement[=]FILE` | what is in that file, which is found beside the one that names it |
//! | `-c FILE`, `--constraint[=]FILE` | no package: pip takes none from there, and each requirement has its own digests. Where both have some, the ones that both have count |
//! | `-e`, `-f`, `--no-index`, a URL behind `-r`, an option that is not known | left out: what it brings, no index has |
//! | `--index-url` | left out: pip asks that index in the place of the site's mirror |
//! | `--extra-index-url` | a note: pip asks the mirror as well |
//!
//! Lines are joined and comments are cut as pip does it: a comment that ends with a backslash does not swallow the line behind it.

use std::{
    collections::BTreeSet,
    io,
    path::{Component, Path, PathBuf},
};

use kato_shared::Digest;

use super::{Lock, LockError, Package, normalised};

/// How deep files may name each other. People have two or three levels.
const DEEPEST: usize = 16;

/// Reads the text of a file.
pub(super) type Reader<'r> = &'r dyn Fn(&Path) -> io::Result<String>;

/// Adds to `lock` what stands in `text`, which was read from `path`, and in the files that it names.
pub(super) fn read(
    lock: &mut Lock,
    (path, text): (&Path, &str),
    reader: Reader<'_>,
) -> Result<(), LockError> {
    let mut walk = Walk {
        lock,
        reader,
        within: vec![plain(path)],
        done: BTreeSet::new(),
        constraints: Vec::new(),
    };
    walk.file((path, text), Part::Requirements)?;
    let constraints = walk.constraints;
    for package in &mut lock.packages {
        for (name, allowed) in &constraints {
            let both = package.digests.iter().filter(|digest| allowed.contains(digest));
            let both: Vec<String> = both.cloned().collect();
            // pip does not look at digests of which none is left.
            if *name == package.name && !both.is_empty() {
                package.digests = both;
            }
        }
    }
    Ok(())
}

/// What a file is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Requirements,
    Constraints,
}

struct Walk<'w> {
    lock: &'w mut Lock,
    reader: Reader<'w>,
    /// The files that are being read, each named by the one before.
    within: Vec<PathBuf>,
    /// Those that were read.
    done: BTreeSet<(PathBuf, Part)>,
    /// Names and digests of constraints.
    constraints: Vec<(String, Vec<String>)>,
}

impl Walk<'_> {
    fn file(&mut self, (path, text): (&Path, &str), part: Part) -> Result<(), LockError> {
        for line in lines(text) {
            let (requirement, options) = split(&line);
            if requirement.is_empty() {
                for option in options_of(&options) {
                    self.option(path, &option)?;
                }
                continue;
            }
            match package(&requirement, &options) {
                Some(package) if part == Part::Requirements => self.lock.packages.push(package),
                Some(package) => self.constraints.push((package.name, package.digests)),
                // A range of versions brings nothing.
                None if part == Part::Constraints => {}
                None => {
                    return Err(LockError::Unpinned {
                        path: path.display().to_string(),
                        line: line.trim().to_owned(),
                    });
                }
            }
        }
        Ok(())
    }

    fn option(&mut self, path: &Path, (name, value): &(String, String)) -> Result<(), LockError> {
        let shown = format!("{}: {name} {value}", path.display());
        match name.as_str() {
            "-r" | "--requirement" => self.include((path, value), Part::Requirements, &shown),
            "-c" | "--constraint" => self.include((path, value), Part::Constraints, &shown),
            "-i" | "--index-url" | "--pypi-url" => {
                let said =
                    format!("{shown}: pip asks that index and no mirror; take the line out of the file");
                self.lock.left_out.push(said);
                Ok(())
            }
            "--extra-index-url" => {
                let note = format!("{shown}: clients ask that index, too, through this proxy or past it");
                self.lock.notes.push(note);
                Ok(())
            }
            known if FLAGS.contains(&known) || OF_BUILDS.contains(&known) => Ok(()),
            _ => {
                self.lock.left_out.push(shown.trim().to_owned());
                Ok(())
            }
        }
    }

    /// Reads the file that `path` names as `value`.
    fn include(&mut self, (path, value): (&Path, &str), part: Part, shown: &str) -> Result<(), LockError> {
        if value.contains("://") || value.is_empty() {
            self.lock.left_out.push(shown.to_owned());
            return Ok(());
        }
        let file = path.parent().unwrap_or(Path::new("")).join(value);
        let known = plain(&file);
        if self.within.contains(&known) || self.within.len() >= DEEPEST {
            let mut chain: Vec<String> = self
                .within
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            chain.push(known.display().to_string());
            let chain = chain.join(" → ");
            return Err(if self.within.contains(&known) {
                LockError::Cycle { chain }
            } else {
                LockError::TooDeep { chain, most: DEEPEST }
            });
        }
        if !self.done.insert((known.clone(), part)) {
            return Ok(());
        }
        let text = (self.reader)(&file).map_err(|source| LockError::Read {
            path: format!("{}, which {} names", file.display(), path.display()),
            source,
        })?;
        self.within.push(known);
        self.file((&file, &text), part)?;
        self.within.pop();
        Ok(())
    }
}

/// Options that stand alone and bring nothing.
const FLAGS: [&str; 3] = ["--pre", "--prefer-binary", "--require-hashes"];
/// Options with a value that say how to choose, connect or build.
const OF_BUILDS: [&str; 9] = [
    "--trusted-host",
    "--no-binary",
    "--only-binary",
    "--use-feature",
    "--global-option",
    "--config-settings",
    "--config-setting",
    "-C",
    "--hash",
];
/// Options with a value that are about files and indexes.
const OF_FILES: [&str; 11] = [
    "-r",
    "--requirement",
    "-c",
    "--constraint",
    "-e",
    "--editable",
    "-f",
    "--find-links",
    "-i",
    "--index-url",
    "--extra-index-url",
];

/// The options of `words`, each with its value, however the two are written together.
fn options_of(words: &[String]) -> Vec<(String, String)> {
    let has_value = |name: &str| OF_BUILDS.contains(&name) || OF_FILES.contains(&name);
    let mut options: Vec<(String, String)> = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if !word.starts_with('-') {
            // It belongs to an option that is not known here.
            if let Some((_, value)) = options.last_mut() {
                value.push_str(word);
            }
            continue;
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value)),
            // `-rbase.txt`.
            _ if !word.starts_with("--") && word.is_char_boundary(2) && word.len() > 2 => {
                let (name, value) = word.split_at(2);
                (name, Some(value))
            }
            _ => (word.as_str(), None),
        };
        let value = match value {
            Some(value) => value.to_owned(),
            None if has_value(name) => words.next().cloned().unwrap_or_default(),
            None => String::new(),
        };
        options.push((name.to_owned(), value));
    }
    options
}

/// `name==version` with digests; `None` where something of that is missing.
fn package(requirement: &str, options: &[String]) -> Option<Package> {
    // What stands behind a semicolon says on which machines it is wanted; a mirror has it for all of them.
    let requirement = requirement.split(';').next().unwrap_or_default();
    let (name, version) = requirement.split_once("==")?;
    let name = name.split('[').next().unwrap_or_default().trim();
    let options = options_of(options);
    let hashes = options.iter().filter(|(name, _)| name == "--hash");
    let digests: Option<Vec<String>> = hashes
        .map(|(_, hash)| Some(hash.strip_prefix("sha256:")?.to_owned()))
        .collect();
    let digests = digests.filter(|digests| !digests.is_empty())?;
    let is_known = digests.iter().all(|digest| digest.parse::<Digest>().is_ok());
    (!name.is_empty() && is_known).then(|| Package {
        name: normalised(name),
        version: version.trim().trim_start_matches('=').to_owned(),
        address: None,
        digests,
    })
}

/// The requirement of a line, and the words from its first option on.
fn split(line: &str) -> (String, Vec<String>) {
    let mut options = words(line);
    let first = options.iter().position(|word| word.starts_with('-'));
    let rest = options.split_off(first.unwrap_or(options.len()));
    (options.join(" "), rest)
}

/// The words of a line; quotes keep blanks together, as in a shell.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            (letter, Some(open)) if letter == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            ('\\', None) => word.get_or_insert_default().extend(letters.next()),
            (letter, None) if letter.is_whitespace() => words.extend(word.take()),
            (letter, _) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// The lines of `text`, continued ones joined, without comments, without empty ones.
fn lines(text: &str) -> Vec<String> {
    let mut joined = Vec::new();
    let mut begun: Option<String> = None;
    for line in text.trim_start_matches('\u{feff}').lines() {
        // "this ensures comments are always matched later", and that they end a line.
        let is_comment = line.trim_start().starts_with('#');
        match line.strip_suffix('\\') {
            Some(part) if !is_comment => begun.get_or_insert_default().push_str(part),
            _ => {
                let mut whole = begun.take().unwrap_or_default();
                whole.push_str(if is_comment { " " } else { "" });
                whole.push_str(line);
                joined.push(whole);
            }
        }
    }
    joined.extend(begun);
    let without = joined.iter().map(|line| without_comment(line).trim().to_owned());
    without.filter(|line| !line.is_empty()).collect()
}

/// A comment begins at the start of a line or behind a blank; what stands behind a `#` elsewhere is a fragment.
fn without_comment(line: &str) -> &str {
    let begins = |(at, _): &(usize, &str)| line[..*at].chars().next_back().is_none_or(char::is_whitespace);
    let comment = line.match_indices('#').find(begins);
    comment.map_or(line, |(at, _)| &line[..at])
}

/// `path` without `.` and `..`, so that one file has one name.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(plain.components().next_back(), Some(Component::Normal(_))) => {
                plain.pop();
            }
            Component::ParentDir | Component::Normal(_) | Component::RootDir | Component::Prefix(_) => {
                plain.push(part);
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests;
