//! Which documents have a view, and which of the files that one names are held: without a network, pages of package indexes name nothing
//! else (see [`crate::view`]).

use std::collections::BTreeSet;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use url::Url;

use super::{Ask, Pipeline};
use crate::{
    ecosystem::Integrity,
    policy::{self, Disconnected, Request},
    prefetch::ANYTHING,
    route::{Route, Target},
    view::{Promised, View, ViewError, promised, without},
};

impl Pipeline {
    /// How `target` is shown to somebody who asks for it by `uri`: only who came by a mirror path is led back to us by links.
    pub(super) fn view_of(&self, target: &Target, uri: &Uri) -> Option<View> {
        let is_mirror_path = uri.scheme().is_none() && uri.authority().is_none();
        if !is_mirror_path {
            return None;
        }
        if self.names_only_what_is_held() {
            View::filtered_of(target)
        } else {
            View::of(target)
        }
    }

    /// Whether documents name only what is held.
    pub(super) fn names_only_what_is_held(&self) -> bool {
        self.0.settings.offline && self.0.settings.mirror.filter_indexes
    }

    /// `document`, found at `url`, without the files that are not held.
    pub(super) async fn without_absent(
        &self,
        (view, ask): (View, &Ask),
        (headers, url): (&HeaderMap, &Url),
        document: Bytes,
    ) -> Result<Bytes, ViewError> {
        let config = self.crate_config(&ask.target).await;
        let mut held = BTreeSet::new();
        for file in promised(view, (headers, &document), url, config.as_ref()) {
            if self.is_held(&file, ask).await {
                held.insert(file.url);
            }
        }
        let shown = without(view, (headers, &document), url, (&held, config.as_ref()))?;
        Ok(shown.map_or(document, Bytes::from))
    }

    /// Whether a request for `file` of the client of `ask` would be answered: what the store knows is found without its disk, mostly.
    async fn is_held(&self, file: &Promised, ask: &Ask) -> bool {
        let Ok(uri) = file.url.as_str().parse::<Uri>() else {
            return false;
        };
        let Ok(Route::Target(target)) = self.0.router.route(&Method::GET, &uri) else {
            return false;
        };
        let entry = self.open_to(&target, self.lookup(&target).await);
        // As clients ask for files.
        let asked = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(ANYTHING))]);
        let request = Request {
            method: &Method::GET,
            headers: &asked,
        };
        let overrides = target.upstream.overrides(&target.path);
        let sent = policy::disconnected(&request, entry.heads(), (&overrides, self.now()));
        if let Disconnected::Send { index, .. } = sent
            && entry.heads()[index].status == StatusCode::OK
        {
            return true;
        }
        let digest = target
            .digest
            .or_else(|| file.integrity.as_ref().and_then(Integrity::sha256));
        let Some(digest) = digest else {
            return match self
                .known_for(ask.client, &target, &entry)
                .await
                .and_then(|known| known.digest())
            {
                Some(digest) => self.has_content(&target, digest).await,
                None => false,
            };
        };
        self.has_content(&target, digest).await
    }

    async fn has_content(&self, target: &Target, digest: kato_shared::Digest) -> bool {
        let sharable = self.sharable(target);
        self.0.store.find_content(digest, sharable).await.is_some()
    }
}
