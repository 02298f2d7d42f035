//! Choosing stored responses: what `ls` lists, `purge` forgets and `invalidate` marks.
//!
//! A choice is of one URL, of a prefix, of an upstream, of a digest, or of several of these together. All of it reads the index in
//! pages, so that a large store costs time and not memory.

use std::collections::BTreeSet;

use http::Method;
use kato_shared::{Digest, api::Problem};
use serde::{Deserialize, Serialize};

use super::{
    Admin, EntryPage, EntryView, Query,
    api::{bad_query, store_failed},
    believed::believed_until,
};
use crate::{
    key::CacheKey,
    route::{Route, Router},
    store::StoredResponse,
};

/// Keys read at a time, and the most entries of one page.
const PAGE: usize = 1000;

/// The most URLs that a report names.
const NAMED: usize = 1000;

/// The answer of `POST /-/api/purge` and `POST /-/api/invalidate`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelectionReport {
    /// The version of this document; 1.
    pub schema: u32,
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// URLs that were chosen.
    pub selected: u64,
    /// Bytes of distinct content that they name. Content that other URLs name, too, stays.
    pub bytes: u64,
    /// Bytes that are gone from the disk; what somebody reads follows when that ends.
    #[serde(default)]
    pub freed_bytes: u64,
    /// The first thousand of the URLs.
    pub urls: Vec<String>,
}

/// Which stored responses are meant.
struct Selection {
    /// The one cache key that is meant, with its method.
    key: Option<String>,
    /// How the keys begin that are meant.
    prefix: Option<String>,
    upstream: Option<String>,
    digest: Option<Digest>,
    status: Option<u16>,
}

/// In which order `ls` lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Url,
    /// Largest first.
    Size,
    /// Longest not validated first.
    Age,
}

impl Selection {
    fn of(query: &Query, router: &Router) -> Result<Self, Problem> {
        let text = |name: &str| {
            Some(query.get(name))
                .filter(|value| !value.is_empty())
                .map(str::to_owned)
        };
        let digest = text("digest")
            .map(|digest| digest.parse::<Digest>())
            .transpose()
            .map_err(|error| bad_query(error.to_string(), "expected e.g. sha256: and 64 digits"))?;
        let status = text("status").map(|status| status.parse::<u16>()).transpose();
        Ok(Self {
            key: text("url").map(|url| key_of(router, &url)).transpose()?,
            prefix: text("prefix")
                .map(|prefix| prefix_of(router, &prefix))
                .transpose()?,
            upstream: text("upstream"),
            digest,
            status: status.map_err(|error| bad_query(error.to_string(), "expected e.g. status=404"))?,
        })
    }

    /// Whether it names anything at all.
    fn is_everything(&self) -> bool {
        self.key.is_none() && self.prefix.is_none() && self.upstream.is_none() && self.digest.is_none()
    }

    /// How the keys begin among which it chooses.
    fn begin(&self) -> String {
        let begin = self.key.as_ref().or(self.prefix.as_ref());
        begin.cloned().unwrap_or_else(|| "GET ".to_owned())
    }

    fn has(&self, key: &str, response: &StoredResponse) -> bool {
        self.key.as_ref().is_none_or(|wanted| wanted == key)
            && self
                .upstream
                .as_ref()
                .is_none_or(|wanted| *wanted == response.upstream)
            && self.digest.is_none_or(|wanted| wanted == response.content.digest)
            && self
                .status
                .is_none_or(|wanted| wanted == response.head.status.as_u16())
    }
}

/// How the cache keys of all URLs begin that begin with `prefix`: of a URL, or a mirror path.
///
/// # Errors
/// A problem for the operator where it is neither.
pub(super) fn prefix_of(router: &Router, prefix: &str) -> Result<String, Problem> {
    if prefix.starts_with('/') {
        return key_of(router, prefix);
    }
    if prefix.contains('*') || !"http".starts_with(prefix) && !prefix.starts_with("http") {
        return Err(bad_query(
            format!("`{prefix}` is not the beginning of a URL"),
            "expected the beginning of a URL, or a mirror path such as /pkg/; an asterisk that is part of a URL is %2A",
        ));
    }
    Ok(format!("GET {prefix}"))
}

/// The cache key of a URL as a client would write it: absolute, or a mirror path.
///
/// # Errors
/// A problem for the operator where it is no target.
pub(super) fn key_of(router: &Router, url: &str) -> Result<String, Problem> {
    let hint = "expected a URL, or a mirror path such as /pkg/a";
    let uri: http::Uri = url
        .parse()
        .map_err(|error: http::uri::InvalidUri| bad_query(format!("{url}: {error}"), hint))?;
    if let Ok(Route::Target(target)) = router.route(&Method::GET, &uri) {
        return Ok(target.key.to_string());
    }
    // What an upstream brought that is no longer configured can still be asked about.
    CacheKey::new(&Method::GET, &uri)
        .map(|key| key.to_string())
        .map_err(|error| bad_query(error.to_string(), hint))
}

