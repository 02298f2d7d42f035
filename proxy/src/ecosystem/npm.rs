//! JavaScript package indexes: packuments, whole and abbreviated (`application/vnd.npm.install-v1+json`), and the manifest of one
//! version.
//!
//! [`tarballs`] says where each tarball's address stands and what the document promises for its content: `dist.integrity` is
//! [Subresource Integrity], of which the strongest function counts, mostly SHA-512. Versions that were published before npm 5 have
//! `dist.shasum` alone, which is SHA-1 and finds damage, no malice.
//!
//! [Subresource Integrity]: https://www.w3.org/TR/SRI/

use std::{borrow::Cow, collections::BTreeMap, ops::Range};

use base64::{Engine, engine::general_purpose::STANDARD};
use kato_shared::Digest;
use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

use super::{Integrity, Taught, integrity::bytes, span_of};

/// A tarball that a packument names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tarball {
    /// Where its address stands, quotes included.
    pub place: Range<usize>,
    /// The address, without JSON's escapes.
    pub address: String,
    /// What its content must be.
    pub integrity: Option<Integrity>,
}

/// Whether `path`, below the base URL of a registry, may be that of a packument or a version's manifest.
pub fn is_packument(path: &str) -> bool {
    let is_tarball = path.rsplit('.').next() == Some("tgz");
    !path.is_empty() && !path.starts_with("-/") && !path.contains("/-/") && !is_tarball
}

/// The tarballs of a packument or of a version's manifest; none for other documents.
///
/// # Errors
/// A text that says why `document` is not JSON of this kind.
pub fn tarballs(document: &[u8]) -> Result<Vec<Tarball>, String> {
    let text = document.strip_prefix(BYTE_ORDER_MARK).unwrap_or(document);
    let read: Document<'_> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let all = read
        .versions
        .unwrap_or_default()
        .into_values()
        // Some registries leave `null` where a version was withdrawn. What is odd about one version is about no other.
        .filter_map(|version| readable::<Version<'_>>(Some(version))?.dist)
        .chain(read.dist);
    Ok(all.filter_map(|dist| tarball(document, dist)).collect())
}

/// What the document at `base` teaches. A document that cannot be read teaches nothing.
pub fn lessons(base: &Url, document: &[u8]) -> Vec<Taught> {
    let all = tarballs(document).unwrap_or_default().into_iter();
    all.filter_map(|tarball| {
        let url = base.join(&tarball.address).ok()?;
        let integrity = tarball.integrity?;
        Some(Taught { url, integrity })
    })
    .collect()
}

/// What some servers put before every text; JSON has none (RFC 8259 §8.1).
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[derive(Deserialize)]
struct Document<'d> {
    #[serde(borrow, default)]
    versions: Option<BTreeMap<Cow<'d, str>, &'d RawValue>>,
    #[serde(borrow, default)]
    dist: Option<&'d RawValue>,
}

#[derive(Deserialize)]
struct Version<'d> {
    #[serde(borrow, default)]
    dist: Option<&'d RawValue>,
}

#[derive(Deserialize)]
struct Dist<'d> {
    #[serde(borrow, default)]
    tarball: Option<&'d RawValue>,
    #[serde(borrow, default)]
    integrity: Option<&'d RawValue>,
    #[serde(borrow, default)]
    shasum: Option<&'d RawValue>,
}

/// What `part` says, if it is of that kind.
fn readable<'d, T: Deserialize<'d>>(part: Option<&'d RawValue>) -> Option<T> {
    serde_json::from_str(part?.get()).ok()
}

fn tarball(document: &[u8], dist: &RawValue) -> Option<Tarball> {
    let dist: Dist<'_> = readable(Some(dist))?;
    let tarball = dist.tarball?;
    let text = |part| readable::<Cow<'_, str>>(part);
    Some(Tarball {
        place: span_of(document, tarball),
        address: readable(Some(tarball))?,
        integrity: text(dist.integrity)
            .as_deref()
            .and_then(integrity)
            .or_else(|| text(dist.shasum).as_deref().and_then(bytes).map(Integrity::Sha1)),
    })
}

