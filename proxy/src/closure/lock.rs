//! Lock files: what a client asks for on its way, by the URLs by which it asks: the documents of the index of its language, and each entry.
//!
//! | File | Documents | Files |
//! |---|---|---|
//! | `Cargo.lock` | `config.json`, the file of each crate with its version | the archive where `config.json` says it is |
//! | `package-lock.json` | the packument of each package with its version, for each way in which `npm install` asks for it (`npm ci` does not) | the tarball, under the path that npm asks the index for, whatever host the lock file names |
//! | `requirements.txt` | the page of each project | one of its files with a digest of the lock file, where the page says it is |
//!
//! The index is the first upstream of its kind, as for `prefetch`.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderValue, header};
use kato_shared::Digest;
use serde::{Deserialize, de::IgnoredAny};
use url::Url;

use super::Check;
use crate::{
    ecosystem::{
        cargo::{self, Config},
        npm,
        pypi::{self, Format},
    },
    prefetch::{Indexes, Lock, LockKind, NPM_ACCEPTS, PIP_ACCEPT, Package},
    settings::Kind,
    view::View,
};

pub(super) fn check(check: &mut Check<'_>, lock: &Lock, indexes: &Indexes) {
    check.about(format!("lock file {}", lock.path));
    for note in &lock.notes {
        check.note(note);
    }
    for left_out in &lock.left_out {
        check.gap(format!("left out: {left_out}"));
    }
    if lock.packages.is_empty() {
        return;
    }
    let (kind, word) = match lock.kind {
        LockKind::Cargo => (Kind::Cargo, "cargo"),
        LockKind::Npm => (Kind::Npm, "npm"),
        LockKind::Pip => (Kind::Pypi, "pypi"),
    };
    let Some(index) = indexes.url(kind) else {
        return check.gap(format!(
            "no upstream has kind = \"{word}\", so there is no index that clients could ask"
        ));
    };
    let config = match lock.kind {
        LockKind::Cargo => match config(check, &index) {
            Some(config) => Some(config),
            None => return,
        },
        LockKind::Npm | LockKind::Pip => None,
    };
    for package in &lock.packages {
        match (lock.kind, &config) {
            (LockKind::Cargo, Some(config)) => krate(check, (&index, config), package),
            (LockKind::Pip, _) => project(check, &index, package),
            (LockKind::Npm | LockKind::Cargo, _) => node(check, (indexes, &index), package),
        }
    }
}

/// How a document is asked for.
#[derive(Clone, Copy)]
struct Asked {
    view: View,
    accept: Option<&'static str>,
}

/// What a client that asks for the document at `url` by mirror path would get without a network: with where it was found, and its bytes.
fn document(check: &mut Check<'_>, url: &Url, asked: Asked, name: &str) -> Option<(Url, bytes::Bytes)> {
    check.report.checked += 1;
    let mut headers = HeaderMap::new();
    if let Some(accept) = asked.accept {
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
    }
    let headers = asked.view.wishes(&headers);
    let Some(entry) = check.sent(url.as_str(), &headers) else {
        let is_of_another_form = check.found(url.as_str()).is_some();
        let form = asked
            .accept
            .filter(|_| is_of_another_form)
            .map_or_else(String::new, |accept| {
                format!(": what is held is another form than clients ask for with `Accept: {accept}`")
            });
        check.gap(format!("{url}, which is read for {name}{form}"));
        return None;
    };
    let base = entry.found_at.clone().unwrap_or_else(|| url.clone());
    let digest = entry.digest;
    let bytes = (check.content)(&digest);
    if bytes.is_none() {
        check.gap(format!("{url}: content {digest}"));
    }
    Some((base, bytes?))
}

fn config(check: &mut Check<'_>, index: &Url) -> Option<Config> {
    let url = index.join("config.json").ok()?;
    let asked = Asked {
        view: View::CrateConfig,
        accept: None,
    };
    let (_, bytes) = document(check, &url, asked, "each package")?;
    let read = Config::read(&bytes);
    if read.is_err() {
        check.gap(format!("{url}: what is held is no config.json of a sparse index"));
    }
    read.ok()
}