impl Admin {
    /// `ls`.
    pub(super) async fn entries(&self, query: &Query) -> Result<EntryPage, Problem> {
        let limit = query.get("limit").parse().unwrap_or(PAGE).clamp(1, PAGE);
        let sort = match query.get("sort") {
            "" | "url" => Sort::Url,
            "size" => Sort::Size,
            "age" => Sort::Age,
            other => {
                return Err(bad_query(
                    format!("cannot sort by `{other}`"),
                    "sort by url, size or age",
                ));
            }
        };
        let selection = Selection::of(query, self.router())?;
        let after = Some(query.get("after")).filter(|after| !after.is_empty());
        let mut after = after.map_or_else(String::new, |after| format!("GET {after}"));
        let (store, settings, now) = (
            self.pipeline.store(),
            self.pipeline.settings(),
            self.pipeline.now(),
        );
        let mut entries: Vec<EntryView> = Vec::new();
        loop {
            let rows = self.rows(&selection, &after).await?;
            let is_last = rows.len() < PAGE;
            for (key, responses) in &rows {
                if sort == Sort::Url && entries.len() >= limit {
                    let next = Some(url_of(&after).to_owned());
                    return Ok(EntryPage {
                        schema: 1,
                        entries,
                        next,
                    });
                }
                let chosen = responses.iter().filter(|response| selection.has(key, response));
                entries.extend(chosen.map(|response| EntryView {
                    pinned: store.is_pinned(key, &response.content.digest),
                    believed_until: believed_until(settings, (url_of(key), response), now),
                    ..EntryView::of(url_of(key), response)
                }));
                after.clone_from(key);
            }
            if sort != Sort::Url {
                entries.sort_by(|one, other| match sort {
                    Sort::Size => other.length.cmp(&one.length),
                    Sort::Age | Sort::Url => one.validated.cmp(&other.validated),
                });
                entries.truncate(limit);
            }
            if is_last {
                return Ok(EntryPage {
                    schema: 1,
                    entries,
                    next: None,
                });
            }
        }
    }

    /// `purge`: names are forgotten, and bytes that no other URL names go, when nobody reads them any more.
    pub(super) async fn purge(&self, query: &Query) -> Result<SelectionReport, Problem> {
        self.change(query, true).await
    }

    /// `invalidate`: what is stored stays, and is validated before it is used again.
    pub(super) async fn invalidate(&self, query: &Query) -> Result<SelectionReport, Problem> {
        self.change(query, false).await
    }

    async fn change(&self, query: &Query, is_purge: bool) -> Result<SelectionReport, Problem> {
        let selection = Selection::of(query, self.router())?;
        if selection.is_everything() {
            return Err(bad_query(
                "which responses are meant?".into(),
                "name url, prefix, upstream or digest; prefix=http is all of them",
            ));
        }
        let mut report = SelectionReport {
            schema: 1,
            dry_run: matches!(query.get("dry_run"), "1" | "true"),
            ..SelectionReport::default()
        };
        let mut counted = BTreeSet::new();
        // A download under way would bring back what is forgotten now.
        if let Some(key) = selection.key.as_ref().filter(|_| !report.dry_run) {
            self.pipeline.taint(key).await;
        }
        let mut after = String::new();
        loop {
            let rows = self.rows(&selection, &after).await?;
            let is_last = rows.len() < PAGE;
            let mut keys = Vec::new();
            for (key, responses) in rows {
                after.clone_from(&key);
                let chosen: Vec<_> = responses
                    .iter()
                    .filter(|response| selection.has(&key, response))
                    .collect();
                if chosen.is_empty() {
                    continue;
                }
                for response in chosen
                    .iter()
                    .filter(|response| counted.insert(response.content.digest))
                {
                    report.bytes += response.content.length;
                }
                report.selected += 1;
                if report.urls.len() < NAMED {
                    report.urls.push(url_of(&key).to_owned());
                }
                keys.push(key);
            }
            if !report.dry_run {
                report.freed_bytes += self.carry_out(keys, is_purge).await?;
            }
            if is_last {
                tracing::info!(
                    purge = is_purge,
                    dry_run = report.dry_run,
                    selected = report.selected,
                    "stored responses were chosen by an operator"
                );
                return Ok(report);
            }
        }
    }

    async fn carry_out(&self, keys: Vec<String>, is_purge: bool) -> Result<u64, Problem> {
        let store = self.pipeline.store();
        if is_purge {
            let removed = store.remove(keys).await;
            return removed
                .map(|removed| removed.bytes)
                .map_err(|error| store_failed(&error));
        }
        for key in keys {
            store
                .invalidate(key)
                .await
                .map_err(|error| store_failed(&error))?;
        }
        Ok(0)
    }

    /// The next keys among which `selection` chooses.
    async fn rows(
        &self,
        selection: &Selection,
        after: &str,
    ) -> Result<Vec<(String, Vec<StoredResponse>)>, Problem> {
        let page = self
            .pipeline
            .store()
            .list(selection.begin(), after.to_owned(), PAGE);
        page.await.map_err(|error| store_failed(&error))
    }

    fn router(&self) -> &Router {
        self.pipeline.router()
    }
}

fn url_of(key: &str) -> &str {
    key.strip_prefix("GET ").unwrap_or(key)
}
