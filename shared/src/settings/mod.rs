//! Settings files: TOML into a validated type, with errors that name file, line and the nearest valid key.
//!
//! Flow: text → [`toml`] document with positions → [`value`] deserializer → the program's own fragment type
//! (`#[serde(deny_unknown_fields, default)]`), which the program merges with its flags and validates.
//!
//! Deliberately absent: the keys themselves (each program owns its own), and environment variables (the
//! command line parser reads `KATO_…` beside the flags).

pub mod byte_size;
pub mod duration;
pub mod range;
pub mod text;
pub mod told;
mod value;

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

pub use byte_size::ByteSize;
pub use duration::HumanDuration;
pub use told::Warning;

/// A settings file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("reading the settings file `{path}` failed")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file can be read but not understood.
    #[error("{path}:{line}: {message}{}", hint.as_ref().map(|h| format!("\nhint: {h}")).unwrap_or_default())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong there.
        message: String,
        /// What to write instead.
        hint: Option<String>,
    },
}

/// Reads the settings file `path` into `T`.
///
/// # Errors
/// [`SettingsError::Read`] when the file cannot be read, [`SettingsError::Invalid`] with the line when it is not TOML,
/// has an unknown key (with the nearest valid one as hint), or a value of the wrong kind.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, SettingsError> {
    load_told(path).map(|(settings, _)| settings)
}

/// [`load`], with what is to be said of a file that is taken all the same.
///
/// # Errors
/// As [`load`].
pub fn load_told<T: DeserializeOwned>(path: &Path) -> Result<(T, Vec<Warning>), SettingsError> {
    let bytes = std::fs::read(path).map_err(|source| SettingsError::Read {
        path: path.to_owned(),
        source,
    })?;
    let text = String::from_utf8(bytes).map_err(|error| not_text(path, &error))?;
    parse_told(path, &text)
}

/// Names the line of the first byte that is no UTF-8, which TOML has to be: mostly a letter in Latin-1.
fn not_text(path: &Path, error: &std::string::FromUtf8Error) -> SettingsError {
    let (bytes, at) = (error.as_bytes(), error.utf8_error().valid_up_to());
    let before = bytes.get(..at).unwrap_or_default();
    SettingsError::Invalid {
        path: path.to_owned(),
        line: before.split(|byte| *byte == b'\n').count(),
        message: format!(
            "expected UTF-8, found the byte 0x{:02x}",
            bytes.get(at).copied().unwrap_or_default()
        ),
        hint: Some("save the file as UTF-8".to_owned()),
    }
}

/// [`load`] for a text that was read already; `path` only names it in errors.
///
/// # Errors
/// [`SettingsError::Invalid`].
pub fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, SettingsError> {
    parse_told(path, text).map(|(settings, _)| settings)
}

/// [`load_told`] for a text that was read already; `path` only names it.
///
/// # Errors
/// [`SettingsError::Invalid`].
pub fn parse_told<T: DeserializeOwned>(path: &Path, text: &str) -> Result<(T, Vec<Warning>), SettingsError> {
    let invalid = |offset: usize, message: String, hint: Option<String>| SettingsError::Invalid {
        path: path.to_owned(),
        line: line_at(text, offset),
        message,
        hint,
    };
    let table = toml::de::DeTable::parse(text).map_err(|error| {
        invalid(
            error.span().map_or(0, |span| span.start),
            error.message().to_owned(),
            None,
        )
    })?;
    // What was read in vain before is of no interest.
    told::take();
    let read = T::deserialize(value::root(table));
    let told = told::take();
    let settings = read.map_err(|error| {
        let (offset, message, hint) = error.into_parts();
        invalid(offset, message, hint)
    })?;
    let placed = |(offset, message)| Warning {
        path: path.to_owned(),
        line: line_at(text, offset),
        message,
    };
    Ok((settings, told.into_iter().map(placed).collect()))
}

fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Fragment {
        listen: Listen,
        upstream: Vec<Upstream>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Listen {
        data: Option<String>,
        max_size: Option<ByteSize>,
        grace: Option<HumanDuration>,
        workers: Option<u16>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Upstream {
        name: String,
        #[serde(default)]
        kind: Kind,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        #[default]
        Generic,
        Registry,
    }

    fn read(text: &str) -> Result<Fragment, String> {
        parse(Path::new("proxy.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_whole_file_is_read() {
        let text = "[listen]\ndata = \":1\"\nmax_size = \"50GiB\"\ngrace = \"1m 30s\"\n[[upstream]]\nname = \"pkg\"\nkind = \"registry\"\n";
        let fragment = read(text).unwrap();
        assert_eq!(fragment.listen.max_size.map(ByteSize::bytes), Some(50 << 30));
        assert_eq!(fragment.listen.grace.map(|grace| grace.get().as_secs()), Some(90));
        assert_eq!(
            fragment.upstream,
            [Upstream {
                name: "pkg".into(),
                kind: Kind::Registry
            }]
        );
    }

    #[test]
    fn a_letter_in_another_encoding_is_refused_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cluster.toml");
        crate::durable::write(&path, b"[listen]\n# caf\xe9\ndata = \"x\"\n", 0o644).unwrap();
        let refused = load::<Fragment>(&path).unwrap_err().to_string();
        assert!(
            refused.contains("cluster.toml:2: expected UTF-8, found the byte 0xe9"),
            "{refused}"
        );
        assert!(refused.contains("hint: save the file as UTF-8"), "{refused}");
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_the_nearest_valid_key() {
        let error = read("[listen]\nmax_szie = \"1GiB\"\n").unwrap_err();
        assert_eq!(
            error,
            "proxy.toml:2: unknown key `max_szie`\nhint: did you mean `max_size`? valid here: data, max_size, grace, workers"
        );
        let error = read("\n\n[[upstream]]\nname = \"a\"\n[upstraem]\n").unwrap_err();
        assert!(
            error.starts_with("proxy.toml:5: unknown key `upstraem`\nhint: did you mean `upstream`?"),
            "{error}"
        );
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_refused_with_its_line() {
        for (text, expected) in [
            (
                "[listen]\nworkers = \"four\"\n",
                "proxy.toml:2: invalid type: string \"four\", expected u16",
            ),
            (
                "[listen]\nworkers = 70000\n",
                "proxy.toml:2: invalid value: integer `70000`, expected u16",
            ),
            (
                "[listen]\nmax_size = \"lots\"\n",
                "proxy.toml:2: `lots` is not a size: expected a number and a unit, e.g. `50GiB`",
            ),
            (
                "[[upstream]]\nname = \"a\"\nkind = \"regstry\"\n",
                "proxy.toml:3: unknown value `regstry`\nhint: did you mean `registry`? valid here: generic, registry",
            ),
            (
                "[[upstream]]\nkind = \"generic\"\n",
                "proxy.toml:1: the key `name` is missing",
            ),
        ] {
            assert_eq!(read(text).unwrap_err(), expected);
        }
    }

    #[test]
    fn broken_toml_is_refused_with_its_line() {
        assert!(
            read("[listen]\ndata = \n")
                .unwrap_err()
                .starts_with("proxy.toml:2: ")
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load::<Fragment>(Path::new("/nonexistent/proxy.toml")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/proxy.toml"));
    }
}
