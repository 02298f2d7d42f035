//! Pages of package indexes without what is not held: how a mirror without a network shows them, so that resolvers choose a version that
//! they will get.
//!
//! Flow: [`promised`] names the files of a document, the pipeline looks which of them are held, [`without`] takes the others out.
//!
//! | Kind | What goes |
//! |---|---|
//! | `pypi` | the anchor, or the member of `files` |
//! | `npm` | the version, and tags that meant it; `latest` then means the newest release that is left |
//! | `cargo` | the line of the crate's file |
//!
//! Filtering is legal where altering is not: cargo demands that a replacement of a source be a subset of it. What is signed (apt) has no
//! view at all and is sent as it is. Pure.

use std::{
    collections::{BTreeSet, HashSet},
    ops::Range,
    str,
};

use http::HeaderMap;
use semver::Version;
use serde::Deserialize;
use serde_json::{Map, Value};
use url::Url;

use super::{View, ViewError, media_type, splice::splice};
use crate::ecosystem::{
    Integrity,
    cargo::{self, Config},
    npm,
    pypi::{self, Format},
};

/// A file that a document names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promised {
    /// Where it is, absolute and without a fragment.
    pub url: Url,
    /// What its content must be, where the document says so.
    pub integrity: Option<Integrity>,
}

/// The files that `document`, found at `url`, names. None where nothing is filtered.
pub fn promised(
    view: View,
    (headers, document): (&HeaderMap, &[u8]),
    url: &Url,
    config: Option<&Config>,
) -> Vec<Promised> {
    match (view, format(view, headers)) {
        (View::Simple, Some(format)) => {
            let page = pypi::read(document, format).unwrap_or_default();
            let base = page.resolved_against(url);
            let files = page.files.iter();
            let promised = files.filter_map(|file| {
                Some(Promised {
                    url: plain(base.join(&file.address).ok()?),
                    integrity: file.sha256.map(Integrity::Sha256),
                })
            });
            promised.collect()
        }
        (View::Packument, _) => {
            let tarballs = npm::tarballs(document).unwrap_or_default().into_iter();
            let promised = tarballs.filter_map(|tarball| {
                Some(Promised {
                    url: plain(url.join(&tarball.address).ok()?),
                    integrity: tarball.integrity,
                })
            });
            promised.collect()
        }
        (View::CrateFile, _) => {
            let taught = config.map(|config| cargo::lessons(config, document));
            let promised = taught.into_iter().flatten().map(|taught| Promised {
                url: plain(taught.url),
                integrity: Some(taught.integrity),
            });
            promised.collect()
        }
        (View::Simple | View::CrateConfig, _) => Vec::new(),
    }
}

/// `document` without the files that are not among `held`; `None` where it stays as it is.
///
/// # Errors
/// [`ViewError::Unreadable`] where it is not what documents at such paths are.
pub fn without(
    view: View,
    (headers, document): (&HeaderMap, &[u8]),
    url: &Url,
    (held, config): (&BTreeSet<Url>, Option<&Config>),
) -> Result<Option<Vec<u8>>, ViewError> {
    match (view, format(view, headers)) {
        (View::Simple, Some(Format::Html)) => Ok(Some(anchors(document, url, held))),
        (View::Simple, Some(Format::Json)) => json(document, |page| files(page, url, held)).map(Some),
        (View::Packument, _) => json(document, |packument| versions(packument, url, held)).map(Some),
        (View::CrateFile, _) => Ok(config.map(|config| lines(document, config, held))),
        (View::Simple | View::CrateConfig, _) => Ok(None),
    }
}

fn format(view: View, headers: &HeaderMap) -> Option<Format> {
    if view != View::Simple {
        return None;
    }
    match media_type(headers).to_ascii_lowercase().as_str() {
        "text/html" | "application/vnd.pypi.simple.v1+html" => Some(Format::Html),
        "application/vnd.pypi.simple.v1+json" => Some(Format::Json),
        _ => None,
    }
}

fn plain(mut url: Url) -> Url {
    url.set_fragment(None);
    url
}