/// What an integrity text such as `sha512-… sha1-…` says by the strongest function that is known here.
pub fn integrity(text: &str) -> Option<Integrity> {
    let said = |function: &str| {
        let encoded = text.split_ascii_whitespace().find_map(|item| {
            let (name, encoded) = item.split_once('-')?;
            name.eq_ignore_ascii_case(function).then_some(encoded)
        })?;
        // Options after a question mark mean nothing yet.
        STANDARD.decode(encoded.split('?').next()?).ok()
    };
    said("sha512")
        .and_then(|bytes| bytes.try_into().ok().map(Integrity::Sha512))
        .or_else(|| {
            let bytes = said("sha256")?.try_into().ok()?;
            Some(Integrity::Sha256(Digest::from_bytes(bytes)))
        })
        .or_else(|| said("sha1").and_then(|bytes| bytes.try_into().ok().map(Integrity::Sha1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packument_teaches_what_it_promises_of_each_tarball_by_the_strongest_function() {
        let encoded = STANDARD.encode([7_u8; 64]);
        let shasum = "ab".repeat(20);
        let document = format!(
            r#"{{"name":"@s/a","versions":{{
              "1.0.0":{{"dist":{{"tarball":"https://npm.example/@s/a/-/a-1.0.0.tgz","integrity":"sha1-AAAA sha512-{encoded}","shasum":"00"}}}},
              "0.9.0":{{"dist":{{"shasum":"{shasum}","tarball":"https://npm.example/old.tgz"}}}},
              "0.8.0":{{"dist":{{"shasum":"00","integrity":"md5-AA==","tarball":"https://npm.example/older.tgz"}}}},
              "0.0.2":null,"0.0.1":{{}}}}}}"#
        );
        let found = tarballs(document.as_bytes()).unwrap();
        assert_eq!(found.len(), 3);
        for tarball in &found {
            assert_eq!(&document[tarball.place.clone()], format!("{:?}", tarball.address));
        }
        let base = Url::parse("https://npm.example/@s%2fa").unwrap();
        let taught = lessons(&base, document.as_bytes());
        let of = |path: &str| {
            let found = taught.iter().find(|taught| taught.url.path() == path);
            found.map(|taught| taught.integrity)
        };
        assert_eq!(of("/@s/a/-/a-1.0.0.tgz"), Some(Integrity::Sha512([7; 64])));
        assert_eq!(of("/old.tgz"), Some(Integrity::Sha1([0xab; 20])));
        assert_eq!(of("/older.tgz"), None);
        let weaker = format!(
            "sha1-{} sha256-{}",
            STANDARD.encode([1_u8; 20]),
            STANDARD.encode([2_u8; 32])
        );
        let digest = Digest::from_bytes([2; 32]);
        assert_eq!(integrity(&weaker), Some(Integrity::Sha256(digest)));
    }

    #[test]
    fn what_is_odd_about_one_version_spoils_no_other() {
        let good = format!(
            r#""1.0.0":{{"dist":{{"tarball":"https://npm.example/a.tgz","shasum":"{}"}}}}"#,
            "ab".repeat(20)
        );
        for odd in [
            r#"{"dist":{"tarball":"https://npm.example/b.tgz","integrity":7}}"#,
            r#"{"dist":{"tarball":"https://npm.example/b.tgz","integrity":["sha512-AA"],"shasum":{}}}"#,
            r#"{"dist":{"tarball":7}}"#,
            r#"{"dist":7}"#,
            r#"{"dist":["x"]}"#,
            "7",
            "[]",
            "null",
        ] {
            let document = format!("\u{feff}{{\"versions\":{{\"0.1.0\":{odd},{good}}}}}");
            let found = tarballs(document.as_bytes()).unwrap();
            let one = found.last().unwrap();
            assert_eq!(one.integrity, Some(Integrity::Sha1([0xab; 20])), "{odd}");
            assert_eq!(
                &document[one.place.clone()],
                "\"https://npm.example/a.tgz\"",
                "{odd}"
            );
            assert!(
                found.iter().rev().skip(1).all(|other| other.integrity.is_none()),
                "{odd}"
            );
        }
    }

    #[test]
    fn a_manifest_of_one_version_names_its_tarball_and_other_documents_none() {
        let manifest = br#"{"name":"a","dist":{"tarball":"https://npm.example/a.tgz"}}"#;
        assert_eq!(tarballs(manifest).unwrap().len(), 1);
        assert_eq!(tarballs(br#"{"latest":"1.0.0"}"#).unwrap(), []);
        assert!(tarballs(b"<html>").is_err());
    }
}
