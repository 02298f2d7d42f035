//! Without any origin: the tags of a repository that a snapshot holds. A list of the registry's own would name what cannot be had.
//!
//! Deliberately absent: lists of repositories, which would tell who may pull one of them about all others; and lists where no snapshot is served: a
//! store knows names by their digests alone, and sends the list that it has, if any.

use std::collections::BTreeSet;

use http::StatusCode;

use super::{Answer, Ask, Pipeline};
use crate::{
    ecosystem::oci::{self, Endpoint},
    metrics::Outcome,
    offline::Served,
    registry, respond,
    route::Target,
};

impl Pipeline {
    /// Whether a list such as `target` may be made of what the snapshot holds, whatever list it has.
    pub(super) fn makes_lists_like(&self, target: &Target) -> bool {
        let place = target.registry.as_ref();
        place.is_some_and(|place| place.class == registry::Class::List) && self.served().is_some()
    }

    /// The answer to `ask`, where that is about the tags of a repository of which the snapshot holds any.
    pub(super) fn held_tags(&self, ask: &Ask) -> Option<Answer> {
        let target = &ask.target;
        target.registry.as_ref()?;
        let path = target.path.split('?').next()?;
        let Ok(Endpoint::Tags { repository }) = oci::endpoint(path) else {
            return None;
        };
        let served = self.served()?;
        let url = target.key.uri();
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let manifests = format!("GET {}/manifests/", place.strip_suffix("/tags/list")?);
        let tags = self.tags_below(&served, &manifests, ask);
        if tags.is_empty() {
            return None;
        }
        let tags = tags.iter().map(String::as_str).collect();
        let response = registry::list_of_tags(repository, tags, (place, query));
        let listed = response.map(|response| Answer::generated(response, Outcome::Hit, "offline"));
        Some(listed.unwrap_or_else(no_number))
    }

    /// The names behind `manifests` under which there is one that the client of `ask` may have.
    fn tags_below(&self, served: &Served, manifests: &str, ask: &Ask) -> BTreeSet<String> {
        let is_open = |key: &str| {
            let entry = self.open_to(&ask.target, served.lookup(key));
            entry.heads().iter().any(|head| head.status == StatusCode::OK)
        };
        let keys = served.keys_below(manifests);
        keys.filter(|key| is_tag(&key[manifests.len()..]) && is_open(key))
            .map(|key| key[manifests.len()..].to_owned())
            .collect()
    }
}

/// The answer to who asks for a page of a size that is none.
fn no_number() -> Answer {
    let problem = respond::describe(
        "bad-request",
        "The number of tags is none",
        StatusCode::BAD_REQUEST,
        "n in the query is not a number".to_owned(),
        None,
    );
    Answer::generated(respond::problem(&problem), Outcome::Refused, "offline")
}

fn is_tag(name: &str) -> bool {
    let path = format!("v2/name/manifests/{name}");
    matches!(oci::endpoint(&path), Ok(Endpoint::Manifest { reference, .. }) if reference.is_tag())
}
