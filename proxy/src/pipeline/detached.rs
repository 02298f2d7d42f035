//! `Release` and `Release.gpg`: a document and the signature that lies beside it are published as one.
//!
//! When a new `Release` has come, and before anybody sees it, its signature is fetched; they belong together if the signature is about this
//! document ([`ecosystem::is_about`]). Then it is stored under its digest and becomes a member of the document's generation, like an index: who
//! was given this document gets this signature, for as long as generations are kept, and who was given the one before gets that one's.
//! An archive that is changed in between is asked again.
//!
//! Deliberately absent: signatures that do not show what they are about. They are taken as they come.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use kato_shared::{Digest, chain::Chain};
use url::Url;

use super::{
    Pipeline,
    flight::{Flight, announced_length, times},
    groups::{LARGEST, receive},
    landing::past_caches,
    lessons::keyed,
};
use crate::{
    ecosystem::{self, Known, Lesson},
    fill::Source,
    origin::{OriginRequest, OriginResponse},
    policy::{Overrides, Request, Stored},
    seldom::warn_seldom,
    store::{ContentRef, StoredResponse},
};

/// What there is beside a document.
pub(super) enum Detached {
    /// Nothing: it needs none, or the archive has none.
    None,
    /// Its signature, stored, as a member of its generation.
    Fits(Box<(String, Known)>),
    /// That of another generation, or nobody can say.
    Other,
}

impl Pipeline {
    /// Fetches what is beside `document`, which `flight` has brought, and stores it if it fits.
    pub(super) async fn detached(&self, flight: &Flight, document: &Bytes) -> Detached {
        let target = &flight.ask.target;
        if ecosystem::signature(&target.upstream, &target.path).is_none() {
            return Detached::None;
        }
        let response = match self.0.origin.send(self.beside(flight)).await {
            Ok(response) => response,
            Err(error) => {
                tracing::info!(url = %target.key.shown(), error = %Chain(&error), "the signature of a document cannot be had");
                return Detached::Other;
            }
        };
        match response.status {
            StatusCode::OK => {}
            // Later, perhaps.
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => return Detached::Other,
            // A document may be signed inline, or not at all; some stores of files call what is not there forbidden.
            status if status.is_client_error() => return Detached::None,
            _ => return Detached::Other,
        }
        let heads = (response.headers.clone(), times(&response));
        let announced = announced_length(&response);
        let Ok(signature) = receive(Source::new(response.body), announced, LARGEST).await else {
            return Detached::Other;
        };
        if ecosystem::is_about(&signature, document) == Some(false) {
            return Detached::Other;
        }
        self.keep_signature(flight, heads, signature).await
    }

    /// The request for the signature.
    fn beside(&self, flight: &Flight) -> OriginRequest {
        let target = &flight.ask.target;
        let mut headers = HeaderMap::new();
        past_caches(&mut headers);
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        self.complete_request(&mut headers, http::Version::HTTP_11);
        OriginRequest {
            upstream: target.upstream.name.to_string(),
            candidates: target.candidates.iter().map(signature_url).collect(),
            method: Method::GET,
            headers,
            body: Bytes::new(),
            interim: None,
            has_stand_in: false,
            has_known_digest: false,
        }
    }

    /// Stores the signature under its digest, where nothing takes it away but eviction.
    async fn keep_signature(
        &self,
        flight: &Flight,
        (headers, times): (HeaderMap, crate::policy::Times),
        signature: Bytes,
    ) -> Detached {
        let target = &flight.ask.target;
        let Ok(url) = Url::parse(target.key.uri()).map(|url| signature_url(&url)) else {
            return Detached::None;
        };
        let content = ContentRef {
            digest: Digest::of(&signature),
            length: signature.len() as u64,
        };
        let known = Known::sha256(content.digest, Some(content.length));
        let by_hash = ecosystem::by_hash(&url, &content.digest);
        let lessons = [&by_hash, &url].map(|url| {
            keyed(&Lesson {
                url: url.clone(),
                known,
            })
        });
        let [Some((by_hash, _)), Some(lesson)] = lessons else {
            return Detached::None;
        };
        let request = Request {
            method: &Method::GET,
            headers: &flight.ask.headers,
        };
        let mut head = Stored::new(&request, (StatusCode::OK, &headers), times, &Overrides::default());
        head.known_digest = true;
        head.selecting = crate::policy::Selecting::default();
        head.headers.remove(header::VARY);
        let response = StoredResponse {
            head,
            content,
            upstream: target.upstream.name.to_string(),
        };
        if let Err(error) = self.0.store.put_whole(by_hash, response, signature).await {
            warn_seldom!(url = %target.key.shown(), error = %Chain(&error), "a signature could not be stored");
            return Detached::None;
        }
        Detached::Fits(lesson.into())
    }

    /// The document of `flight` once more: the archive has changed since. `None` when it cannot be had as a whole new answer.
    pub(super) async fn once_more(&self, flight: &mut Flight) -> Option<OriginResponse> {
        flight.validated.clear();
        let past = [(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))];
        let response = self.send_with(flight, Method::GET, past).await;
        response.ok().filter(|response| response.status == StatusCode::OK)
    }
}

/// The URL of the signature of the document at `url`.
fn signature_url(url: &Url) -> Url {
    let mut beside = url.clone();
    beside.set_path(&format!("{}.gpg", url.path()));
    beside
}
