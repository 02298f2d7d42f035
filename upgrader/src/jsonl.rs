//! Append-only files with one JSON object a line: the journal and the event stream.
//!
//! A program that is killed while it appends leaves a torn last line. Readers pass over it; the next writer cuts it off
//! before it appends, so that it never ends up in the middle of the file.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use kato_shared::durable::{self, DurableError};
use serde::{Serialize, de::DeserializeOwned};

/// A file of lines that cannot be read or extended.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    /// The file cannot be read.
    #[error("{action} `{path}` failed")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A line that is not the last cannot be understood.
    #[error("`{path}` line {line} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A line cannot be appended, or a torn one not cut off.
    #[error(transparent)]
    Append(#[from] DurableError),
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> LinesError + 'a {
    move |source| LinesError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// The whole lines of `path`, and where they end in bytes. A missing file has none.
///
/// # Errors
/// [`LinesError::Io`], and [`LinesError::Damaged`] for a line that is not the last.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<(Vec<T>, u64), LinesError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(io_error("reading", path)(source)),
    };
    let mut values = Vec::new();
    let mut end = 0;
    for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let is_last = end + line.len() == bytes.len();
        if !line.ends_with(b"\n") {
            break;
        }
        match serde_json::from_slice(line) {
            Ok(value) => values.push(value),
            // A whole JSON value that is no `T` was written by another version of the program, not torn.
            Err(_torn) if is_last && !is_json(line) => break,
            Err(source) => {
                return Err(LinesError::Damaged {
                    path: path.to_owned(),
                    line: number + 1,
                    source,
                });
            }
        }
        end += line.len();
    }
    Ok((values, end as u64))
}

fn is_json(line: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok()
}

/// [`read`], and cuts off what a killed writer left behind the last whole line.
///
/// # Errors
/// As [`read`], and [`LinesError::Append`] when the file cannot be cut.
pub fn open<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, LinesError> {
    let (values, end) = read(path)?;
    let length = fs::metadata(path).map_or(0, |metadata| metadata.len());
    if length > end {
        durable::cut(path, end)?;
    }
    Ok(values)
}

/// Appends `value` as a line and flushes it to the disk.
///
/// # Errors
/// [`LinesError::Append`], [`LinesError::Io`] when the value cannot be written as JSON.
pub fn append(path: &Path, value: &impl Serialize) -> Result<(), LinesError> {
    let line = serde_json::to_string(value)
        .map_err(io::Error::other)
        .map_err(io_error("serialising a line for", path))?;
    Ok(durable::append_line(path, &line)?)
}

#[cfg(test)]
mod tests {
    use std::{fs::OpenOptions, io::Write as _};

    use super::*;

    fn file(content: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines.jsonl");
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(content)
            .unwrap();
        (folder, path)
    }

    #[test]
    fn a_torn_last_line_is_passed_over_and_cut_off_before_the_next_append() {
        for torn in [&b"{\"a\":"[..], b"\0\0\0\n", b"3"] {
            let (_folder, path) = file(&[b"1\n2\n", torn].concat());
            assert_eq!(read::<u32>(&path).unwrap().0, [1, 2]);
            assert_eq!(open::<u32>(&path).unwrap(), [1, 2]);
            append(&path, &4).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"1\n2\n4\n");
        }
    }

    #[test]
    fn damage_in_the_middle_is_an_error_with_its_line() {
        let (_folder, path) = file(b"1\nx\n3\n");
        let error = read::<u32>(&path).unwrap_err().to_string();
        assert!(error.ends_with("line 2 is damaged"), "{error}");
    }

    #[test]
    fn a_last_line_of_another_program_is_no_torn_one() {
        let (_folder, path) = file(b"1\n2\n{\"new\":true}\n");
        let error = open::<u32>(&path).unwrap_err().to_string();
        assert!(error.ends_with("line 3 is damaged"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"1\n2\n{\"new\":true}\n");
    }

    #[test]
    fn a_missing_file_has_no_lines() {
        assert!(open::<u32>(Path::new("/nonexistent/lines")).unwrap().is_empty());
    }

    proptest::proptest! {
        #[test]
        fn a_file_cut_anywhere_gives_the_whole_lines_before_the_cut(count in 0_usize..20, cut in 0_usize..100) {
            let lines: Vec<String> = (0..count).map(|n| format!("{}\n", n * 1000)).collect();
            let whole = lines.concat();
            let cut = cut.min(whole.len());
            let (_folder, path) = file(&whole.as_bytes()[..cut]);
            let expected = whole[..cut].matches('\n').count();
            proptest::prop_assert_eq!(open::<usize>(&path).unwrap().len(), expected);
        }
    }
}
