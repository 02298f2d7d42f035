//! Python package indexes: the pages of the simple repository API, as HTML ([PEP 503]) and as JSON ([PEP 691]).
//!
//! [`read`] reads a page and says of each file where its address stands in the page, byte for byte, and which digests the page
//! promises. Who rewrites addresses needs the places, who learns needs the digests; both read with the same eyes.
//!
//! Deliberately absent: a general HTML parser. Index pages are lists of anchors; what is not an anchor is left alone.
//!
//! [PEP 503]: https://peps.python.org/pep-0503/
//! [PEP 691]: https://peps.python.org/pep-0691/

use std::{borrow::Cow, ops::Range, str};

use kato_shared::Digest;
use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

use super::{Taught, hex, html, span_of};

/// In which of its two forms a page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `text/html`, `application/vnd.pypi.simple.v1+html`.
    Html,
    /// `application/vnd.pypi.simple.v1+json`.
    Json,
}

/// A file that a page names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Where its address stands: inside the quotes in HTML, with them in JSON.
    pub place: Range<usize>,
    /// The address, without escapes of the format; perhaps relative to the page, perhaps with a digest as its fragment.
    pub address: String,
    /// The digest of its content.
    pub sha256: Option<Digest>,
    /// The digest of its metadata, a file of its own beside it ([PEP 658](https://peps.python.org/pep-0658/)).
    pub metadata: Option<Digest>,
    /// Its size in bytes, which pages in JSON say ([PEP 700](https://peps.python.org/pep-0700/)).
    pub size: Option<u64>,
}

/// Whether `path`, below the base URL of an index, is that of a page: it ends with a slash, or is `simple/<project>` without the
/// slash that "all URLs … MUST end with" (PEP 503).
pub fn is_page(path: &str) -> bool {
    let is_project = |(folders, _): (&str, &str)| folders == "simple" || folders.ends_with("/simple");
    path.is_empty() || path.ends_with('/') || path.rsplit_once('/').is_some_and(is_project)
}

/// What stands on a page.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The element of HTML against which addresses are resolved in place of the page's own URL.
    pub base: Option<Base>,
    /// The files, in order.
    pub files: Vec<File>,
}

/// `<base href="…">`, the first of a page (HTML, "the base element").
#[derive(Debug, PartialEq, Eq)]
pub struct Base {
    /// Where the whole tag stands.
    pub place: Range<usize>,
    /// Its address, perhaps relative to the page.
    pub address: String,
}

impl Page {
    /// The URL against which the addresses of the page at `document` are resolved.
    pub fn resolved_against(&self, document: &Url) -> Url {
        let base = self.base.as_ref();
        // One that cannot be resolved is passed over, as browsers do.
        base.and_then(|base| document.join(&base.address).ok())
            .unwrap_or_else(|| document.clone())
    }
}

/// Reads a page.
///
/// # Errors
/// A text that says why `page` is no page in this format. HTML can always be read.
pub fn read(page: &[u8], format: Format) -> Result<Page, String> {
    match format {
        Format::Html => Ok(of_html(page)),
        Format::Json => of_json(page).map_err(|error| error.to_string()),
    }
}

/// What the page at `document`, in either format, teaches about its files and their metadata. A page that cannot be read teaches
/// nothing.
pub fn lessons(document: &Url, page: &[u8]) -> Vec<Taught> {
    let is_json = page.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let format = if is_json { Format::Json } else { Format::Html };
    let mut lessons = Vec::new();
    let page = read(page, format).unwrap_or_default();
    let base = page.resolved_against(document);
    for file in page.files {
        let Ok(mut url) = base.join(&file.address) else {
            continue;
        };
        url.set_fragment(None);
        if let Some(digest) = file.metadata {
            let mut metadata = url.clone();
            // "the metadata file … by appending .metadata to the file's URL" (PEP 658).
            metadata.set_path(&format!("{}.metadata", url.path()));
            lessons.push(Taught::sha256(metadata, digest));
        }
        if let Some(digest) = file.sha256 {
            lessons.push(Taught::sha256(url, digest));
        }
    }
    lessons
}

