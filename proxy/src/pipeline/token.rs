//! `/-/token`: a user of the door changes name and secret for a token (distribution specification, "Token authentication").
//!
//! ```text
//! GET /v2/…                                    401, Bearer realm="https://cache/-/token",service="kato",scope="repository:…:pull"
//! GET /-/token?scope=repository:…:pull         Basic name:secret ⇒ {"token": …, "expires_in": …}
//! POST /-/token  grant_type=password&username=…  the same, as OAuth 2.0 has it (`registry::grant`)
//! GET /v2/…                                    Bearer token
//! ```
//!
//! So a password is sent, and verified, once for many requests. Who shows name and secret at the door itself is let in as well.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Limited;
use hyper::body::Incoming;
use serde_json::json;
use url::form_urlencoded;

use super::{Answer, Asked, Inside, Pipeline, forward::collect};
use crate::{
    deliver::Payload,
    metrics::Outcome,
    registry::{self, Grant, NoGrant, NotGiven},
    respond,
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
    pub(super) async fn token_page(&self, request: Asked, client: IpAddr) -> Answer {
        let (parts, content) = request.into_parts();
        match parts.method {
            Method::GET => {
                let query = parts.uri.query().unwrap_or_default();
                match self.token_for(&parts.headers, query, client).await {
                    Ok(given) => given,
                    Err(NotGiven::Stranger) => refused(&registry::unauthorized()),
                    Err(NotGiven::Crowded) => refused(&registry::crowded()),
                }
            }
            Method::POST => match self.granted(&parts.headers, content, client).await {
                Ok(given) => given,
                Err(no) => Answer::generated(no.response(), Outcome::Refused, "token"),
            },
            _ => refused(&respond::describe(
                "registry-unsupported",
                "only GET and POST",
                StatusCode::METHOD_NOT_ALLOWED,
                "tokens are asked for by GET, with name and secret as Basic, or by POST of a form".into(),
                None,
            )),
        }
    }

    /// A token for name and secret in a form.
    async fn granted(
        &self,
        headers: &HeaderMap,
        content: Option<Incoming>,
        client: IpAddr,
    ) -> Result<Answer, NoGrant> {
        let content = content.ok_or(NoGrant::Malformed("there is no content"))?;
        let patience = self.0.settings.limits.progress_timeout.get();
        let form = collect(Limited::new(content, registry::MOST_GRANT_BYTES), patience)
            .await
            .map_err(|error| {
                tracing::debug!(%error, "a form for a token did not come whole");
                NoGrant::Malformed("the content is too long, or did not come whole")
            })?;
        let grant = Grant::read(headers.get(header::CONTENT_TYPE), &form)?;
        let line = registry::basic(&grant.name, &grant.secret).ok_or(NoGrant::Denied)?;
        let shown = HeaderMap::from_iter([(header::AUTHORIZATION, line)]);
        let given = self.token_for(&shown, &grant.scopes, client).await;
        given.map_err(NoGrant::from)
    }

    /// A token for whoever shows name and secret in `headers`, for the scopes in `query`.
    async fn token_for(&self, headers: &HeaderMap, query: &str, client: IpAddr) -> Result<Answer, NotGiven> {
        let now = self.0.clock.now();
        let wanted = self.wanted(query.as_bytes());
        let given = self.0.guests.token(headers, wanted, (client, now)).await?;
        let body = json!({
            "token": given.token,
            "access_token": given.token,
            "token_type": "Bearer",
            "expires_in": given.lifetime.as_secs(),
            "issued_at": now.to_string(),
        });
        let mut response = Response::new(Payload::bytes(body.to_string().into_bytes()));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(Answer::generated(response, Outcome::Hit, "token"))
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
