//! Texts that mean something only in a certain shape, refused where they stand in the file with what was expected; the sibling of
//! [`super::range`], which does the same for numbers.
//!
//! Flow: `#[serde(deserialize_with = "text::name")]` on a field of a fragment → [`super::value`] adds file and line.
//!
//! Deliberately absent: whether what is named is there (a program, a file, a host). The one who needs it finds that out.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize,
    de::{Deserializer, Error},
};
use url::Url;

const NAME: &str = "a name of letters, digits, `.`, `_` and `-`, which begins with a letter, a digit or `_`";
const FILLED: &str = "a text that is not empty and has no line breaks or other control characters";
const WEB: &str = "an address such as `https://host.example/path` (http or https)";
const ARGV: &str = "a program and its arguments, such as `[\"/usr/local/lib/platform/retire\", \"{node}\"]`";
const UNIT: &str =
    "the name of one unit, such as `dea.service`, which has no blanks and does not begin with `-`";
const UNITS: &str = "at least one unit, such as `[\"dea.service\"]`";

/// Whether `text` can be the name of a thing and of a file: neither a path nor an option.
fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !text.is_empty() && !text.starts_with(['-', '.']) && text.chars().all(plain)
}

fn is_filled(text: &str) -> bool {
    !text.trim().is_empty() && !text.contains(char::is_control)
}

fn refused<E: Error>(given: impl fmt::Debug, expected: &str) -> E {
    E::custom(format!("{given:?} given, expected {expected}"))
}

fn one<E: Error>(text: String, is_fine: fn(&str) -> bool, expected: &str) -> Result<String, E> {
    if is_fine(&text) {
        Ok(text)
    } else {
        Err(refused(text, expected))
    }
}

fn each<'de, D: Deserializer<'de>>(
    from: D,
    is_fine: fn(&str) -> bool,
    expected: &str,
) -> Result<Vec<String>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    texts
        .into_iter()
        .map(|text| one(text, is_fine, expected))
        .collect()
}

/// A name, or nothing.
///
/// # Errors
/// The deserializer's, with what was expected.
pub fn name_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() {
        return Ok(text);
    }
    one(text, is_name, &format!("{NAME}; or nothing"))
}

/// A name.
///
/// # Errors
/// The deserializer's, with what was expected.
pub fn name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    one(String::deserialize(from)?, is_name, NAME)
}

/// Names; there may be none.
///
/// # Errors
/// The deserializer's, with what was expected.
pub fn names<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    each(from, is_name, NAME)
}

/// A text that says something; also for a path and an [`Option`] of it.
///
/// # Errors
/// The deserializer's, with what was expected.
pub fn filled<'de, D: Deserializer<'de>, T: From<String>>(from: D) -> Result<T, D::Error> {
    one(String::deserialize(from)?, is_filled, FILLED).map(T::from)
}

/// [`filled`] for a path that may be absent.
///
/// # Errors
/// The deserializer's, with what was expected.
pub fn filled_if_any<'de, D: Deserializer<'de>, T: From<String>>(from: D) -> Result<Option<T>, D::Error> {
    filled(from).map(Some)
}

/// Texts that say something; there may be none.
///
/// # Errors
/// The deserializer's, with what was expected.
pub fn all_filled<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    each(from, is_filled, FILLED)
}

/// A program with its arguments. Arguments may be empty; the program may not.
///
/// # Errors
/// The deserializer's, with what was expected.
pub fn argv<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let argv = Vec::<String>::deserialize(from)?;
    let is_program = argv.first().is_some_and(|program| is_filled(program));
    let is_possible = argv.iter().all(|argument| !argument.contains('\0'));
    if is_program && is_possible {
        Ok(argv)
    } else {
        Err(refused(argv, ARGV))
    }
}

/// The units of each role, or of `*`: a role that is named has some.
///
/// # Errors
/// The deserializer's, with what was expected.
pub fn units<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, Vec<String>>, D::Error> {
    let units = BTreeMap::<String, Vec<String>>::deserialize(from)?;
    for (role, names) in &units {
        if role != "*" {
            one(role.clone(), is_name, &format!("a role, that is {NAME}; or `*`"))?;
        }
        if names.is_empty() {
            let expected = format!("{UNITS} for the role `{role}`; leave a role out that has none");
            return Err(refused(names, &expected));
        }
        let is_unit = |name: &str| is_filled(name) && !name.starts_with('-') && !name.contains(' ');
        if let Some(name) = names.iter().find(|name| !is_unit(name)) {
            return Err(refused(name, &format!("{UNIT}, for the role `{role}`")));
        }
    }
    Ok(units)
}

fn is_web(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.has_host()
}

