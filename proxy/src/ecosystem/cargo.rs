//! Rust package indexes by the [sparse protocol]: `config.json` says where archives are, one file for each crate says what
//! they must be.
//!
//! Deliberately absent: the git form of the index, which no cache of files can serve.
//!
//! [sparse protocol]: https://doc.rust-lang.org/cargo/reference/registry-index.html

use std::{borrow::Cow, str};

use serde::{Deserialize, Serialize};
use url::Url;

use super::{Taught, hex};

/// The markers that a template of addresses may have.
const MARKERS: [&str; 5] = [
    "{crate}",
    "{version}",
    "{prefix}",
    "{lowerprefix}",
    "{sha256-checksum}",
];

/// `config.json`, as far as it is for those who download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The template of archives' addresses.
    pub dl: String,
    /// Whether each request must be authorised.
    #[serde(default, rename = "auth-required", skip_serializing_if = "std::ops::Not::not")]
    pub auth_required: bool,
}

impl Config {
    /// Reads the document.
    ///
    /// # Errors
    /// A text that says why it is none.
    pub fn read(document: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(document).map_err(|error| error.to_string())
    }

    /// The part of the template before the first marker, and the rest.
    pub fn split(&self) -> (&str, &str) {
        let first = MARKERS.iter().filter_map(|marker| self.dl.find(marker)).min();
        self.dl.split_at(first.unwrap_or(self.dl.len()))
    }

    /// The address of an archive.
    pub fn archive(&self, name: &str, version: &str, cksum: &str) -> Option<Url> {
        let has_marker = MARKERS.iter().any(|marker| self.dl.contains(marker));
        // "If none of the markers are present, then the value /{crate}/{version}/download is appended to the end."
        let template = if has_marker {
            Cow::Borrowed(self.dl.as_str())
        } else {
            Cow::Owned(format!("{}/{{crate}}/{{version}}/download", self.dl))
        };
        let address = template
            .replace("{crate}", name)
            .replace("{version}", version)
            .replace("{prefix}", &prefix(name))
            .replace("{lowerprefix}", &prefix(&name.to_lowercase()))
            .replace("{sha256-checksum}", cksum);
        Url::parse(&address).ok()
    }
}

/// The folder of a crate's index file.
fn prefix(name: &str) -> String {
    let at = |range: std::ops::Range<usize>| name.get(range).unwrap_or_default();
    match name.len() {
        0..=2 => name.len().to_string(),
        3 => format!("3/{}", at(0..1)),
        _ => format!("{}/{}", at(0..2), at(2..4)),
    }
}

/// Where the file of the crate `name` stands, below the base URL of an index.
pub fn index_path(name: &str) -> String {
    let name = name.to_lowercase();
    format!("{}/{name}", prefix(&name))
}

/// Whether `path`, below the base URL of an index, is where the file of a crate stands: `1/a`, `3/a/abc`, `ab/cd/abcd`.
pub fn is_index_file(path: &str) -> bool {
    path.rsplit_once('/').is_some_and(|(folders, name)| {
        let expected = prefix(&name.to_lowercase());
        let is_name = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        is_name
            && folders
                .to_lowercase()
                .strip_suffix(&expected)
                .is_some_and(|above| above.is_empty() || above.ends_with('/'))
    })
}

/// How many folders the file of a crate stands below that of `config.json`.
pub fn levels(path: &str) -> usize {
    let name = path.rsplit('/').next().unwrap_or_default();
    1 + prefix(name).matches('/').count()
}

/// One line of a crate's index file.
#[derive(Deserialize)]
struct Line<'d> {
    #[serde(borrow)]
    name: Cow<'d, str>,
    #[serde(borrow)]
    vers: Cow<'d, str>,
    #[serde(borrow)]
    cksum: Cow<'d, str>,
}

/// Whether the file of a crate lists `version`.
pub(crate) fn lists(document: &[u8], version: &str) -> bool {
    let mut lines = document.split(|byte| *byte == b'\n');
    lines.any(|line| serde_json::from_slice::<Line<'_>>(line).is_ok_and(|line| line.vers == version))
}

/// What a crate's index file teaches about archives at the addresses of `config`. Lines that cannot be read teach nothing.
pub fn lessons(config: &Config, document: &[u8]) -> Vec<Taught> {
    let lines = document.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| {
            let line: Line<'_> = serde_json::from_slice(line).ok()?;
            let url = config.archive(&line.name, &line.vers, &line.cksum)?;
            Some(Taught::sha256(url, hex(&line.cksum)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use kato_shared::Digest;

    use super::{super::Integrity, *};

    fn config(dl: &str) -> Config {
        Config::read(format!(r#"{{"dl":"{dl}","api":"https://x.example"}}"#).as_bytes()).unwrap()
    }

    #[test]
    fn archives_are_where_the_template_says() {
        for (dl, name, expected) in [
            (
                "https://dl.example/crates",
                "serde",
                "https://dl.example/crates/serde/1.0.0/download",
            ),
            (
                "https://dl.example/{prefix}/{crate}-{version}.crate",
                "Serde",
                "https://dl.example/Se/rd/Serde-1.0.0.crate",
            ),
            (
                "https://dl.example/{lowerprefix}/{sha256-checksum}",
                "Foo",
                "https://dl.example/3/f/00",
            ),
            (
                "https://dl.example/{prefix}/{crate}",
                "a",
                "https://dl.example/1/a",
            ),
        ] {
            let url = config(dl).archive(name, "1.0.0", "00").unwrap();
            assert_eq!(url.as_str(), expected);
        }
        assert_eq!(
            config("https://d.example/{crate}").split(),
            ("https://d.example/", "{crate}")
        );
        assert_eq!(config("https://d.example/x").split(), ("https://d.example/x", ""));
    }

    #[test]
    fn a_crates_file_stands_where_its_name_says() {
        for (path, is_one) in [
            ("1/a", true),
            ("2/ab", true),
            ("3/a/abc", true),
            ("se/rd/serde", true),
            ("index/se/rd/serde", true),
            ("config.json", false),
            ("serde/1.0.0/download", false),
            ("ab/cd/serde", false),
            ("xse/rd/serde", false),
        ] {
            assert_eq!(is_index_file(path), is_one, "{path}");
        }
    }

    #[test]
    fn an_index_file_teaches_a_digest_for_each_version_that_can_be_read() {
        let digest = Digest::of(b"archive");
        let document = format!(
            "{{\"name\":\"foo\",\"vers\":\"1.0.0\",\"deps\":[],\"cksum\":\"{}\",\"features\":{{}},\"yanked\":false}}\nbroken\n",
            digest.hex()
        );
        let taught = lessons(&config("https://dl.example"), document.as_bytes());
        assert_eq!(taught.len(), 1);
        assert_eq!(taught[0].url.as_str(), "https://dl.example/foo/1.0.0/download");
        assert_eq!(taught[0].integrity, Integrity::Sha256(digest));
    }
}
