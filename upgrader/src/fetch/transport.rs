//! `tough`'s way to the repository's metadata: the same route, retries and errors as for artifacts.
//!
//! A document is taken in whole before `tough` gets its first byte ([`body`] says why), so one that breaks off costs a new question and
//! nothing else, whatever the server says about it. What is too long for that comes as a stream, so that `tough` can cut off endless
//! data.
//!
//! Documents have a deadline: they are small, and whoever drips them holds up the run and its lock. Other files, which only
//! `kato release verify` reads this way, have the floor of [`super::pace`].

mod body;

use std::{
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll},
};

use async_trait::async_trait;
use futures_util::{Stream, stream};
use tokio::time::{Instant, timeout_at};
use tough::{Transport, TransportError, TransportErrorKind, TransportStream};
use url::Url;

use self::body::Body;
use super::{FetchError, Fetcher, error};

#[async_trait]
impl Transport for Fetcher {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let limit = self.timeouts.document;
        let end = is_document(&url).then(|| Instant::now() + limit);
        let mut body = match in_time(end, Body::open(self, &url)).await {
            Some(opened) => opened.map_err(|error| lift(&url, error))?,
            None => return Err(lift(&url, self.too_slow(&url, 0))),
        };
        if end.is_some() {
            let held = match in_time(end, body.hold()).await {
                Some(held) => held,
                None => Err(self.too_slow(&url, body.received())),
            };
            held.map_err(|error| lift(&url, error))?;
        }
        let stream = stream::try_unfold(body, move |mut body| async move {
            let piece = match in_time(end, body.next()).await {
                Some(piece) => piece,
                None => Err(body.too_slow()),
            };
            match piece {
                Ok(piece) => Ok(piece.map(|piece| (piece, body))),
                Err(error) => Err(lift(body.url(), error)),
            }
        });
        Ok(Box::pin(Exclusive(Mutex::new(Box::pin(stream)))))
    }
}

impl Fetcher {
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
