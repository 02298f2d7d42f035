//! Tarballs of npm: verified by SHA-512 before they are stored.
//!
//! The store knows content by SHA-256, and packuments promise SHA-512; so the promise is not learned but looked up, in the packument that
//! is stored, when a tarball has come. A tarball that breaks it is delivered (npm verifies what it gets, and refuses it) and not stored:
//! the next request asks the origin again.
//!
//! Deliberately absent: SHA-1. A packument that promises nothing better, or that is not stored, is no reason to refuse.

use std::{
    fs::File,
    io::{self, Cursor, Read},
    os::unix::fs::FileExt,
    sync::Arc,
};

use bytes::Bytes;
use http::{Method, StatusCode, Uri};
use kato_shared::digest::sha512;
use tokio::task::spawn_blocking;
use url::Url;

use super::{Pipeline, lessons::reader};
use crate::{
    ecosystem::{Integrity, npm},
    key::CacheKey,
    metrics::Event,
    route::Target,
    settings::Kind,
    view::MOST_BYTES,
};

/// Where the bytes are that are to be verified.
pub(super) enum Landed {
    /// Here.
    Bytes(Bytes),
    /// In a file that is not stored yet.
    File(Arc<File>),
}

impl Pipeline {
    /// Whether `content` of `target` is other than a stored packument promises; noted and logged.
    pub(super) async fn breaks_promise(&self, target: &Target, content: Landed) -> bool {
        let Some(promised) = self.promised(target).await else {
            return false;
        };
        let digest = spawn_blocking(move || match content {
            Landed::Bytes(bytes) => sha512(Cursor::new(bytes)),
            Landed::File(file) => sha512(FromStart { file, at: 0 }),
        });
        // A file that cannot be read back is not verified, and so not stored.
        let is_broken = !matches!(digest.await, Ok(Ok(digest)) if digest == promised);
        if is_broken {
            self.0.metrics.note(Event::VerificationFailed);
            tracing::warn!(
                url = %target.key.shown(),
                "not stored: a tarball has other content than dist.integrity of its packument says"
            );
        }
        is_broken
    }

    /// What a stored packument says about the tarball `target`.
    async fn promised(&self, target: &Target) -> Option<[u8; 64]> {
        if target.upstream.kind != Kind::Npm {
            return None;
        }
        let (name, _) = target.path.split_once("/-/")?;
        let base = target.upstream.urls.first()?.url();
        // npm asks for a scoped package as `@scope%2fname`, others as `@scope/name`.
        for spelling in [name.replacen('/', "%2F", 1), name.to_owned()] {
            let Ok(packument) = Url::parse(&format!("{base}{spelling}")) else {
                continue;
            };
            let Some(key) = key_of(&packument) else { continue };
            let entry = self.0.store.lookup(key.as_str()).await;
            for stored in entry.responses().filter(|one| one.head.status == StatusCode::OK) {
                let Some(content) = self.0.store.content(stored.content).await else {
                    continue;
                };
                let (tarball, packument) = (target.key.clone(), packument.clone());
                let looked_up = spawn_blocking(move || promise(&packument, reader(content), &tarball));
                if let Ok(Some(found)) = looked_up.await {
                    return Some(found);
                }
            }
        }
        None
    }
}

/// The SHA-512 that the document at `packument` promises for `tarball`. Blocks.
fn promise(packument: &Url, content: Box<dyn Read + Send>, tarball: &CacheKey) -> Option<[u8; 64]> {
    let mut document = Vec::new();
    let most = u64::try_from(MOST_BYTES).unwrap_or(u64::MAX);
    content.take(most).read_to_end(&mut document).ok()?;
    let taught = npm::lessons(packument, &document).into_iter();
    taught
        .filter(|taught| key_of(&taught.url).as_ref() == Some(tarball))
        .find_map(|taught| match taught.integrity {
            Integrity::Sha512(digest) => Some(digest),
            Integrity::Sha256(_) => None,
        })
}

fn key_of(url: &Url) -> Option<CacheKey> {
    let uri: Uri = url.as_str().parse().ok()?;
    CacheKey::new(&Method::GET, &uri).ok()
}

/// A file that others read, too, from its beginning.
struct FromStart {
    file: Arc<File>,
    at: u64,
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
