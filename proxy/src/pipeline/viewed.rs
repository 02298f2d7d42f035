//! Documents that are shown otherwise than they are stored (see [`crate::view`]): had like every other response, read into memory,
//! rewritten, and judged against the client's conditions as what they are now.

use std::{net::IpAddr, sync::Arc};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request as HttpRequest, Response, StatusCode, request};
use kato_shared::{Digest, chain::Chain};
use tokio::task::spawn_blocking;
use url::Url;

use super::{
    Answer, Ask, Pipeline,
    present::{FoundAt, Source, present},
};
use crate::{
    deliver::{BodyError, Payload},
    metrics::Outcome,
    policy::{Overrides, Request, Stored, Times, headers as fields},
    respond,
    route::Target,
    view::{Links, MOST_BYTES, OverTls, ServerBase, View, ViewError},
};

/// Documents from this size on are rewritten away from the workers: a MiB takes some milliseconds.
const LARGE: usize = 64 << 10;

/// A document as it is shown.
struct Shown {
    bytes: Bytes,
    entity_tag: HeaderValue,
}

/// Why a document is not shown.
#[derive(Debug, thiserror::Error)]
enum Unshown {
    #[error("it broke off")]
    Body(#[from] BodyError),
    #[error(transparent)]
    View(#[from] ViewError),
}

impl Pipeline {
    /// How the client that has sent `request` knows this server.
    pub(super) fn server_base<B>(&self, request: &HttpRequest<B>) -> Option<ServerBase> {
        let public_url = self.0.settings.listen.public_url.as_ref();
        let is_tls = request.extensions().get::<OverTls>().is_some();
        ServerBase::of(public_url, request.headers(), is_tls)
    }

    /// The answer to a GET or HEAD of `client` for a document that has a view.
    pub(super) async fn answer_view(
        &self,
        (mut parts, client): (request::Parts, IpAddr),
        target: Arc<Target>,
        view: View,
        base: Option<ServerBase>,
    ) -> Answer {
        fields::strip_unkeyed(&mut parts.headers);
        let ask = Ask {
            interim: self.interim(&parts.extensions),
            method: parts.method,
            headers: parts.headers,
            target,
            client,
            known: None,
        };
        self.viewed(ask, view, base).await
    }

    /// The answer to `ask` for somebody who came by a mirror path and knows this server as `base`.
    async fn viewed(&self, ask: Ask, view: View, base: Option<ServerBase>) -> Answer {
        // The whole document is needed, whatever part of it, or news about it, the client wants.
        let inner = Ask {
            method: Method::GET,
            headers: view.wishes(&ask.headers),
            target: Arc::clone(&ask.target),
            interim: ask.interim.clone(),
            client: ask.client,
            known: None,
        };
        let mut answer = self.retrieve(inner).await;
        if answer.response.status() != StatusCode::OK {
            return answer;
        }
        // The URL of the key has no password of the settings.
        let Ok(asked) = Url::parse(ask.target.key.uri()) else {
            return answer;
        };
        let (mut parts, payload) = answer.response.into_parts();
        let url = parts
            .extensions
            .remove::<FoundAt>()
            .map_or(asked, |FoundAt(url)| url);
        let headers = parts.headers;
        match self
            .shown((view, &ask), (headers.clone(), url, payload), base)
            .await
        {
            Ok(shown) => {
                answer.response = self.presented(&ask, view.head(headers, shown.entity_tag), shown.bytes);
                answer
            }
            Err(error) => {
                let url = ask.target.key.uri();
                tracing::warn!(url = %ask.target.key.shown(), error = %Chain(&error), "a document cannot be shown");
                let problem = match &error {
                    Unshown::View(ViewError::UnknownHost(host)) => respond::archives_unknown(url, host),
                    Unshown::View(ViewError::NoHost) => respond::bad_host(),
                    Unshown::View(_) | Unshown::Body(_) => respond::document_unusable(url, &error),
                };
                Answer::generated(respond::problem(&problem), Outcome::Failed, "not-shown")
            }
        }
    }

    async fn shown(
        &self,
        (view, ask): (View, &Ask),
        (headers, url, payload): (HeaderMap, Url, Payload),
        base: Option<ServerBase>,
    ) -> Result<Shown, Unshown> {
        let mut document = whole(payload).await?;
        if self.names_only_what_is_held() {
            document = self
                .without_absent((view, ask), (&headers, &url), document)
                .await?;
        }
        let upstream = Arc::clone(&ask.target.upstream);
        let is_large = document.len() >= LARGE;
        let pipeline = self.clone();
        let work = move || {
            let links = Links {
                router: pipeline.router(),
                upstream: &upstream,
                document: &url,
            };
            let rewritten = view.rewrite((&headers, &document), links, base.as_ref())?;
            let bytes = rewritten.map_or(document, Bytes::from);
            let entity_tag = entity_tag(&bytes);
            Ok(Shown { bytes, entity_tag })
        };
        if !is_large {
            return work();
        }
        match spawn_blocking(work).await {
            Ok(shown) => shown,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// Head and bytes of a view, as far as this client's conditions and ranges let them through.
    fn presented(&self, ask: &Ask, headers: HeaderMap, bytes: Bytes) -> Response<Payload> {
        let now = self.now();
        let times = Times {
            request: now,
            response: now,
        };
        let request = Request {
            method: &ask.method,
            headers: &ask.headers,
        };
        // Its age is among the fields already.
        let head = Stored::new(&request, (StatusCode::OK, &headers), times, &Overrides::default());
        present(
            &request,
            &Stored { headers, ..head },
            Source::Stored(bytes.into()),
            None,
        )
    }
}

/// All bytes of `payload`, as far as a document may have them.
async fn whole(mut payload: Payload) -> Result<Bytes, Unshown> {
    let mut document = BytesMut::new();
    while let Some(bytes) = payload.next_bytes().await? {
        if document.len() + bytes.len() > MOST_BYTES {
            return Err(ViewError::TooLarge.into());
        }
        document.extend_from_slice(&bytes);
    }
    Ok(document.freeze())
}

/// A strong one: other bytes have another.
fn entity_tag(bytes: &[u8]) -> HeaderValue {
    let quoted = format!("\"{}\"", Digest::of(bytes).hex());
    // Hexadecimal digits are a value; the empty tag would be one, too.
    HeaderValue::try_from(quoted).unwrap_or(HeaderValue::from_static("\"\""))
}
