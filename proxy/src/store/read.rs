//! Hits: from a key to the stored responses, and from a stored response to its bytes.

use std::{
    fs::File,
    os::unix::fs::{FileExt, MetadataExt},
    sync::Arc,
};

use bytes::Bytes;
use http::{StatusCode, header};
use kato_shared::{Digest, chain::Chain};

use crate::policy::Selecting;
use crate::seldom::warn_seldom;

use super::{
    Content, ContentRef, Responses, Store, StoredResponse, Taught, blocking, hot::MAX_BODY,
    stored::put_variant,
};

/// From this many bytes on a body may begin anywhere in its page: at most an eighth more memory.
const SCATTERED: usize = 32 << 10;

impl Store {
    /// The stored responses of `key`; an index that cannot be read is a miss, and logged.
    pub async fn lookup(&self, key: &str) -> Responses {
        let epoch = match self.0.hot.responses(key) {
            Ok(responses) => return responses,
            Err(epoch) => epoch,
        };
        // First what is queued, then the index: what moves from here to there meanwhile is seen twice, never missed.
        let queued = self.0.behind.responses(key);
        if !self.0.index.ledger().may_know(key) {
            let responses = self.latest(key, (Vec::new(), Vec::new()), queued);
            if !responses.heads().is_empty() {
                self.0.hot.remember(key, &responses, epoch);
            }
            return responses;
        }
        let (store, owned) = (self.clone(), key.to_owned());
        let read = blocking(move || {
            let entry = store.0.index.entry(&owned)?;
            Ok(store.latest(&owned, entry, queued))
        })
        .await;
        match read {
            Ok(responses) => {
                self.0.hot.remember(key, &responses, epoch);
                responses
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "the index could not be read; treated as a miss");
                Responses::default()
            }
        }
    }

    /// Whether there may be stored responses of `key`; false is certain.
    pub fn may_have(&self, key: &str) -> bool {
        // In the order of [`Self::lookup`], for its reason.
        self.0.behind.has(key) || self.0.index.ledger().may_know(key)
    }

    /// The responses of a key: those of the index under those that are to follow; and what is taught about it.
    fn latest(
        &self,
        key: &str,
        (mut stored, mut taught): (Vec<StoredResponse>, Vec<Taught>),
        queued: Vec<StoredResponse>,
    ) -> Responses {
        for response in queued {
            put_variant(&mut stored, response);
        }
        self.0.doubts.mark(key, &mut stored);
        self.0.proofs.resolve(key, &mut taught);
        Arc::new((stored, taught).into())
    }

    /// A 200 whose content is `digest`, that is `wanted`, now stored under `key`, too: the same bytes under another name. Empty
    /// when there is none. With `is_for_good` the key itself carries the digest, else it is only taught.
    pub async fn lookup_content(
        &self,
        key: &str,
        digest: Digest,
        is_for_good: bool,
        wanted: impl Fn(&str, &StoredResponse) -> bool + Send + 'static,
    ) -> Responses {
        let Some(mut response) = self.find_content(digest, wanted).await else {
            return Responses::default();
        };
        response.head.known_digest = is_for_good;
        response.head.selecting = Selecting::default();
        response.head.headers.remove(header::VARY);
        if let Err(error) = self.update(key.to_owned(), response.clone()).await {
            warn_seldom!(error = %Chain(&error), "known content could not get another name");
        }
        response.head.known_digest = true;
        Responses::new((vec![response], Vec::new()).into())
    }

    /// A 200 under whatever key whose content is `digest` and that is `wanted` by that key: equal bytes may have come from an upstream that not
    /// everybody may use.
    pub async fn find_content(
        &self,
        digest: Digest,
        wanted: impl Fn(&str, &StoredResponse) -> bool + Send + 'static,
    ) -> Option<StoredResponse> {
        // In this order: what moves from the queue to the index meanwhile is seen.
        if self.0.behind.body(&digest).is_none() && !self.0.index.ledger().may_have(&digest) {
            return None;
        }
        let store = self.clone();
        let found = blocking(move || {
            store.0.behind.settle([], Some(&digest));
            for key in store.0.index.keys_of(&digest)? {
                let found = store.0.index.responses(&key)?.into_iter().find(|response| {
                    response.content.digest == digest
                        && response.head.status == StatusCode::OK
                        && wanted(&key, response)
                });
                if found.is_some() {
                    return Ok(found);
                }
            }
            Ok(None)
        })
        .await;
        found.unwrap_or_else(|error| {
            tracing::warn!(error = %Chain(&error), "the index could not be read; treated as a miss");
            None
        })
    }

    /// Opens content for reading. `None` when it is missing, not of the size that the index says, or, for a body small enough
    /// for memory, other than its digest: the index then forgets it, so that the next request fetches it anew. A large body
    /// is not read here; damage in it is found by [`Store::verify`].
    pub async fn content(&self, content: ContentRef) -> Option<Content> {
        self.touch(content.digest);
        if let Some(content) = self.content_at_hand(content) {
            return Some(content);
        }
        if let Some(body) = self.0.behind.body(&content.digest) {
            return Some(body.into());
        }
        let store = self.clone();
        blocking(move || Ok(store.open_content(content)))
            .await
            .ok()
            .flatten()
    }

    /// Content that no disk has to be asked for: in memory, or in a file that is open and still what the index says.
    pub fn content_at_hand(&self, content: ContentRef) -> Option<Content> {
        let digest = &content.digest;
        if let Some(body) = self.0.hot.body(digest) {
            return Some(Content::Memory(body));
        }
        let file = self.0.hot.file(digest)?;
        let in_use = self.0.in_use.take(*digest);
        // Without a name it was removed or replaced.
        let is_unchanged = |found: std::fs::Metadata| found.len() == content.length && found.nlink() > 0;
        if file.metadata().is_ok_and(is_unchanged) {
            return Some(Content::File {
                file,
                length: content.length,
                in_use: Arc::new(in_use),
            });
        }
        self.0.hot.release(digest);
        None
    }

    fn open_content(&self, content: ContentRef) -> Option<Content> {
        let in_use = self.0.in_use.take(content.digest);
        let path = self.0.layout.content(&content.digest);
        let opened = File::open(&path).and_then(|file| {
            let length = file.metadata()?.len();
            Ok((file, length))
        });
        match opened {
            Ok((file, length)) if length == content.length => {
                if length <= MAX_BODY {
                    let Some(body) = read_whole(&file, content) else {
                        in_use.suspect();
                        return None;
                    };
                    if Digest::of(&body) != content.digest {
                        tracing::warn!(path = %path.display(), "stored content is not what its name says; forgotten");
                        self.forget_content(&content.digest);
                        return None;
                    }
                    return Some(Content::Memory(self.0.hot.hold(content.digest, body)));
                }
                let file = Arc::new(file);
                self.0.hot.keep_open(content.digest, &file);
                Some(Content::File {
                    file,
                    length,
                    in_use: Arc::new(in_use),
                })
            }
            Ok((_, length)) => {
                tracing::warn!(path = %path.display(), expected = content.length, length, "stored content has another size; forgotten");
                self.forget_content(&content.digest);
                None
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "stored content cannot be opened; forgotten");
                if error.kind() == std::io::ErrorKind::NotFound {
                    self.forget_content(&content.digest);
                } else {
                    in_use.suspect();
                }
                None
            }
        }
    }
}

/// Reads a small file whole; `None` when the disk does not give it.
///
/// Where it begins in its page follows from its digest, as if by chance. `rep movsb`, with which Linux copies to sockets,
/// is five times slower on some processors (seen on AMD's Zen 4) while the offset in the page of what it writes is 1 to 15 bytes
/// ahead of that of what it reads. Bodies of one size in a row in memory, sent one after the other, can keep that distance all
/// the time: then 100 KiB took 62 µs in place of 30 µs.
fn read_whole(file: &File, content: ContentRef) -> Option<Bytes> {
    let length = usize::try_from(content.length).ok()?;
    let chance = usize::from(content.digest.as_bytes()[0]);
    let before = if length < SCATTERED { 0 } else { chance * 16 };
    let mut body = vec![0; before + length];
    file.read_exact_at(&mut body[before..], 0)
        .inspect_err(
            |error| tracing::warn!(digest = %content.digest, %error, "stored content cannot be read"),
        )
        .ok()?;
    Some(Bytes::from(body).slice(before..))
}
