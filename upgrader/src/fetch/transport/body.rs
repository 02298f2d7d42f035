//! The body of one file, however many connections it takes.
//!
//! ```text
//!   breaks off ─▶ a strong entity tag? ──yes─▶ the rest of that very representation (Range, If-Range) ─▶ goes on
//!                        │ no, or the server cannot
//!                        ▼
//!                 all of it again ──▶ nothing was given on yet: what was received is forgotten
//!                                └──▶ the beginning was given on: it must be the same again, to the byte; then the rest is given on
//! ```
//!
//! What always holds: whoever reads gets the bytes of one representation. Two are never put together: what the newest root and the
//! newest timestamp are is known from nowhere else, and a server may publish between two connections.
//!
//! Deliberately absent: a look at the content. Its digest, where it is signed, is `tough`'s part.

use bytes::{Bytes, BytesMut};
use kato_shared::{Digest, digest::Hasher};
use url::Url;

use crate::fetch::{
    FetchError, Fetcher,
    download::{again, is_range_trouble},
    error,
    exchange::{self, Answer, Failed, Resume, SoFar},
    pace::{Broken, Pace},
    page,
    retry::Retries,
};

/// Documents up to this size are held in memory: no document of a repository is larger (`kato_shared::trust`).
const MAX_HELD: usize = 16 * 1024 * 1024;

/// A body that is asked for again when it breaks off.
pub(super) struct Body {
    fetcher: Fetcher,
    url: Url,
    answer: Answer,
    /// The strong entity tag of what was received; a weak one does not promise the same bytes (RFC 9110 §8.8.1).
    etag: Option<String>,
    /// What was received of the representation, given on or not.
    received: u64,
    /// What was received and is still to be given on.
    held: BytesMut,
    is_whole: bool,
    /// The digest of all that was given on, and its length in bytes.
    given: Hasher,
    given_on: u64,
    retries: Retries,
    pace: Pace,
}

impl Body {
    /// Asks for `url` until the head of an answer comes or makes no sense.
    pub(super) async fn open(fetcher: &Fetcher, url: &Url) -> Result<Self, FetchError> {
        let mut retries = Retries::new(u64::MAX);
        let answer = loop {
            match exchange::send(fetcher, url, None).await {
                Ok(answer) => break answer,
                Err(failed) => again(&mut retries, failed).await?,
            }
        };
        Ok(Self {
            fetcher: fetcher.clone(),
            url: url.clone(),
            etag: answer.etag.clone(),
            answer,
            received: 0,
            held: BytesMut::new(),
            is_whole: false,
            given: Hasher::new(),
            given_on: 0,
            retries,
            pace: Pace::new(fetcher.timeouts.floor),
        })
    }

    pub(super) const fn url(&self) -> &Url {
        &self.url
    }

    pub(super) const fn received(&self) -> u64 {
        self.received
    }

    /// The failure of a document that did not come in its time.
    pub(super) fn too_slow(&self) -> FetchError {
        self.fetcher.too_slow(&self.url, self.received)
    }

    /// Takes all of it in before any of it is given on; of what is larger than a document, the beginning.
    pub(super) async fn hold(&mut self) -> Result<(), FetchError> {
        while self.held.len() <= MAX_HELD {
            match self.piece().await {
                Ok(Some(piece)) => self.held.extend_from_slice(&piece),
                Ok(None) => {
                    self.is_whole = true;
                    break;
                }
                Err(failed) => self.ask_again(failed).await?,
            }
        }
        Ok(())
    }

    /// The next bytes, in order; `None` behind the last.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        loop {
            let piece = if !self.held.is_empty() {
                self.held.split().freeze()
            } else if self.is_whole {
                return Ok(None);
            } else {
                match self.piece().await {
                    Ok(Some(piece)) => piece,
                    Ok(None) => return Ok(None),
                    Err(failed) => {
                        self.ask_again(failed).await?;
                        continue;
                    }
                }
            };
            self.given_on += piece.len() as u64;
            self.given.update(&piece);
            return Ok(Some(piece));
        }
    }

    /// The next bytes of this answer.
    async fn piece(&mut self) -> Result<Option<Bytes>, Failed> {
        match self.pace.next(&mut self.answer.response).await {
            Ok(Some(piece)) if self.received == 0 && page::begins(&piece) => {
                Err(exchange::page(&self.fetcher, &self.url).into())
            }
            Ok(Some(piece)) => {
                self.received += piece.len() as u64;
                self.retries.progress(self.received);
                Ok(Some(piece))
            }
            Ok(None) if self.answer.size.is_some_and(|size| self.received < size) => Err(self.broken(None)),
            Ok(None) => Ok(None),
            Err(why) => Err(self.broken(Some(why))),
        }
    }

    /// Asks until it can be gone on with, or gives up.
    async fn ask_again(&mut self, mut failed: Failed) -> Result<(), FetchError> {
        loop {
            again(&mut self.retries, failed).await?;
            match self.renewed().await {
                Ok(()) => return Ok(()),
                Err(next) => failed = next,
            }
        }
    }

    /// One question: for the rest, or for all of it.
    async fn renewed(&mut self) -> Result<(), Failed> {
        let etag = self.etag.clone();
        let resume = etag.as_deref().map(|etag| Resume {
            offset: self.received,
            etag: Some(etag),
        });
        // What breaks off while the beginning is repeated is repeated again.
        let resume = resume.filter(|_| self.received > 0 && self.received >= self.given_on);
        let sent = exchange::send(&self.fetcher, &self.url, resume).await;
        self.answer = sent.inspect_err(|failed| {
            // A server that cannot continue is asked for all of it next time.
            if is_range_trouble(&failed.error) {
                self.etag = None;
            }
        })?;
        if resume.is_some() && self.answer.start == self.received {
            return Ok(());
        }
        self.etag.clone_from(&self.answer.etag);
        self.held.clear();
        self.received = 0;
        self.repeated().await
    }

    /// Receives once more what was given on. When it is something else by now, there is no way to go on.
    async fn repeated(&mut self) -> Result<(), Failed> {
        let mut repeated = Hasher::new();
        while self.received < self.given_on {
            let Some(mut piece) = self.piece().await? else {
                return Err(self.other());
            };
            let excess = self.received.saturating_sub(self.given_on);
            let excess = usize::try_from(excess).unwrap_or(usize::MAX);
            self.held
                .extend_from_slice(&piece.split_off(piece.len().saturating_sub(excess)));
            repeated.update(&piece);
        }
        if digest(&repeated) == digest(&self.given) {
            Ok(())
        } else {
            Err(self.other())
        }
    }

    /// The failure of a file that is another one by now.
    fn other(&self) -> Failed {
        self.broken(None).error.into()
    }

    fn broken(&self, why: Option<Broken>) -> Failed {
        let url = error::shown(&self.fetcher.route().resolve(&self.url));
        let so_far = SoFar {
            received: self.received,
            size: self.answer.size.unwrap_or(0),
            anew: self.etag.is_none(),
        };
        exchange::broken(&self.fetcher, &url, so_far, &self.pace, why)
    }
}

fn digest(hasher: &Hasher) -> Digest {
    hasher.clone().finish()
}
