//! Hits: from a key to the stored responses, and from a stored response to its bytes.

use std::{fs::File, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use http::{StatusCode, header};
use kato_shared::{Digest, chain::Chain};

use crate::policy::Selecting;

use super::{Content, ContentRef, Responses, Store, blocking, hot::MAX_BODY, stored::put_variant};

impl Store {
    /// The stored responses of `key`; an index that cannot be read is a miss, and logged.
    pub async fn lookup(&self, key: &str) -> Responses {
        let epoch = match self.0.hot.responses(key) {
            Ok(responses) => return responses,
            Err(epoch) => epoch,
        };
        // First what is queued, then the index: what moves from here to there meanwhile is seen twice, never missed.
        let queued = self.0.behind.responses(key);
        let (store, owned) = (self.clone(), key.to_owned());
        let read = blocking(move || {
            let mut responses = store.0.index.responses(&owned)?;
            for response in queued {
                put_variant(&mut responses, response);
            }
            Ok(responses)
        })
        .await;
        match read {
            Ok(responses) => {
                let responses: Responses = Arc::new(responses.into());
                self.0.hot.remember(key, &responses, epoch);
                responses
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "the index could not be read; treated as a miss");
                Responses::default()
            }
        }
    }

    /// A 200 stored under another key whose content is `digest`, now stored under `key`, too: the same bytes under another
    /// name. Empty when there is none.
    pub async fn lookup_content(&self, key: &str, digest: Digest) -> Responses {
        let store = self.clone();
        let found = blocking(move || {
            store.0.behind.settle([], Some(&digest));
            let Some(other) = store.0.index.key_of(&digest)? else {
                return Ok(None);
            };
            let responses = store.0.index.responses(&other)?;
            Ok(responses
                .into_iter()
                .find(|response| response.content.digest == digest && response.head.status == StatusCode::OK))
        })
        .await;
        let mut response = match found {
            Ok(Some(response)) => response,
            Ok(None) => return Responses::default(),
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "the index could not be read; treated as a miss");
                return Responses::default();
            }
        };
        response.head.known_digest = true;
        response.head.selecting = Selecting::default();
        response.head.headers.remove(header::VARY);
        if let Err(error) = self.update(key.to_owned(), response.clone()).await {
            tracing::warn!(error = %Chain(&error), "known content could not get another name");
        }
        Responses::new(vec![response].into())
    }

    /// Opens content for reading. `None` when it is missing, not of the size that the index says, or, for a body small enough
    /// for memory, other than its digest: the index then forgets it, so that the next request fetches it anew. A large body
    /// is not read here; damage in it is found by [`Store::verify`].
    pub async fn content(&self, content: ContentRef) -> Option<Content> {
        self.touch(content.digest);
        if let Some(body) = self.0.hot.body(&content.digest) {
            return Some(Content::Memory(body));
        }
        if let Some(body) = self.0.behind.body(&content.digest) {
            return Some(Content::Memory(body));
        }
        let store = self.clone();
        blocking(move || Ok(store.open_content(content)))
            .await
            .ok()
            .flatten()
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
                    let body = read_whole(&file, content)?;
                    if Digest::of(&body) != content.digest {
                        tracing::warn!(path = %path.display(), "stored content is not what its name says; forgotten");
                        self.forget_content(&content.digest);
                        return None;
                    }
                    self.0.hot.hold(content.digest, body.clone());
                    return Some(Content::Memory(body));
                }
                Some(Content::File {
                    file: Arc::new(file),
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
                }
                None
            }
        }
    }
}

/// Reads a small file whole; `None` when the disk does not give it.
fn read_whole(file: &File, content: ContentRef) -> Option<Bytes> {
    let mut body = vec![0; usize::try_from(content.length).ok()?];
    file.read_exact_at(&mut body, 0)
        .inspect_err(
            |error| tracing::warn!(digest = %content.digest, %error, "stored content cannot be read"),
        )
        .ok()?;
    Some(body.into())
}
