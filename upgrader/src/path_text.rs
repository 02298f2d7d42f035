//! Paths in JSON documents, whatever their bytes: a path is a string, and one that is not UTF-8 is written in an escaped form that loses nothing.
//!
//! `escaped:` comes first, then the path, in which `\\` is a backslash and `\xHH` a byte that belongs to no UTF-8 character (`s/etc/caf\xe9`).
//! A path that begins with `escaped:` itself is written so as well; every other one stands as it is, backslashes included, so that documents
//! of earlier versions mean what they meant. The same form is shown to people: `printf %b` makes the path of it.
//!
//! The functions are for `#[serde(with = "path_text")]` and the modules below for collections. Deliberately absent: paths in settings
//! and releases, which are texts.

use std::{
    borrow::Cow,
    ffi::OsString,
    fmt::Write as _,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

/// How the escaped form begins.
const PREFIX: &str = "escaped:";

/// A text that begins as the escaped form and is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no escaped path: expected `\\\\` or `\\xHH` after each backslash")]
pub struct PathTextError {
    /// The text.
    pub text: String,
}

/// The text of `path`.
pub fn show(path: &Path) -> Cow<'_, str> {
    match path.to_str() {
        Some(text) if !text.starts_with(PREFIX) => Cow::Borrowed(text),
        _ => Cow::Owned(escaped(path)),
    }
}

fn escaped(path: &Path) -> String {
    let mut text = PREFIX.to_owned();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', "\\\\"));
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _infallible = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// The path of `text`.
///
/// # Errors
/// [`PathTextError`] when it begins as the escaped form and is none.
pub fn read(text: &str) -> Result<PathBuf, PathTextError> {
    let Some(escaped) = text.strip_prefix(PREFIX) else {
        return Ok(text.into());
    };
    unescaped(escaped.as_bytes())
        .map(|bytes| OsString::from_vec(bytes).into())
        .ok_or_else(|| PathTextError { text: text.into() })
}

fn unescaped(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut left = text;
    while let Some((first, rest)) = left.split_first() {
        left = match (first, rest) {
            (b'\\', [b'\\', rest @ ..]) => {
                bytes.push(b'\\');
                rest
            }
            (b'\\', [b'x', high, low, rest @ ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
                rest
            }
            (b'\\', _) => return None,
            _ => {
                bytes.push(*first);
                rest
            }
        };
    }
    Some(bytes)
}

/// Writes one path.
///
/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&show(path))
}

/// Reads one path.
///
/// # Errors
/// The deserializer's, and that of an escaped form that is none.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    read(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// A path that may be absent, only written.
pub mod option {
    use super::{PathBuf, Serializer, show};

    /// Writes it.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
        match path {
            Some(path) => serializer.serialize_some(&*show(path)),
            None => serializer.serialize_none(),
        }
    }
}

/// Lists and sets of paths.
pub mod many {
    use serde::de::Error as _;

    use super::{Deserialize as _, Deserializer, PathBuf, Serializer, read, show};

    /// Writes them.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<'a, C, S>(paths: &'a C, serializer: S) -> Result<S::Ok, S::Error>
    where
        &'a C: IntoIterator<Item = &'a PathBuf>,
        S: Serializer,
    {
        serializer.collect_seq(paths.into_iter().map(|path| show(path)))
    }

    /// Reads them.
    ///
    /// # Errors
    /// The deserializer's, and that of an escaped form that is none.
    pub fn deserialize<'de, C: FromIterator<PathBuf>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<C, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts
            .iter()
            .map(|text| read(text).map_err(D::Error::custom))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn every_path_comes_back_and_texts_stay_as_they_were() {
        for (bytes, text) in [
            (&b"s/etc/app.conf"[..], "s/etc/app.conf"),
            (b"etc/dev-disk\\x2dlabel.swap", "etc/dev-disk\\x2dlabel.swap"),
            ("s/Größe".as_bytes(), "s/Größe"),
            (b"s/caf\xe9", "escaped:s/caf\\xe9"),
            (b"s/\xff\\x41\xc3", "escaped:s/\\xff\\\\x41\\xc3"),
            (b"escaped:x", "escaped:escaped:x"),
            (b"", ""),
        ] {
            let path = Path::new(OsStr::from_bytes(bytes));
            assert_eq!(show(path), text);
            assert_eq!(read(text).unwrap(), path);
        }
        for wrong in ["escaped:\\", "escaped:a\\x4", "escaped:\\xg0", "escaped:\\n"] {
            let error = read(wrong).unwrap_err();
            assert_eq!(error.text, wrong);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_come_back(bytes: Vec<u8>) {
            let path = Path::new(OsStr::from_bytes(&bytes));
            assert_eq!(read(&show(path)).unwrap(), path);
        }
    }
}
