//! What an operator does to the store beside looking: pins and garbage collection.

use http::StatusCode;
use jiff::Timestamp;
use kato_shared::api::Problem;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::{
    Admin, Query,
    api::store_failed,
    selection::{key_of, prefix_of},
};
use crate::{
    policy::{Overrides, is_fresh},
    respond,
    route::Router,
    store::{Pin, Pinned, PinnedTotal, StoreError, StoredResponse},
};

/// The answer of `GET /-/api/pins`, `POST /-/api/pin` and `POST /-/api/unpin`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinsPage {
    /// The version of this document; 1.
    pub schema: u32,
    /// The pins: all of them, or the one that was set or taken away.
    pub pins: Vec<PinView>,
    /// Bytes that all pins hold together, each content once.
    pub pinned_bytes: u64,
    /// The quota in bytes.
    pub max_size: u64,
    /// Said when something is wrong with that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// One pin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinView {
    /// A URL, a URL prefix with `*` behind it, or a digest.
    pub target: String,
    /// Since when.
    pub since: Timestamp,
    /// Contents that it holds.
    pub contents: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The answer of `POST /-/api/gc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// The version of this document; 1.
    pub schema: u32,
    /// Contents that no stored response named.
    pub contents: u64,
    /// Their bytes.
    pub content_bytes: u64,
    /// Stored responses that said that there is nothing, and were stale.
    pub negatives: u64,
    /// Temporary files that nobody wrote or read.
    pub temporary: u64,
    /// Their bytes.
    pub temporary_bytes: u64,
    /// The size of the index file in bytes, before and after.
    pub index_before: u64,
    /// See [`GcReport::index_before`].
    pub index_after: u64,
}

impl Admin {
    pub(super) async fn pins(&self) -> Result<PinsPage, Problem> {
        let (pins, total) = self
            .pipeline
            .store()
            .pins()
            .await
            .map_err(|error| store_failed(&error))?;
        Ok(page(&pins, total))
    }

    pub(super) async fn pin(&self, query: &Query) -> Result<PinsPage, Problem> {
        let pin = parse(query.get("target"), self.pipeline.router())?;
        let store = self.pipeline.store();
        let pinned = store.pin(pin).await.map_err(|error| store_failed(&error))?;
        Ok(page(&[pinned], store.pinned_total()))
    }

    pub(super) async fn unpin(&self, query: &Query) -> Result<PinsPage, Problem> {
        let pin = parse(query.get("target"), self.pipeline.router())?;
        let store = self.pipeline.store();
        match store.unpin(pin).await.map_err(|error| store_failed(&error))? {
            Some(unpinned) => Ok(page(&[unpinned], store.pinned_total())),
            None => Err(respond::describe(
                "not-pinned",
                "not pinned",
                StatusCode::NOT_FOUND,
                format!("{} is not pinned", query.get("target")),
                Some("`kato-proxy pin` lists what is, as it was given".into()),
            )),
        }
    }

    pub(super) async fn gc(&self) -> Result<GcReport, Problem> {
        let pipeline = self.pipeline.clone();
        let now = pipeline.now();
        let collecting = spawn_blocking(move || {
            let is_expired = |_: &str, response: &StoredResponse| {
                let upstream = pipeline
                    .settings()
                    .upstreams
                    .iter()
                    .find(|upstream| upstream.name.to_string() == response.upstream);
                // Bounds on freshness hold for all paths of an upstream.
                let overrides = upstream.map_or_else(Overrides::default, |upstream| upstream.overrides(""));
                let is_negative = response.head.status.is_client_error();
                is_negative && !response.head.known_digest && !is_fresh(&response.head, &overrides, now)
            };
            pipeline.store().collect(is_expired)
        });
        let collected = collecting.await.unwrap_or(Err(StoreError::Closing));
        let collected = collected.map_err(|error| store_failed(&error))?;
        Ok(GcReport {
            schema: 1,
            contents: collected.contents,
            content_bytes: collected.content_bytes,
            negatives: collected.negatives,
            temporary: collected.temporary,
            temporary_bytes: collected.temporary_bytes,
            index_before: collected.index_before,
            index_after: collected.index_after,
        })
    }
}

/// What an operator calls a pin: a digest, a URL, or a URL prefix with `*` behind it.
fn parse(target: &str, router: &Router) -> Result<Pin, Problem> {
    if let Ok(digest) = target.parse() {
        return Ok(Pin::Content(digest));
    }
    if let Some(prefix) = target.strip_suffix('*')
        && !prefix.is_empty()
    {
        return prefix_of(router, prefix).map(Pin::Prefix);
    }
    key_of(router, target).map(Pin::Key)
}

fn page(pins: &[Pinned], total: PinnedTotal) -> PinsPage {
    let warning = total.is_over_quota().then(|| {
        format!(
            "pinned content alone is {} bytes, more than cache.max_size = {} bytes: nothing else can be stored; unpin something or raise \
             the limit",
            total.bytes, total.max_size
        )
    });
    PinsPage {
        schema: 1,
        pins: pins.iter().map(view).collect(),
        pinned_bytes: total.bytes,
        max_size: total.max_size,
        warning,
    }
}

fn view(pinned: &Pinned) -> PinView {
    let url = |key: &str| key.strip_prefix("GET ").unwrap_or(key).to_owned();
    let since = i64::try_from(pinned.since).unwrap_or_default();
    PinView {
        target: match &pinned.pin {
            Pin::Key(key) => url(key),
            Pin::Prefix(prefix) => format!("{}*", url(prefix)),
            Pin::Content(digest) => digest.to_string(),
        },
        since: Timestamp::from_second(since).unwrap_or_default(),
        contents: pinned.contents,
        bytes: pinned.bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p23_a_pin_is_named_by_url_by_prefix_or_by_digest() {
        let router = Router::new(&crate::settings::Settings {
            upstreams: vec!["pkg=http://pkg.example/debian/".parse().unwrap()],
            ..crate::settings::Settings::default()
        });
        let digest = kato_shared::Digest::of(b"x");
        for (target, pin) in [
            ("HTTP://A.example:80/x", Pin::Key("GET http://a.example/x".into())),
            (
                "http://a.example/x/*",
                Pin::Prefix("GET http://a.example/x/".into()),
            ),
            ("/pkg/*", Pin::Prefix("GET http://pkg.example/debian/".into())),
            (
                "/pkg/pool/a*",
                Pin::Prefix("GET http://pkg.example/debian/pool/a".into()),
            ),
            (&digest.to_string(), Pin::Content(digest)),
        ] {
            assert_eq!(parse(target, &router).unwrap(), pin);
            let pinned = Pinned {
                pin: pin.clone(),
                since: 7,
                contents: 0,
                bytes: 0,
            };
            assert_eq!(parse(&view(&pinned).target, &router).unwrap(), pin);
        }
        for target in [
            "",
            "*",
            "sha256:12",
            "a/b",
            "a/b*",
            "http://a.example/*/b*",
            "/none/*",
        ] {
            assert!(parse(target, &router).is_err(), "{target}");
        }
    }

    #[test]
    fn p23_pins_beyond_the_quota_are_said_clearly() {
        let total = |bytes| PinnedTotal { bytes, max_size: 10 };
        assert!(page(&[], total(10)).warning.is_none());
        assert!(
            page(&[], total(11))
                .warning
                .unwrap()
                .contains("cache.max_size = 10")
        );
    }
}