fn krate(check: &mut Check<'_>, (index, config): (&Url, &Config), package: &Package) {
    let name = named(package);
    let Some(digest) = package
        .digests
        .first()
        .and_then(|digest| digest.parse::<Digest>().ok())
    else {
        return check.gap(format!("{name}: the lock file has no digest"));
    };
    let Ok(url) = index.join(&cargo::index_path(&package.name)) else {
        return check.gap(name);
    };
    let asked = Asked {
        view: View::CrateFile,
        accept: None,
    };
    if let Some((_, bytes)) = document(check, &url, asked, &name)
        && !cargo::lists(&bytes, &package.version)
    {
        check.gap(format!("{url}: what is held does not list {name}"));
    }
    let cksum = package.digests.first().map_or("", String::as_str);
    match config.archive(&package.name, &package.version, cksum) {
        Some(archive) => {
            check.needs_file(archive.as_str(), |entry| entry.digest == digest);
        }
        None => check.gap(format!("{name}: config.json does not say where archives are")),
    }
}

fn project(check: &mut Check<'_>, index: &Url, package: &Package) {
    let name = named(package);
    let Ok(url) = index.join(&format!("{}/", package.name)) else {
        return check.gap(name);
    };
    let asked = Asked {
        view: View::Simple,
        accept: Some(PIP_ACCEPT),
    };
    let Some((found_at, bytes)) = document(check, &url, asked, &name) else {
        return;
    };
    let is_json = bytes.trim_ascii_start().first() == Some(&b'{');
    let format = if is_json { Format::Json } else { Format::Html };
    let Ok(page) = pypi::read(&bytes, format) else {
        return check.gap(format!("{url}: what is held is no page of an index"));
    };
    check.report.checked += 1;
    let base = page.resolved_against(&found_at);
    let digests: Vec<Digest> = package
        .digests
        .iter()
        .filter_map(|digest| digest.parse().ok())
        .collect();
    // Any of its files: which one a machine takes depends on the machine, and all were fetched together.
    let files = page.files.iter().filter_map(|file| base.join(&file.address).ok());
    let is_held = files.map(without_fragment).any(|file| {
        let sent = check.sent_file(file.as_str());
        sent.is_some_and(|entry| digests.contains(&entry.digest))
    });
    if !is_held {
        check.gap(format!(
            "{name}: no file that {url} names and the lock file allows"
        ));
    }
}

fn without_fragment(mut url: Url) -> Url {
    url.set_fragment(None);
    url
}

fn node(check: &mut Check<'_>, (indexes, index): (&Indexes, &Url), package: &Package) {
    #[derive(Deserialize)]
    struct Packument {
        #[serde(default)]
        #[expect(clippy::zero_sized_map_values, reason = "a set is no object of JSON")]
        versions: BTreeMap<String, IgnoredAny>,
    }
    let name = named(package);
    let Ok(url) = index.join(&package.name.replace('/', "%2f")) else {
        return check.gap(name);
    };
    for accept in NPM_ACCEPTS {
        let asked = Asked {
            view: View::Packument,
            accept: Some(accept),
        };
        if let Some((_, bytes)) = document(check, &url, asked, &name) {
            let read = serde_json::from_slice::<Packument>(&bytes).ok();
            let is_listed = read.is_some_and(|read| read.versions.contains_key(&package.version));
            if !is_listed && !package.version.is_empty() {
                check.gap(format!("{url}: what is held does not list {name}"));
            }
        }
    }
    tarball(check, indexes, package);
}

fn named(package: &Package) -> String {
    format!("{} {}", package.name, package.version)
}

/// Under the URL that npm's request leads to: content that is held under another is nothing that it asks for. npm names SHA-512, by which nothing is
/// kept: what is there is read and compared.
fn tarball(check: &mut Check<'_>, indexes: &Indexes, package: &Package) {
    let address = package.address.as_deref().unwrap_or_default();
    let tarball = Url::parse(address).ok().and_then(|url| indexes.tarball(&url));
    let Some(tarball) = tarball else {
        return check.gap(format!("{}: `{address}` is no path of the index", named(package)));
    };
    let content = check.content;
    let expected = package.digests.first().and_then(|text| npm::integrity(text));
    check.needs_file(&tarball.url, |entry| {
        let Some(expected) = expected else { return true };
        content(&entry.digest).is_some_and(|bytes| expected.of(entry.digest, &bytes) == expected)
    });
}

#[cfg(test)]
mod tests;
