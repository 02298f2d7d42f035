//! Whether what came under the name of a document can be one, by its beginning. Pure.
//!
//! Networks answer in an upstream's place: with the page of a login, with an empty 200, with a few words of JSON. Such an answer must not
//! take the place of a document that many depend on. What a document says is for its clients to check; here only its form counts, and
//! where that is open, it is one.
//!
//! | Document | What it has |
//! |---|---|
//! | page of the simple API | files or projects (JSON); anchors that name files, the mark of PEP 629, or the words of an empty list (HTML) |
//! | packument | an object of JSON with a member of packuments |
//! | `config.json`, file of a crate | `dl`; a line about a version |
//! | metadata of TUF | an object with `signed` and `signatures` |
//! | sidecar | a digest, of whichever function; signatures and what is no text are not looked at |

use serde_json::{Map, Value};

use super::{cargo, html, npm, pypi, tuf};
use crate::settings::{Kind, Upstream};

/// How many bytes of a document are looked at: far more than what stands before the first anchor of a page, or the first members of an object.
pub(crate) const BEGINNING: usize = 64 << 10;

/// Members of packuments and of manifests of one version.
const OF_PACKUMENTS: [&str; 6] = ["name", "_id", "versions", "version", "dist-tags", "dist"];

/// What lists of the simple API have as JSON (PEP 691).
const OF_LISTS: [&str; 3] = ["files", "projects", "meta"];

/// Endings of files that indexes of Python packages list.
const FILES: [&str; 10] = [
    ".whl",
    ".tar.gz",
    ".zip",
    ".tgz",
    ".tar.bz2",
    ".tar.xz",
    ".egg",
    ".exe",
    ".rpm",
    ".metadata",
];

/// What generators of empty lists call them, in lower case.
const TITLES: [&str; 3] = ["links for", "simple index", "index of"];

/// Endings of what stands beside lists of digests, and is met by globs such as `SHA256SUMS*`: signatures, and lists that are packed.
const BESIDE_LISTS: [&str; 10] = [
    ".asc", ".gpg", ".sig", ".sign", ".minisig", ".pem", ".gz", ".xz", ".bz2", ".zst",
];

/// Fewer hexadecimal digits than any function makes that lists of digests are written with (MD5).
const FEWEST_DIGITS: usize = 32;

/// A document whose form is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looked {
    /// A page of the simple API.
    Simple,
    /// A packument, or the manifest of one version.
    Packument,
    /// The `config.json` of a sparse index.
    CrateConfig,
    /// The file of a crate in a sparse index.
    CrateFile,
    /// Metadata of a TUF repository.
    Metadata,
    /// A list of digests.
    Digests,
}

impl Looked {
    /// What is at `path`, below the base URL of `upstream`; `None` for all that is not looked at.
    pub(crate) fn of(upstream: &Upstream, path: &str) -> Option<Self> {
        let path = path.split('?').next().unwrap_or_default();
        let found = match upstream.kind {
            Kind::Pypi => (pypi::is_page(path), Self::Simple),
            Kind::Npm => (npm::is_packument(path), Self::Packument),
            Kind::Cargo if path.ends_with("config.json") => (true, Self::CrateConfig),
            Kind::Cargo => (cargo::is_index_file(path), Self::CrateFile),
            Kind::Release => (tuf::lasting(path).is_some(), Self::Metadata),
            Kind::Packages | Kind::Registry | Kind::Generic => (false, Self::Digests),
        };
        if found.0 {
            return Some(found.1);
        }
        let is_list = upstream.is_sidecar(path) && !BESIDE_LISTS.iter().any(|end| path.ends_with(end));
        is_list.then_some(Self::Digests)
    }

    /// Whether `beginning`, the first bytes or, where it `is_whole`, all of them, can be those of such a document.
    pub(crate) fn fits(self, beginning: &[u8], is_whole: bool) -> bool {
        let text = beginning
            .strip_prefix(b"\xef\xbb\xbf")
            .unwrap_or(beginning)
            .trim_ascii_start();
        match self {
            Self::Simple if text.starts_with(b"{") => has_one_of(text, is_whole, &OF_LISTS),
            Self::Simple => is_list_of_links(text),
            Self::Packument => has_one_of(text, is_whole, &OF_PACKUMENTS),
            Self::CrateConfig => has_one_of(text, is_whole, &["dl"]),
            Self::CrateFile => has_version(text, is_whole),
            Self::Metadata => {
                has_one_of(text, is_whole, &["signed"])
                    && (!is_whole || has_one_of(text, true, &["signatures"]))
            }
            Self::Digests => !is_text(text) || has_digest(text),
        }
    }
}

