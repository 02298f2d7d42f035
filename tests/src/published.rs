//! Packages of languages, as their indexes and hosts of files publish them: one small package each of Python, npm and Rust.
//!
//! The index and the host of files may be one [`Origin`] or two. Documents are to be validated each time, as far as their origin has a say.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use kato_shared::Digest;
use ssri::{Algorithm, IntegrityOpts};

use crate::{
    command,
    origin::{Origin, Resource},
};

/// An archive of a few files on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The file of the wheel.
pub const WHEEL: &str = "hello_site-1.0-py3-none-any.whl";
/// The form of a page of the simple index that is JSON; any other is a page of HTML.
pub const SIMPLE_JSON: &str = "application/vnd.pypi.simple.v1+json";
/// The packument's form for installations.
pub const ABBREVIATED: &str = "application/vnd.npm.install-v1+json";
/// The path of npm's tarball.
pub const TARBALL: &str = "/@site/hello/-/hello-1.0.0.tgz";
/// As npm writes the name of a scoped package into a path.
pub const PACKUMENT: &str = "/@site%2fhello";
/// The path of the crate's archive.
pub const CRATE: &str = "/crates/hello-site/1.0.0/download";

const METADATA: &str = "Metadata-Version: 2.1\nName: hello-site\nVersion: 1.0\n";
/// `he/ll/hello-site`, by the rules of sparse indexes.
const INDEX_FILE: &str = "/he/ll/hello-site";

/// Writes `folder/name`, with the folders on the way.
///
/// # Errors
/// When it cannot be written.
#[expect(
    clippy::disallowed_methods,
    reason = "a file of the test's own, which need not be durable"
)]
pub fn put(folder: &Path, name: &str, content: &[u8]) -> Result<PathBuf> {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().context("a folder")?)?;
    fs::write(&path, content)?;
    Ok(path)
}

/// A `.tar.gz` of what is in `folder/top`, with `top` at its top.
///
/// # Errors
/// When tar fails.
pub fn tarball(folder: &Path, top: &str) -> Result<Vec<u8>> {
    let archive = folder.with_extension("tgz");
    let mut tar = command::new("tar");
    tar.arg("-C").arg(folder).arg("-czf").arg(&archive).arg(top);
    command::success("tar", command::run(tar, PATIENCE, &[])?)?;
    Ok(fs::read(&archive)?)
}

/// SHA-256 in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    Digest::of(bytes).hex()
}

/// An index's document: to be validated each time, as far as its origin has a say.
pub fn document(body: impl Into<bytes::Bytes>, content_type: &str) -> Resource {
    Resource::new(body)
        .header("content-type", content_type)
        .header("cache-control", "max-age=0")
        .header("etag", "\"1\"")
}

/// A wheel with one module, made in `folder`.
///
/// # Errors
/// When Python is not there.
pub fn wheel(folder: &Path) -> Result<Vec<u8>> {
    put(folder, "hello_site.py", b"SAID = 'hello'\n")?;
    put(folder, "hello_site-1.0.dist-info/METADATA", METADATA.as_bytes())?;
    let about = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    put(folder, "hello_site-1.0.dist-info/WHEEL", about.as_bytes())?;
    let record = "hello_site.py,,\nhello_site-1.0.dist-info/METADATA,,\nhello_site-1.0.dist-info/WHEEL,,\nhello_site-1.0.dist-info/RECORD,,\n";
    put(folder, "hello_site-1.0.dist-info/RECORD", record.as_bytes())?;
    let mut zip = command::new("/usr/bin/python3");
    zip.current_dir(folder).args(["-m", "zipfile", "-c", WHEEL]);
    zip.args(["hello_site.py", "hello_site-1.0.dist-info"]);
    command::success("zip", command::run(zip, PATIENCE, &[])?)?;
    Ok(fs::read(folder.join(WHEEL))?)
}

/// Serves the wheel and the page of its project, in the form of `content_type`; returns the wheel's digest.
pub fn publish_wheel(index: &Origin, files: &Origin, wheel: &[u8], content_type: &str) -> String {
    publish_wheel_as((index, files), &files.url(""), wheel, content_type)
}

