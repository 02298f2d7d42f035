//! Credentials and tokens towards registries (distribution specification, "Token authentication"; RFC 6750, RFC 7617).
//!
//! ```text
//! ask           with the token that is at hand for this repository, if any
//! 401           the challenge says which token service, for what
//! token         asked for once, however many requests wait for it; kept for its scope until it is nearly over
//! ask again     once
//! ```
//!
//! Rules:
//! * Credentials and tokens go to hosts of the upstream's own `urls`, never along with a redirect to another origin, and only with what
//!   reads (GET, HEAD) below one of those URLs: whoever may ask us may not write, nor look around, in the operator's name.
//! * A challenge is remembered when it was met, and forgotten when it cannot be met any more: what a registry said once in error, or
//!   before it was set up otherwise, must not stand between it and us.
//! * A token service is asked only at the registry's own host or registrable domain, or where `token_hosts` says so: whoever can
//!   answer for a registry must not be able to send the operator's password wherever it likes. The address guard holds as everywhere.
//! * Credentials that are not taken, by a token service or by the registry, are not shown again for a while, so that no account is locked.
//! * What the clients of this cache show is not looked at.
//!
//! Deliberately absent: refresh tokens (`identitytoken` of a docker configuration) and credential helpers, which are programs.

mod challenge;
mod credentials;
mod realm;
mod standing;
mod tokens;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use kato_shared::{chain::Chain, redact};
use tokio::time::{Instant, timeout};
use url::Url;

use super::{Origin, OriginError, OriginRequest, flow::Arriving, redirect};
use crate::{
    registry::Place,
    settings::{BaseUrl, Kind, Upstream},
};
use challenge::{Bearer, Challenge};
use credentials::Credentials;
pub(super) use realm::Realms;
use standing::Standing;
use tokens::{Held, Token, Tokens};

/// The most challenges that are remembered; one more and all are learnt anew.
const MAX_CHALLENGES: usize = 4096;
/// The largest answer of a token service. Tokens are a few kilobytes.
const MAX_ANSWER: usize = 1 << 20;
/// How long nobody sees credentials that were not taken.
const AFTER_REFUSAL: Duration = Duration::from_secs(10);

/// What is known about one registry.
#[derive(Debug)]
pub(super) struct Auth {
    /// Origins of the upstream's URLs: they alone see credentials.
    own: Vec<url::Origin>,
    credentials: Option<Credentials>,
    realms: Realms,
    /// By origin and repository, what is asked there: so that the next request brings its token at once.
    challenges: Mutex<HashMap<RepositoryAt, Challenge>>,
    tokens: Tokens,
    /// Of the credentials, where they are shown to the registry itself.
    standing: Mutex<Standing>,
    /// Held while credentials are shown that were not taken the last time: all others wait for what becomes of them.
    trial: tokio::sync::Mutex<()>,
}

/// An origin, and a repository there.
type RepositoryAt = (String, String);

impl Auth {
    /// What `upstream` says about itself; `None` where it is no registry.
    ///
    /// # Errors
    /// [`OriginError::File`] when its credentials cannot be read.
    pub(super) fn of(upstream: &Upstream) -> Result<Option<Self>, OriginError> {
        if upstream.kind != Kind::Registry {
            return Ok(None);
        }
        let urls: Vec<_> = upstream.urls.iter().map(BaseUrl::url).collect();
        Ok(Some(Self {
            own: urls.iter().map(|url| url.origin()).collect(),
            credentials: Credentials::of(upstream)?,
            realms: Realms::of(upstream),
            challenges: Mutex::default(),
            tokens: Tokens::default(),
            standing: Mutex::default(),
            trial: tokio::sync::Mutex::default(),
        }))
    }

    /// The challenge to expect for `url`.
    fn expected(&self, url: &Url) -> Option<Challenge> {
        self.challenges().get(&place(url)).cloned()
    }