fn is_held(base: &Url, address: &str, held: &BTreeSet<Url>) -> bool {
    base.join(address).is_ok_and(|url| held.contains(&plain(url)))
}

/// Takes out anchors of HTML, from `<a` to `</a>` and the line's end.
fn anchors(page: &[u8], url: &Url, held: &BTreeSet<Url>) -> Vec<u8> {
    let read = pypi::read(page, Format::Html).unwrap_or_default();
    let base = read.resolved_against(url);
    let absent = read
        .files
        .iter()
        .filter(|file| !is_held(&base, &file.address, held));
    let places = absent.filter_map(|file| Some((anchor(page, &file.place)?, String::new())));
    splice(page, places)
}

/// The whole element around the value of an anchor's `href`.
fn anchor(page: &[u8], address: &Range<usize>) -> Option<Range<usize>> {
    let start = page[..address.start].iter().rposition(|byte| *byte == b'<')?;
    let behind = &page[address.end..];
    let length = behind
        .windows(4)
        .position(|four| four.eq_ignore_ascii_case(b"</a>"))?
        + 4;
    let mut end = address.end + length;
    for skipped in [&b"<br />"[..], b"<br/>", b"<br>", b"\n"] {
        if page[end..].starts_with(skipped) {
            end += skipped.len();
        }
    }
    Some(start..end)
}

fn json(document: &[u8], change: impl FnOnce(&mut Map<String, Value>)) -> Result<Vec<u8>, ViewError> {
    let unreadable = |cause: serde_json::Error| ViewError::Unreadable {
        expected: "a document of a package index",
        cause: cause.to_string(),
    };
    let mut read: Map<String, Value> = serde_json::from_slice(document).map_err(unreadable)?;
    change(&mut read);
    serde_json::to_vec(&read).map_err(unreadable)
}

/// Takes files out of a page of the simple API in JSON, and out of `versions` (PEP 700) those of which no file is left, as far as
/// names of files tell.
fn files(page: &mut Map<String, Value>, url: &Url, held: &BTreeSet<Url>) {
    let mut left = String::new();
    if let Some(Value::Array(files)) = page.get_mut("files") {
        files.retain(|file| {
            let address = file.get("url").and_then(Value::as_str);
            address.is_some_and(|address| is_held(url, address, held))
        });
        for file in files {
            left += file.get("filename").and_then(Value::as_str).unwrap_or_default();
            left.push('/');
        }
    }
    if let Some(Value::Array(versions)) = page.get_mut("versions") {
        versions.retain(|version| {
            version
                .as_str()
                .is_some_and(|version| left.contains(&format!("-{version}")))
        });
    }
}

/// Takes versions out of a packument.
fn versions(packument: &mut Map<String, Value>, url: &Url, held: &BTreeSet<Url>) {
    let Some(Value::Object(versions)) = packument.get_mut("versions") else {
        return;
    };
    versions.retain(|_, version| {
        let tarball = version
            .get("dist")
            .and_then(|dist| dist.get("tarball"))
            .and_then(Value::as_str);
        tarball.is_some_and(|address| is_held(url, address, held))
    });
    let left: HashSet<String> = versions.keys().cloned().collect();
    let newest = left
        .iter()
        .filter_map(|text| Version::parse(text).ok())
        .max_by(|one, other| (one.pre.is_empty(), one).cmp(&(other.pre.is_empty(), other)));
    if let Some(Value::Object(tags)) = packument.get_mut("dist-tags") {
        tags.retain(|_, version| version.as_str().is_some_and(|version| left.contains(version)));
        if let Some(newest) = newest
            && !tags.contains_key("latest")
        {
            tags.insert("latest".into(), newest.to_string().into());
        }
    }
}