fn one_web<E: Error>(url: Url) -> Result<Url, E> {
    if is_web(&url) {
        Ok(url)
    } else {
        // A refused address may have its secrets in any place.
        Err(E::custom(format!(
            "an address that begins with `{}:` given, expected {WEB}",
            url.scheme()
        )))
    }
}

/// An address that can be asked by HTTP; also for an [`Option`] of it.
///
/// # Errors
/// The deserializer's, with what was expected.
pub fn web<'de, D: Deserializer<'de>, T: From<Url>>(from: D) -> Result<T, D::Error> {
    one_web(Url::deserialize(from)?).map(T::from)
}

/// Addresses that can be asked by HTTP; there may be none.
///
/// # Errors
/// The deserializer's, with what was expected.
pub fn webs<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Url>, D::Error> {
    let urls = Vec::<Url>::deserialize(from)?;
    urls.into_iter().map(one_web).collect()
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Fragment {
        #[serde(deserialize_with = "name_or_none")]
        id: String,
        #[serde(deserialize_with = "name")]
        channel: String,
        #[serde(deserialize_with = "names")]
        roles: Vec<String>,
        #[serde(deserialize_with = "filled")]
        label: String,
        #[serde(deserialize_with = "filled_if_any")]
        file: Option<PathBuf>,
        #[serde(deserialize_with = "all_filled")]
        command: Vec<String>,
        #[serde(deserialize_with = "argv")]
        argv: Vec<String>,
        #[serde(deserialize_with = "units")]
        units: BTreeMap<String, Vec<String>>,
        #[serde(deserialize_with = "web")]
        url: Option<Url>,
        #[serde(deserialize_with = "webs")]
        urls: Vec<Url>,
    }

    fn read(text: &str) -> Result<Fragment, String> {
        super::super::parse(Path::new("x.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_can_be_meant_is_read_and_what_is_absent_stays_absent() {
        assert_eq!(read("").unwrap(), Fragment::default());
        for text in [
            "id = \"\"",
            "id = \"core-1.lab_2\"",
            "channel = \"stable\"",
            "roles = []",
            "roles = [\"dea\", \"_x\"]",
            "label = \"tier=web\"",
            "file = \"/etc/kato/root.json\"",
            "command = []",
            "argv = [\"systemctl\", \"\", \"a b\"]",
            "units = {}",
            "units = { \"*\" = [\"a@1.service\"], dea = [\"b.service\", \"c.service\"] }",
            "url = \"http://127.0.0.1:3180/\"",
            "urls = [\"https://user:pass@h.example/x\"]",
        ] {
            assert!(read(text).is_ok(), "{text}: {:?}", read(text));
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_line_and_what_was_expected() {
        for (value, expected) in [
            ("id = \"../x\"", "a name of letters"),
            ("id = \"a/b\"", "a name of letters"),
            ("id = \"a\\nb\"", "a name of letters"),
            ("id = \"-x\"", "or nothing"),
            ("channel = \"\"", "a name of letters"),
            ("roles = [\"dea\", \"\"]", "a name of letters"),
            ("roles = [\"dea,web\"]", "a name of letters"),
            ("label = \" \"", "a text that is not empty"),
            ("label = \"a\\u001bb\"", "a text that is not empty"),
            ("file = \"\"", "a text that is not empty"),
            ("command = [\"docker\", \"\"]", "a text that is not empty"),
            ("argv = []", "a program and its arguments"),
            ("argv = [\"\", \"x\"]", "a program and its arguments"),
            ("argv = [\"x\", \"a\\u0000\"]", "a program and its arguments"),
            ("units = { dea = [] }", "at least one unit"),
            ("units = { dea = [\"\"] }", "for the role `dea`"),
            ("units = { dea = [\"--now\"] }", "does not begin with `-`"),
            (
                "units = { \"*\" = [\"ok.service\", \"a b.service\"] }",
                "has no blanks",
            ),
            (
                "units = { \"*\" = [\"a b.service\"] }",
                "\"a b.service\" given, expected the name of one unit",
            ),
            ("units = { \"a b\" = [\"x.service\"] }", "a role, that is a name"),
            ("url = \"ftp://h.example/\"", "an address such as"),
            ("url = \"mailto:me@h.example\"", "an address such as"),
            (
                "urls = [\"http://h.example/\", \"file:///etc/passwd\"]",
                "an address such as",
            ),
        ] {
            let refused = read(&format!("\n{value}\n")).unwrap_err();
            assert!(refused.starts_with("x.toml:2: "), "{refused}");
            assert!(
                refused.contains("given, expected ") && refused.contains(expected),
                "{value}: {refused}"
            );
        }
        let refused = read("urls = [\"ftp://user:hunter2@h.example/\"]").unwrap_err();
        assert!(!refused.contains("hunter2"), "{refused}");
    }
}
