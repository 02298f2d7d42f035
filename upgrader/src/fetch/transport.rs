//! `tough`'s way to the repository's metadata: the same route, retries and errors as for artifacts.
//!
//! The body is a stream, so that `tough` can cut off endless data. One that breaks off is continued from where it
//! stopped if the server named a strong entity tag, because `tough` has taken in the beginning already.

use std::{
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, stream};
use tough::{Transport, TransportError, TransportErrorKind, TransportStream};
use url::Url;

use super::{
    FetchError, Fetcher,
    download::again,
    error,
    exchange::{self, Answer, Failed, Resume, Retry},
    retry::Retries,
};

#[async_trait]
impl Transport for Fetcher {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let mut retries = Retries::new(u64::MAX);
        let answer = loop {
            match exchange::send(self, &url, None).await {
                Ok(answer) => break answer,
                Err(failed) => again(&mut retries, failed)
                    .await
                    .map_err(|error| lift(&url, error))?,
            }
        };
        let body = Body {
            fetcher: self.clone(),
            etag: answer.etag.clone(),
            answer,
            url,
            received: 0,
            retries,
        };
        let stream = stream::try_unfold(body, |mut body| async move {
            match body.next().await {
                Ok(piece) => Ok(piece.map(|piece| (piece, body))),
                Err(error) => Err(lift(&body.url, error)),
            }
        });
        Ok(Box::pin(Exclusive(Mutex::new(Box::pin(stream)))))
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
}

impl Body {
    async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        loop {
            match self.answer.response.chunk().await {
                Ok(Some(piece)) => {
                    self.received += piece.len() as u64;
                    self.retries.progress(self.received);
                    return Ok(Some(piece));
                }
                Ok(None) => return Ok(None),
                Err(source) => {
                    let failed = self.interrupted(Some(source.without_url()));
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
                Ok(_from_the_start) => return Err(self.interrupted(None).error),
                Err(again) => failed = again,
            }
        }
    }

    fn interrupted(&self, source: Option<reqwest::Error>) -> Failed {
        Failed {
            error: FetchError::Interrupted {
                url: error::shown(&self.fetcher.route().resolve(&self.url)),
                received: self.received,
                size: self.answer.size.unwrap_or(0),
                source,
            },
            retry: Retry::Again(None),
        }
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