/// Takes lines out of a crate's file. Lines that cannot be read stay out as well.
fn lines(document: &[u8], config: &Config, held: &BTreeSet<Url>) -> Vec<u8> {
    #[derive(Deserialize)]
    struct Line {
        name: String,
        vers: String,
        cksum: String,
    }
    let mut left = Vec::new();
    for line in document.split(|byte| *byte == b'\n') {
        let archive = serde_json::from_slice::<Line>(line)
            .ok()
            .and_then(|line| config.archive(&line.name, &line.vers, &line.cksum));
        if archive.is_some_and(|url| held.contains(&plain(url))) {
            left.extend_from_slice(line);
            left.push(b'\n');
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::*;

    fn of_type(media_type: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(media_type))])
    }

    /// What is left of a document of which the files with these names are held.
    fn left(view: View, media_type: &'static str, document: &str, held: &[&str]) -> String {
        let url = Url::parse("https://index.example/simple/a/").unwrap();
        let config = Config {
            dl: "https://files.example/crates".into(),
            auth_required: false,
        };
        let headers = of_type(media_type);
        let all = promised(view, (&headers, document.as_bytes()), &url, Some(&config));
        assert!(all.len() > held.len(), "{all:?}");
        let held: BTreeSet<Url> = all
            .into_iter()
            .map(|promised| promised.url)
            .filter(|url| held.iter().any(|name| url.path().contains(name)))
            .collect();
        let shown = without(
            view,
            (&headers, document.as_bytes()),
            &url,
            (&held, Some(&config)),
        );
        String::from_utf8(shown.unwrap().unwrap()).unwrap()
    }

    #[test]
    fn a_page_in_html_loses_whole_anchors_and_nothing_else() {
        let page = "<h1>a</h1>\n<a href=\"a-1.whl#sha256=00\" data-x=\"<1>\">a-1</a><br/>\n<A HREF='../f/a-2.whl'>a-2</A><br/>\n<p>end";
        assert_eq!(
            left(View::Simple, "text/html", page, &["a-2"]),
            "<h1>a</h1>\n<A HREF='../f/a-2.whl'>a-2</A><br/>\n<p>end"
        );
        assert_eq!(left(View::Simple, "text/html", page, &[]), "<h1>a</h1>\n<p>end");
    }

    #[test]
    fn a_page_in_json_loses_files_and_the_versions_that_only_they_had() {
        let page = r#"{"name":"a","versions":["1.0","2.0"],"files":[
            {"filename":"a-1.0.whl","url":"a-1.0.whl","hashes":{}},{"filename":"a-2.0.whl","url":"a-2.0.whl","hashes":{}}]}"#;
        let shown = left(
            View::Simple,
            "application/vnd.pypi.simple.v1+json",
            page,
            &["a-1.0"],
        );
        let shown: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["versions"], serde_json::json!(["1.0"]));
        assert_eq!(shown["files"].as_array().unwrap().len(), 1);
        assert_eq!(shown["name"], "a");
    }

    #[test]
    fn a_packument_loses_versions_and_latest_means_the_newest_that_is_left() {
        let version =
            |text: &str| format!(r#""{text}":{{"dist":{{"tarball":"https://n.example/a/-/a-{text}.tgz"}}}}"#);
        let packument = format!(
            r#"{{"name":"a","dist-tags":{{"latest":"3.0.0","old":"1.9.0"}},"versions":{{{},{},{},{}}}}}"#,
            version("1.9.0"),
            version("1.10.0"),
            version("2.0.0-rc.1"),
            version("3.0.0"),
        );
        let shown = left(
            View::Packument,
            "application/json",
            &packument,
            &["1.9.0", "1.10.0", "2.0.0-rc"],
        );
        let shown: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(
            shown["dist-tags"],
            serde_json::json!({"latest": "1.10.0", "old": "1.9.0"})
        );
        assert_eq!(shown["versions"].as_object().unwrap().len(), 3);
    }

    #[test]
    fn the_file_of_a_crate_loses_lines() {
        let line = |version: &str| {
            format!(
                r#"{{"name":"a","vers":"{version}","cksum":"{}"}}"#,
                "ab".repeat(32)
            )
        };
        let file = format!("{}\n{}\nno line\n", line("1.0.0"), line("2.0.0"));
        assert_eq!(
            left(View::CrateFile, "text/plain", &file, &["2.0.0"]),
            format!("{}\n", line("2.0.0"))
        );
    }
}
