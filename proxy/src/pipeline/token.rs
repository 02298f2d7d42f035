//! `/-/token`: a user of the door changes name and secret for a token (distribution specification, "Token authentication").
//!
//! ```text
//! GET /v2/…                                    401, Bearer realm="https://cache/-/token",service="kato",scope="repository:…:pull"
//! GET /-/token?scope=repository:…:pull         Basic name:secret ⇒ {"token": …, "expires_in": …}
//! GET /v2/…                                    Bearer token
//! ```
//!
//! So a password is sent, and verified, once for many requests. Who shows name and secret at the door itself is let in as well.

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use serde_json::json;
use url::form_urlencoded;

use super::{Answer, Asked, Inside, Pipeline};
use crate::{
    deliver::Payload,
    metrics::Outcome,
    registry, respond,
    view::{OverTls, ServerBase},
};

/// Where tokens are given.
const TOKEN_PATH: &str = "/-/token";
/// What we call ourselves towards clients: tokens are for this door alone.
const SERVICE: &str = "kato";

impl Pipeline {
    /// The challenge for a request at the door, where tokens are given: its parameter `realm` leads back here.
    pub(super) fn challenge<B>(&self, request: &Request<B>) -> Option<String> {
        if !self.0.guests.give_tokens() {
            return None;
        }
        let realm = self.named_base(request)?.at(TOKEN_PATH);
        let scope = registry::scope(request.uri())
            .map(|scope| format!(",scope=\"{scope}\""))
            .unwrap_or_default();
        Some(format!("Bearer realm=\"{realm}\",service=\"{SERVICE}\"{scope}"))
    }

    /// How the client knows this server, from a request in whatever form: over HTTP/2 the name is no field yet.
    fn named_base<B>(&self, request: &Request<B>) -> Option<ServerBase> {
        if let Some(base) = self.server_base(request) {
            return Some(base);
        }
        let name = HeaderValue::from_str(request.uri().authority()?.as_str()).ok()?;
        let is_tls = request.extensions().get::<OverTls>().is_some();
        ServerBase::of(None, &HeaderMap::from_iter([(header::HOST, name)]), is_tls)
    }

    /// Whether `request` is about a token.
    pub(super) fn is_for_token<B>(&self, request: &Request<B>) -> bool {
        let is_for_us = request.uri().authority().is_none() && request.extensions().get::<Inside>().is_none();
        is_for_us && request.uri().path() == TOKEN_PATH && self.0.guests.give_tokens()
    }

    /// A token, or why there is none.
    pub(super) fn token_page(&self, request: &Asked) -> impl Future<Output = Answer> + Send + use<'_> {
        let is_read = *request.method() == Method::GET;
        let query = request.uri().query().unwrap_or_default().as_bytes();
        let wanted = self.wanted(query);
        let headers = request.headers().clone();
        async move {
            if !is_read {
                return refused(&respond::describe(
                    "registry-unsupported",
                    "only GET",
                    StatusCode::METHOD_NOT_ALLOWED,
                    "tokens are asked for by GET, with name and secret as Basic".into(),
                    None,
                ));
            }
            self.token_for(&headers, wanted).await
        }
    }

    async fn token_for(&self, headers: &HeaderMap, wanted: (Vec<String>, bool)) -> Answer {
        let now = self.0.clock.now();
        let Some(given) = self.0.guests.token(headers, wanted, now).await else {
            return refused(&registry::unauthorized());
        };
        let body = json!({
            "token": given.token,
            "access_token": given.token,
            "expires_in": given.lifetime.as_secs(),
            "issued_at": now.to_string(),
        });
        let mut response = Response::new(Payload::bytes(body.to_string().into_bytes()));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Answer::generated(response, Outcome::Hit, "token")
    }

    /// The repositories that the scopes of a query name, as `UPSTREAM/REPOSITORY`, and whether the lists of them are meant, too. What
    /// leads nowhere is left out: a client asks for more than it needs, and the door says what is missing.
    fn wanted(&self, query: &[u8]) -> (Vec<String>, bool) {
        let pairs = form_urlencoded::parse(query);
        let (mut repositories, mut list) = (Vec::new(), false);
        for (_, value) in pairs.filter(|(name, _)| name == "scope") {
            for scope in value.split(' ') {
                list |= scope == registry::CATALOG;
                let repository = scope
                    .strip_prefix("repository:")
                    .and_then(|rest| rest.rsplit_once(':'))
                    .filter(|(_, actions)| actions.split(',').any(|action| matches!(action, "pull" | "*")))
                    .and_then(|(name, _)| self.0.router.repository(name));
                repositories.extend(repository);
            }
        }
        (repositories, list)
    }
}

fn refused(problem: &kato_shared::api::Problem) -> Answer {
    let mut response = respond::problem(problem);
    registry::speak(&mut response, None);
    Answer::generated(response, Outcome::Refused, "token")
}