/// The same where clients know the host of files as `called`, a URL without a slash at its end.
pub fn publish_wheel_as(
    (index, files): (&Origin, &Origin),
    called: &str,
    wheel: &[u8],
    content_type: &str,
) -> String {
    let (digest, metadata) = (sha256(wheel), sha256(METADATA.as_bytes()));
    let url = format!("{called}/packages/{WHEEL}");
    let page = if content_type == SIMPLE_JSON {
        format!(
            r#"{{"meta":{{"api-version":"1.1"}},"name":"hello-site","files":[{{"filename":"{WHEEL}","url":"{url}","hashes":{{"sha256":"{digest}"}},"core-metadata":{{"sha256":"{metadata}"}}}}]}}"#
        )
    } else {
        format!(
            "<!DOCTYPE html><html><body><a href=\"{url}#sha256={digest}\" data-core-metadata=\"sha256={metadata}\">{WHEEL}</a></body></html>"
        )
    };
    index.serve(
        "/simple/hello-site/",
        document(page, content_type).header("vary", "Accept"),
    );
    let file = Resource::cacheable(wheel.to_vec());
    files.serve(&format!("/packages/{WHEEL}"), file);
    let file = Resource::cacheable(METADATA);
    files.serve(&format!("/packages/{WHEEL}.metadata"), file);
    digest
}

/// Serves npm's package `@site/hello`, which is made in `folder`; returns its tarball.
///
/// # Errors
/// When tar fails.
pub fn publish_npm(index: &Origin, files: &Origin, folder: &Path) -> Result<Vec<u8>> {
    publish_npm_as((index, files), &files.url(""), folder)
}

/// The same where clients know the host of files as `called`, a URL without a slash at its end.
///
/// # Errors
/// As [`publish_npm`].
pub fn publish_npm_as((index, files): (&Origin, &Origin), called: &str, folder: &Path) -> Result<Vec<u8>> {
    put(
        folder,
        "package/package.json",
        br#"{"name":"@site/hello","version":"1.0.0"}"#,
    )?;
    put(folder, "package/index.js", b"module.exports = 'hello'\n")?;
    let bytes = tarball(folder, "package")?;
    let tarball = format!("{called}{TARBALL}");
    let packument = format!(
        r#"{{"name":"@site/hello","dist-tags":{{"latest":"1.0.0"}},"versions":{{"1.0.0":{{"name":"@site/hello","version":"1.0.0","dist":{{"integrity":"{}","tarball":"{tarball}"}}}}}}}}"#,
        integrity(&bytes)
    );
    let packument = document(packument, ABBREVIATED).header("vary", "accept-encoding, accept");
    index.serve(PACKUMENT, packument);
    files.serve(TARBALL, Resource::cacheable(bytes.clone()));
    Ok(bytes)
}

/// `sha512-…` of `bytes`, as packuments and lock files of npm have it.
pub fn integrity(bytes: &[u8]) -> String {
    let integrity = IntegrityOpts::new()
        .algorithm(Algorithm::Sha512)
        .chain(bytes)
        .result();
    integrity.to_string()
}

/// Serves the crate `hello-site`, which is made in `folder`; returns its archive.
///
/// # Errors
/// When tar fails.
pub fn publish_crate(index: &Origin, files: &Origin, folder: &Path) -> Result<Vec<u8>> {
    publish_crate_as((index, files), (&index.url(""), &files.url("")), folder)
}

/// The same where clients know the index and the host of files as these, URLs without a slash at their end.
///
/// # Errors
/// As [`publish_crate`].
pub fn publish_crate_as(
    (index, files): (&Origin, &Origin),
    (index_called, files_called): (&str, &str),
    folder: &Path,
) -> Result<Vec<u8>> {
    let manifest = "[package]\nname = \"hello-site\"\nversion = \"1.0.0\"\nedition = \"2021\"\n";
    put(folder, "hello-site-1.0.0/Cargo.toml", manifest.as_bytes())?;
    put(folder, "hello-site-1.0.0/src/lib.rs", b"//! Hello.\n")?;
    let archive = tarball(folder, "hello-site-1.0.0")?;
    let line = format!(
        "{{\"name\":\"hello-site\",\"vers\":\"1.0.0\",\"deps\":[],\"cksum\":\"{}\",\"features\":{{}},\"yanked\":false}}\n",
        sha256(&archive)
    );
    let config = format!(r#"{{"dl":"{files_called}/crates","api":"{index_called}"}}"#);
    index.serve("/config.json", document(config, "application/json"));
    index.serve(INDEX_FILE, document(line, "text/plain"));
    files.serve(CRATE, Resource::cacheable(archive.clone()));
    Ok(archive)
}