    /// Remembers what a 401 for `url` asks for, and could be given.
    fn met(&self, url: &Url, challenge: Challenge) {
        let mut challenges = self.challenges();
        if challenges.len() >= MAX_CHALLENGES {
            challenges.clear();
        }
        challenges.insert(place(url), challenge);
    }

    /// What was expected for `url` is so no more.
    fn forget(&self, url: &Url) {
        self.challenges().remove(&place(url));
    }

    fn challenges(&self) -> MutexGuard<'_, HashMap<RepositoryAt, Challenge>> {
        self.challenges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The credentials themselves for `url`, unless they were not taken a moment ago.
    fn basic(&self, url: &Url) -> Option<HeaderValue> {
        let may_be_shown = self.standing().may_be_shown(&place(url), Instant::now());
        let credentials = self.credentials.as_ref().filter(|_| may_be_shown)?;
        Some(credentials.basic())
    }
}

/// The origin and the repository of `url`.
fn place(url: &Url) -> RepositoryAt {
    // The base URL may have a path of its own; what counts begins at its `v2`.
    let path = url.path();
    let start = path.find("/v2/").map_or(path.len(), |at| at + 1);
    let repository = Place::of(&path[start..]).repository;
    (url.origin().ascii_serialization(), repository)
}

impl Origin {
    /// One exchange as [`Origin::ask`], with the credentials that the registry wants.
    ///
    /// # Errors
    /// As there, and those of the token service.
    pub(super) async fn ask_with_token(
        &self,
        request: &OriginRequest,
        url: &Url,
        headers: &HeaderMap,
    ) -> Result<Response<Arriving>, OriginError> {
        let profile = self.profile(&request.upstream);
        let auth = profile.auth.as_ref();
        let Some(auth) =
            auth.filter(|auth| auth.own.contains(&url.origin()) && profile.speaks_for_us(request))
        else {
            return self.ask(request, url, headers).await;
        };
        // A client's own credentials, where they may pass, are not mixed with ours.
        if headers.contains_key(header::AUTHORIZATION) {
            return self.ask(request, url, headers).await;
        }
        let expected = match auth.expected(url) {
            Some(challenge) => Box::pin(self.authorization(request, auth, (&challenge, url), None)).await,
            None => Ok(None),
        };
        let sent = expected.unwrap_or_else(|error| {
            tracing::info!(upstream = request.upstream, error = %Chain(&error), "what the registry wanted before cannot be had; it is asked what it wants now");
            auth.forget(url);
            None
        });
        let response = Box::pin(self.showing(request, auth, url, (headers, sent.as_ref()))).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let Some(challenge) = Challenge::of(response.headers()) else {
            return Ok(response);
        };
        let next = Box::pin(self.authorization(request, auth, (&challenge, url), sent.as_ref()))
            .await
            .inspect_err(|_no_token| auth.forget(url))?;
        let Some(next) = next.filter(|next| sent.as_ref() != Some(next)) else {
            return Ok(response);
        };
        auth.met(url, challenge);
        redirect::finish(response.into_body()).await;
        Box::pin(self.showing(request, auth, url, (headers, Some(&next)))).await
    }

    /// One exchange with `authorization`. Where those are the credentials themselves, what becomes of them is noted; and while nobody
    /// knows whether they are good, one request at a time shows them.
    async fn showing(
        &self,
        request: &OriginRequest,
        auth: &Auth,
        url: &Url,
        (headers, authorization): (&HeaderMap, Option<&HeaderValue>),
    ) -> Result<Response<Arriving>, OriginError> {
        let credentials = auth.credentials.as_ref().map(Credentials::basic);
        if authorization.is_none() || authorization != credentials.as_ref() {
            return self.ask(request, url, &with(headers, authorization)).await;
        }
        let is_good = auth.standing().is_good();
        let _trial = if is_good {
            None
        } else {
            // Behind a registry that is silent nobody waits for all others.
            timeout(self.progress_timeout(), auth.trial.lock()).await.ok()
        };
        // Somebody else's trial may have ended badly meanwhile.
        let shown = auth.basic(url);
        let answered = self.ask(request, url, &with(headers, shown.as_ref())).await?;
        if shown.is_some() {
            let mut standing = auth.standing();
            match answered.status() {
                StatusCode::UNAUTHORIZED => standing.refused(place(url), Instant::now()),
                // Whoever is in trouble has not looked at it.
                status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {}
                _ => standing.taken(),
            }
        }
        Ok(answered)
    }