/// Whether these bytes, which may end within a character, are UTF-8.
fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).map_or_else(|error| error.error_len().is_none(), |_text| true)
}

/// Whether a word of `text` is a digest. GNU's lines with escaped names begin with a backslash.
fn has_digest(text: &[u8]) -> bool {
    text.split(u8::is_ascii_whitespace).any(|word| {
        let word = word.strip_prefix(b"\\").unwrap_or(word);
        word.len() >= FEWEST_DIGITS && word.iter().all(u8::is_ascii_hexdigit)
    })
}

/// Whether `text` is an object of JSON with one of these members; of its beginning, whether it looks like that.
fn has_one_of(text: &[u8], is_whole: bool, members: &[&str]) -> bool {
    if is_whole {
        return serde_json::from_slice::<Map<String, Value>>(text)
            .is_ok_and(|object| members.iter().any(|member| object.contains_key(*member)));
    }
    text.starts_with(b"{")
        && members
            .iter()
            .any(|member| memchr::memmem::find(text, format!("\"{member}\"").as_bytes()).is_some())
}

/// Whether a line of `text` is about a version of a crate; the last one may be cut off.
fn has_version(text: &[u8], is_whole: bool) -> bool {
    let mut lines = text.split(|byte| *byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        let is_cut_off = !is_whole && lines.peek().is_none();
        if is_cut_off && line.starts_with(b"{") || has_one_of(line, true, &["vers"]) {
            return true;
        }
    }
    false
}

/// Whether a page of HTML is a list of the simple API ([PEP 503](https://peps.python.org/pep-0503/)), and not the page of a login.
fn is_list_of_links(page: &[u8]) -> bool {
    let (mut has_folders, mut is_for_people) = (false, false);
    for tag in html::start_tags(page) {
        let value = |name: &str| {
            let place = tag.attribute(name)?;
            Some(html::unescape(&page[place]).to_ascii_lowercase())
        };
        let is = |name: &str| tag.name.eq_ignore_ascii_case(name.as_bytes());
        if is("input") && value("type").as_deref() == Some("password") {
            return false;
        }
        // "<meta name="pypi:repository-version" content="1.0">" (PEP 629).
        if is("meta") && value("name").as_deref() == Some("pypi:repository-version") {
            return true;
        }
        if is("a") {
            let address = value("href").unwrap_or_default();
            if names_file(&address) {
                return true;
            }
            has_folders |= address.ends_with('/');
        }
        let is_sent_on = is("meta") && value("http-equiv").as_deref() == Some("refresh");
        is_for_people |= is_sent_on || is("form") || is("script");
    }
    !is_for_people && (has_folders || has_title(page))
}

/// Whether an anchor with `address`, in lower case, leads to a file of a project.
fn names_file(address: &str) -> bool {
    let (address, fragment) = address.split_once('#').unwrap_or((address, ""));
    let path = address.split('?').next().unwrap_or_default();
    let is_digest = |function: &str| fragment.starts_with(&format!("{function}="));
    FILES.iter().any(|ending| path.ends_with(ending))
        || ["sha256", "sha384", "sha512", "sha1", "md5"]
            .into_iter()
            .any(is_digest)
}