fn of_html(page: &[u8]) -> Page {
    let mut read = Page::default();
    for tag in html::start_tags(page) {
        let Some(place) = tag.attribute("href") else {
            continue;
        };
        let address = html::unescape(&page[place.clone()]);
        if tag.name.eq_ignore_ascii_case(b"base") {
            read.base.get_or_insert(Base {
                place: tag.place,
                address,
            });
        } else if tag.name.eq_ignore_ascii_case(b"a") {
            let sha256 = address
                .rsplit_once('#')
                .and_then(|(_, fragment)| hex(fragment.strip_prefix("sha256=")?));
            read.files.push(File {
                place,
                address,
                sha256,
                metadata: metadata_of(&tag, page),
                size: None,
            });
        }
    }
    read
}

/// The digest of the metadata beside the file that an anchor names.
fn metadata_of(anchor: &html::StartTag<'_>, page: &[u8]) -> Option<Digest> {
    // PEP 714 has renamed the attribute; the newer name wins.
    ["data-core-metadata", "data-dist-info-metadata"]
        .iter()
        .find_map(|name| anchor.attribute(name))
        .and_then(|place| {
            str::from_utf8(&page[place])
                .ok()?
                .strip_prefix("sha256=")
                .and_then(hex)
        })
}

#[derive(Deserialize)]
struct Document<'d> {
    #[serde(borrow, default)]
    files: Vec<Entry<'d>>,
}

#[derive(Deserialize)]
struct Entry<'d> {
    #[serde(borrow)]
    url: &'d RawValue,
    #[serde(borrow, default)]
    hashes: Hashes<'d>,
    #[serde(borrow, default, rename = "core-metadata")]
    core_metadata: Option<Metadata<'d>>,
    #[serde(borrow, default, rename = "dist-info-metadata")]
    dist_info_metadata: Option<Metadata<'d>>,
    #[serde(borrow, default)]
    size: Option<&'d RawValue>,
}

#[derive(Default, Deserialize)]
struct Hashes<'d> {
    #[serde(borrow, default)]
    sha256: Option<Cow<'d, str>>,
}

impl Hashes<'_> {
    fn digest(&self) -> Option<Digest> {
        hex(self.sha256.as_deref()?)
    }
}

/// `true`, `false`, or the digests.
#[derive(Deserialize)]
#[serde(untagged)]
enum Metadata<'d> {
    #[expect(dead_code, reason = "that there is metadata teaches nothing about its digest")]
    There(bool),
    Known(#[serde(borrow)] Hashes<'d>),
}