    /// The value of `Authorization` for `challenge` to a request for `url`, if there is one; not `refused`, which was sent and not taken.
    async fn authorization(
        &self,
        request: &OriginRequest,
        auth: &Auth,
        (challenge, url): (&Challenge, &Url),
        refused: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, OriginError> {
        let bearer = match challenge {
            Challenge::Basic => return Ok(auth.basic(url)),
            Challenge::Bearer(bearer) => bearer,
        };
        let slot = auth.tokens.slot(bearer);
        // Held while the token service is asked: whoever needs the same token waits here and finds it.
        let mut held = slot.lock().await;
        let now = Instant::now();
        match &*held {
            Some(Held::Token(token)) if token.until > now && Some(&token.value) != refused => {
                return Ok(Some(token.value.clone()));
            }
            Some(Held::Refused { until }) if *until > now => return Ok(None),
            Some(Held::Token(_) | Held::Refused { .. }) | None => {}
        }
        let token = self.token(request, auth, bearer).await?;
        *held = Some(match &token {
            Some(token) => Held::Token(token.clone()),
            None => Held::Refused {
                until: Instant::now() + AFTER_REFUSAL,
            },
        });
        Ok(token.map(|token| token.value))
    }

    /// Asks the token service; `None` when it does not take the credentials.
    async fn token(
        &self,
        request: &OriginRequest,
        auth: &Auth,
        bearer: &Bearer,
    ) -> Result<Option<Token>, OriginError> {
        let realm = &bearer.realm;
        if !auth.realms.allow(realm) {
            return Err(OriginError::Realm {
                url: request.candidates.first().map(redact::url).unwrap_or_default(),
                realm: redact::url(realm),
            });
        }
        let mut headers =
            HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("application/json"))]);
        if let Some(credentials) = &auth.credentials {
            headers.insert(header::AUTHORIZATION, credentials.basic());
        }
        let account = auth.credentials.as_ref().map(Credentials::user);
        let asked = OriginRequest {
            candidates: vec![bearer.url(account)],
            method: Method::GET,
            body: bytes::Bytes::new(),
            interim: None,
            headers,
            ..request.clone()
        };
        tracing::debug!(upstream = request.upstream, realm = %redact::url(realm), scope = bearer.scope, "asking for a token");
        // The registry has named it: what may be shown to that may be shown here.
        let response = self
            .ask_as(true, &asked, &asked.candidates[0], &asked.headers)
            .await?;
        let status = response.status();
        let fails = |reason: &'static str| OriginError::Token {
            realm: redact::url(realm),
            status,
            reason,
        };
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            tracing::warn!(upstream = request.upstream, realm = %redact::url(realm), scope = bearer.scope, %status, "the token service gives no token; hint: check the credentials of [upstream.registry]");
            redirect::finish(response.into_body()).await;
            return Ok(None);
        }
        if status != StatusCode::OK {
            return Err(fails("expected 200 and a token"));
        }
        let reading = response.into_body().whole(MAX_ANSWER);
        let Ok(Some(body)) = timeout(self.progress_timeout(), reading).await else {
            return Err(fails("its answer did not come whole"));
        };
        let token = Token::read(&body, Instant::now());
        token.map(Some).ok_or_else(|| fails("its answer holds no token"))
    }
}

/// `headers`, with these credentials.
fn with(headers: &HeaderMap, authorization: Option<&HeaderValue>) -> HeaderMap {
    let mut headers = headers.clone();
    if let Some(authorization) = authorization {
        headers.insert(header::AUTHORIZATION, authorization.clone());
    }
    headers
}

/// For [`Tokens`]: what waits for the same token.
type Slot = Arc<tokio::sync::Mutex<Option<Held>>>;