/// Whether it says of itself that it is a list.
fn has_title(page: &[u8]) -> bool {
    let text = page.to_ascii_lowercase();
    TITLES
        .iter()
        .any(|title| memchr::memmem::find(&text, title.as_bytes()).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p10_a_list_of_links_is_one_however_it_was_made_and_the_page_of_a_login_is_none() {
        for (page, is_one) in [
            // PyPI, pypiserver, devpi, servers that list folders.
            (
                "<meta name=\"pypi:repository-version\" content=\"1.3\"><h1>Links for a</h1>",
                true,
            ),
            (
                "<title>Links for a</title><a href=\"/packages/a-1.tar.gz#md5=00\">a-1</a>",
                true,
            ),
            (
                "<h1>a</h1><form action=refresh><input type=submit></form><a href='../+f/a-1.whl'>a</a>",
                true,
            ),
            (
                "<html><head><title>Index of /a/</title></head><a href=\"../\">../</a>",
                true,
            ),
            ("<a href=\"b/\">b</a>", true),
            (
                "<a href=\"https://files.example/x?download=1#sha256=00\">x</a>",
                true,
            ),
            ("<html><body><h1>Links for a</h1></body></html>", true),
            // Logins.
            (
                "<form><input type=password></form><a href=\"help.zip\">help</a>",
                false,
            ),
            (
                "<title>Login</title><form action=/login></form><a href=\"/home/\">home</a>",
                false,
            ),
            (
                "<meta http-equiv=refresh content='0;url=http://portal.example/'><a href=\"http://portal.example/\">on</a>",
                false,
            ),
            (
                "<script>location='http://portal.example/'</script><a href=\"/\">on</a>",
                false,
            ),
            ("<html>login to hotel wifi", false),
            ("<a href=\"login\">login</a>", false),
            ("", false),
        ] {
            assert_eq!(Looked::Simple.fits(page.as_bytes(), true), is_one, "{page}");
        }
    }

    #[test]
    fn p10_a_list_of_digests_names_one_and_words_of_text_are_none() {
        let (md5, sha256) = ("a".repeat(32), "0F".repeat(32));
        for (text, is_one) in [
            (format!("{sha256}  a.tar\n"), true),
            (sha256.clone(), true),
            (format!("SHA256 (a) = {sha256}\n"), true),
            (format!("\\{sha256}  a\\nb\n"), true),
            (
                format!("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{md5}  a\n"),
                true,
            ),
            (String::new(), false),
            ("\n".to_owned(), false),
            ("please log in".to_owned(), false),
            (
                "<a href=\"/login?state=0123456789abcdef0123456789abcdef\">".to_owned(),
                false,
            ),
        ] {
            assert_eq!(Looked::Digests.fits(text.as_bytes(), true), is_one, "{text}");
        }
        assert!(
            Looked::Digests.fits(b"\x89\x02\x33\x04", true),
            "no text: not for us to judge"
        );
        let settings: crate::settings::Settings = kato_shared::settings::parse(
            std::path::Path::new("proxy.toml"),
            "[[upstream]]\nname = \"dl\"\nurls = [\"https://dl.example/\"]\ndigests = [\"SHA256SUMS*\"]\n",
        )
        .unwrap();
        let looked = |path: &str| Looked::of(&settings.upstreams[0], path);
        assert_eq!(looked("v1/SHA256SUMS"), Some(Looked::Digests));
        assert_eq!(looked("v1/SHA256SUMS.asc"), None, "a signature lists nothing");
        assert_eq!(looked("v1/a.tar"), None);
    }

    #[test]
    fn p10_data_is_what_has_the_members_of_its_kind() {
        use Looked::{CrateConfig, CrateFile, Metadata, Packument, Simple};
        let line = "{\"name\":\"a\",\"vers\":\"1.0.0\"}";
        for (looked, text, is_one) in [
            (Simple, "{\"meta\":{},\"files\":[]}", true),
            (Simple, "{\"login\":\"/\"}", false),
            (Packument, "\u{feff}{\"name\":\"a\"}", true),
            (Packument, "{\"dist\":{}}", true),
            (Packument, "{\"login\":\"/\"}", false),
            (Packument, "[]", false),
            (Packument, "", false),
            (CrateConfig, "{\"dl\":\"x\"}", true),
            (CrateConfig, "{}", false),
            (CrateFile, line, true),
            (CrateFile, "broken\n{\"name\":\"a\",\"vers\":\"1.0.0\"}\n", true),
            (CrateFile, "<html>", false),
            (CrateFile, "", false),
            (Metadata, "{\"signatures\":[],\"signed\":{}}", true),
            (Metadata, "{\"signed\":{}}", false),
            (Metadata, "<html>", false),
            (Metadata, "", false),
        ] {
            assert_eq!(looked.fits(text.as_bytes(), true), is_one, "{looked:?} {text}");
        }
        for (looked, text, is_one) in [
            (Packument, "{\"_id\":\"a\",\"versions\":{\"1.0", true),
            (Packument, "{\"x\":\"a\",\"y\":{\"1.0", false),
            (CrateFile, "{\"name\":\"a\",\"ve", true),
            (Metadata, "{\"signed\":{\"_type", true),
            (Metadata, "<html>\"signed\"", false),
        ] {
            assert_eq!(looked.fits(text.as_bytes(), false), is_one, "{looked:?} {text}");
        }
    }
}