fn of_json(page: &[u8]) -> serde_json::Result<Page> {
    let read: Document<'_> = serde_json::from_slice(page)?;
    let entries = read.files.into_iter().filter_map(|entry| {
        let known = |metadata: &Metadata<'_>| match metadata {
            Metadata::Known(hashes) => hashes.digest(),
            Metadata::There(_) => None,
        };
        Some(File {
            place: span_of(page, entry.url),
            address: serde_json::from_str(entry.url.get()).ok()?,
            sha256: entry.hashes.digest(),
            metadata: [&entry.core_metadata, &entry.dist_info_metadata]
                .into_iter()
                .flatten()
                .find_map(known),
            // One that is no number says nothing, and spoils no page.
            size: entry.size.and_then(|size| serde_json::from_str(size.get()).ok()),
        })
    });
    Ok(Page {
        base: None,
        files: entries.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::{super::Integrity, *};

    fn digest(of: &str) -> Digest {
        Digest::of(of.as_bytes())
    }

    #[test]
    fn pep503_a_page_of_anchors_is_read_with_places_digests_and_metadata() {
        let (wheel, metadata) = (digest("wheel"), digest("metadata"));
        let page = format!(
            "<!DOCTYPE html><html><!-- <a href=\"no\"> --><body>\n\
             <a href=\"https://files.example/a-1.whl?x=1&amp;y=2#sha256={}\" data-dist-info-metadata=\"sha256={}\" \
             data-yanked>a-1.whl</a><br>\n\
             <A class=x HREF='../a-1.tar.gz#md5=00'>a</A><abbr href=\"no\">\n</body></html>",
            wheel.hex(),
            metadata.hex()
        );
        let files = read(page.as_bytes(), Format::Html).unwrap().files;
        assert_eq!(files.len(), 2, "{files:?}");
        assert_eq!(
            files[0].address,
            format!("https://files.example/a-1.whl?x=1&y=2#sha256={}", wheel.hex())
        );
        assert_eq!(
            (files[0].sha256, files[0].metadata),
            (Some(wheel), Some(metadata))
        );
        assert_eq!(&page[files[1].place.clone()], "../a-1.tar.gz#md5=00");
        assert_eq!((files[1].sha256, files[1].metadata), (None, None));
    }

    #[test]
    fn pep691_a_page_of_json_is_read_with_places_digests_and_metadata() {
        let (wheel, metadata) = (digest("wheel"), digest("metadata"));
        let page = format!(
            r#"{{"meta":{{"api-version":"1.1"}},"name":"a","files":[
              {{"filename":"a-1.whl","url":"https:\/\/files.example/a-1.whl","hashes":{{"sha256":"{}","md5":"0"}},"core-metadata":{{"sha256":"{}"}},"yanked":"why","size":1024}},
              {{"filename":"a-1.tar.gz","url":"../a-1.tar.gz","hashes":{{}},"core-metadata":false}},
              {{"filename":"a-2.tar.gz","url":"../a-2.tar.gz","hashes":{{}},"size":"many"}},
              {{"filename":"a-3.tar.gz","url":"../a-3.tar.gz","hashes":{{}},"size":null}}]}}"#,
            wheel.hex(),
            metadata.hex()
        );
        let files = read(page.as_bytes(), Format::Json).unwrap().files;
        assert_eq!(files[0].address, "https://files.example/a-1.whl");
        assert_eq!(
            &page[files[0].place.clone()],
            r#""https:\/\/files.example/a-1.whl""#
        );
        assert_eq!(
            (files[0].sha256, files[0].metadata),
            (Some(wheel), Some(metadata))
        );
        assert_eq!((files[1].sha256, files[1].metadata), (None, None));
        let sizes: Vec<_> = files.iter().map(|file| file.size).collect();
        assert_eq!(sizes, [Some(1024), None, None, None]);
        assert!(read(b"<html>", Format::Json).is_err());
    }

    #[test]
    fn pep503_the_first_base_element_says_against_what_links_are_resolved() {
        let document = Url::parse("https://index.example/simple/a/").unwrap();
        let digest = digest("wheel");
        for (base, expected) in [
            ("", "https://index.example/simple/a/a.whl"),
            (
                "<base href='https://files.example/p/'>",
                "https://files.example/p/a.whl",
            ),
            (
                "<BASE target=x><base href=../../q/>",
                "https://index.example/q/a.whl",
            ),
            (
                "<base href=\"/r/\"><base href=\"/s/\">",
                "https://index.example/r/a.whl",
            ),
        ] {
            let page = format!(
                "<head>{base}</head><a href=\"a.whl#sha256={}\">a</a>",
                digest.hex()
            );
            let taught = lessons(&document, page.as_bytes());
            assert_eq!(taught[0].url.as_str(), expected, "{base}");
        }
    }

    #[test]
    fn a_page_with_bytes_that_are_no_utf_8_teaches_all_the_same() {
        let document = Url::parse("https://index.example/simple/a/").unwrap();
        let mut page = b"<title>caf\xe9</title><a href=\"a.whl#sha256=".to_vec();
        page.extend_from_slice(digest("wheel").hex().as_bytes());
        page.extend_from_slice(b"\" title=\"\xff\">\xe9</a>");
        assert_eq!(lessons(&document, &page).len(), 1);
    }

    #[test]
    fn pep658_a_page_teaches_the_digests_of_files_and_of_their_metadata() {
        let base = Url::parse("https://index.example/simple/a/").unwrap();
        let page = format!(
            "<a href=\"../../p/a-1.whl#sha256={}\" data-core-metadata=\"sha256={}\">a</a>",
            digest("wheel").hex(),
            digest("metadata").hex()
        );
        let taught: Vec<_> = lessons(&base, page.as_bytes())
            .into_iter()
            .map(|lesson| (lesson.url.to_string(), lesson.integrity))
            .collect();
        assert_eq!(
            taught,
            [
                (
                    "https://index.example/p/a-1.whl.metadata".to_owned(),
                    Integrity::Sha256(digest("metadata"))
                ),
                (
                    "https://index.example/p/a-1.whl".to_owned(),
                    Integrity::Sha256(digest("wheel"))
                ),
            ]
        );
    }
}
