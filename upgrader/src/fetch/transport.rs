//! `tough`'s way to the repository's metadata: the same route, retries and errors as for artifacts.
//!
//! The body is a stream, so that `tough` can cut off endless data. One that breaks off is continued from where it
//! stopped if the server named a strong entity tag, because `tough` has taken in the beginning already.
//!
//! Documents have a deadline: they are small, and whoever drips them holds up the run and its lock. Other files, which only
//! `kato release verify` reads this way, have the floor of [`super::pace`].

use std::{
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::time::{Instant, timeout_at};
use tough::{Transport, TransportError, TransportErrorKind, TransportStream};
use url::Url;

use super::{
    FetchError, Fetcher,
    download::again,
    error,
    exchange::{self, Answer, Failed, Resume},
    pace::{Broken, Pace},
    page,
    retry::Retries,
};

#[async_trait]
impl Transport for Fetcher {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let mut retries = Retries::new(u64::MAX);
        let limit = self.timeouts.document;
        let end = is_document(&url).then(|| Instant::now() + limit);
        let asking = self.answer(&url, &mut retries);
        let answer = match in_time(end, asking).await {
            Some(answer) => answer,
            None => Err(self.too_slow(&url, 0)),
        };
        let answer = answer.map_err(|error| lift(&url, error))?;
        let body = Body {
            fetcher: self.clone(),
            etag: answer.etag.clone(),
            answer,
            url,
            received: 0,
            retries,
            pace: Pace::new(self.timeouts.floor),
        };
        let stream = stream::try_unfold(body, move |mut body| async move {
            let piece = match in_time(end, body.next()).await {
                Some(piece) => piece,
                None => Err(body.fetcher.too_slow(&body.url, body.received)),
            };
            match piece {
                Ok(piece) => Ok(piece.map(|piece| (piece, body))),
                Err(error) => Err(lift(&body.url, error)),
            }
        });
        Ok(Box::pin(Exclusive(Mutex::new(Box::pin(stream)))))
    }
}

impl Fetcher {
    /// The head of an answer, asked for until it comes or makes no sense.
    async fn answer(&self, url: &Url, retries: &mut Retries) -> Result<Answer, FetchError> {
        loop {
            match exchange::send(self, url, None).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => again(retries, failed).await?,
            }
        }
    }

    /// The failure of a document that did not come in its time.
    pub(super) fn too_slow(&self, url: &Url, received: u64) -> FetchError {
        FetchError::TooSlow {
            url: error::shown(&self.route().resolve(url)),
            is_cache: self.route().is_cache(),
            received,
            within: self.timeouts.document,
            expected: None,
        }
    }
}

/// Whether it is one of the documents of a repository: metadata, the graph, releases, lists of patches.
fn is_document(url: &Url) -> bool {
    let name = url.path().rsplit('.').next();
    name.is_some_and(|end| end.eq_ignore_ascii_case("json"))
}

/// What `future` gives before `end`; `None` when it does not.
async fn in_time<T>(end: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    match end {
        Some(end) => timeout_at(end, future).await.ok(),
        None => Some(future.await),
    }
}

/// A body that is continued when it breaks off.
struct Body {
    fetcher: Fetcher,
    url: Url,
    answer: Answer,
    etag: Option<String>,
    received: u64,
    retries: Retries,
    pace: Pace,
}

impl Body {
    async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        loop {
            match self.pace.next(&mut self.answer.response).await {
                Ok(Some(piece)) if self.received == 0 && page::begins(&piece) => {
                    return Err(exchange::page(&self.fetcher, &self.url));
                }
                Ok(Some(piece)) => {
                    self.received += piece.len() as u64;
                    self.retries.progress(self.received);
                    return Ok(Some(piece));
                }
                Ok(None) => return Ok(None),
                Err(why) => {
                    let failed = self.broken(Some(why));
                    self.resume(failed).await?;
                }
            }
        }
    }

    /// Asks for the rest until it comes, or gives up.
    async fn resume(&mut self, mut failed: Failed) -> Result<(), FetchError> {
        let Some(etag) = self.etag.clone() else {
            return Err(failed.error);
        };
        loop {
            again(&mut self.retries, failed).await?;
            let resume = Resume {
                offset: self.received,
                etag: Some(&etag),
            };
            match exchange::send(&self.fetcher, &self.url, Some(resume)).await {
                Ok(answer) if answer.start == self.received => {
                    self.answer = answer;
                    return Ok(());
                }
                // Another representation by now, or a server that cannot continue: the beginning is gone already.
                Ok(_from_the_start) => return Err(self.broken(None).error),
                Err(again) => failed = again,
            }
        }
    }

    fn broken(&self, why: Option<Broken>) -> Failed {
        let url = error::shown(&self.fetcher.route().resolve(&self.url));
        let so_far = (self.received, self.answer.size.unwrap_or(0));
        exchange::broken(&self.fetcher, &url, so_far, &self.pace, why)
    }
}

/// "Not found" is an answer that `tough` needs to know: it ends the walk up the roots. Storage services say 403 for
/// it when the folder may not be listed. A cache that refuses says so in a problem detail, which is no such answer.
fn lift(url: &Url, error: FetchError) -> TransportError {
    let is_absent = matches!(
        error,
        FetchError::Status {
            status: 403 | 404 | 410,
            detail: None,
            ..
        }
    );
    let kind = if is_absent {
        TransportErrorKind::FileNotFound
    } else {
        TransportErrorKind::Other
    };
    TransportError::new_with_cause(kind, url, error)
}

/// Makes a stream that only one thread can poll at a time shareable, as `tough` demands; the lock is never contended.
struct Exclusive<S>(Mutex<Pin<Box<S>>>);

impl<S: Stream> Stream for Exclusive<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let stream = self
            .0
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        stream.as_mut().poll_next(context)
    }
}
