//! One thing to fetch, and the list of all of them.

use std::collections::{BTreeMap, btree_map::Entry};

use kato_shared::chain::Chain;
use serde::Serialize;
use url::{Position, Url};

use crate::ecosystem::Integrity;

/// What says that any form will do: curl, wget, pip, npm and cargo ask for files with it.
pub(crate) const ANYTHING: &str = "*/*";

/// One thing to ask a cache for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Path and query at the cache.
    pub path: String,
    /// Which form is wanted, where that matters; else whichever there is, as clients of files ask (`*/*`).
    pub accept: Option<String>,
    /// What its content must be, where an index or a lock file says so.
    pub integrity: Option<Integrity>,
    /// Its size in bytes, where an index says so.
    pub size: Option<u64>,
    /// Whether "there is none" is an answer like another: clients ask for it and go on without.
    pub may_be_absent: bool,
}

impl Item {
    /// What is at `path` of the cache.
    pub fn at(path: String) -> Self {
        Self {
            path,
            accept: None,
            integrity: None,
            size: None,
            may_be_absent: false,
        }
    }

    /// What is at `url`, by its mirror path.
    pub fn of_url(url: &Url) -> Self {
        Self::at(mirror_path(url))
    }
}

/// The path of `url` at a cache, see `route::mirror`. Without credentials and fragment.
pub fn mirror_path(url: &Url) -> String {
    let authority = &url[Position::BeforeHost..Position::AfterPort];
    format!(
        "/{}/{authority}{}",
        url.scheme(),
        &url[Position::BeforePath..Position::AfterQuery]
    )
}

/// Something that could not be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The URL, path, package or image.
    pub subject: String,
    /// Why.
    pub why: String,
    /// Whether the same may succeed later.
    pub is_temporary: bool,
}

/// Everything that is to be fetched, each once, and what could not be found out.
#[derive(Debug, Default)]
pub struct Gathered {
    items: BTreeMap<(String, Option<String>), Item>,
    /// Documents that were needed to find the rest; they are in the cache by now.
    pub documents: u64,
    /// What failed on the way.
    pub failures: Vec<Failure>,
    /// What people should know.
    pub notes: Vec<String>,
}

impl Gathered {
    /// One more thing. Of two for the same place the more is known about stays.
    pub fn add(&mut self, mut item: Item) {
        item.accept.take_if(|accept| accept.trim() == ANYTHING);
        let place = (item.path.clone(), item.accept.clone());
        match self.items.entry(place) {
            Entry::Vacant(place) => {
                place.insert(item);
            }
            Entry::Occupied(mut kept) => {
                let kept = kept.get_mut();
                kept.integrity = kept.integrity.or(item.integrity);
                kept.size = kept.size.or(item.size);
                kept.may_be_absent &= item.may_be_absent;
            }
        }
    }

    /// Notes that `subject` could not be had.
    pub fn fail(&mut self, subject: &str, why: &(dyn std::error::Error + 'static), is_temporary: bool) {
        self.failures.push(Failure {
            subject: subject.to_owned(),
            why: Chain(why).to_string(),
            is_temporary,
        });
    }

    /// The same, where the reason is a text.
    pub fn refuse(&mut self, subject: &str, why: impl Into<String>) {
        self.failures.push(Failure {
            subject: subject.to_owned(),
            why: why.into(),
            is_temporary: false,
        });
    }

    /// Notes something that people should know about `subject`.
    pub fn note(&mut self, subject: &str, note: &str) {
        self.notes.push(format!("{subject}: {note}"));
    }

    /// All things, in the order of their paths.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.items.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_asked_for_by_its_mirror_path_and_each_place_once() {
        for (url, path) in [
            (
                "https://u:p@files.example:8443/a%20b?x=1#f",
                "/https/files.example:8443/a%20b?x=1",
            ),
            ("http://files.example", "/http/files.example/"),
        ] {
            assert_eq!(mirror_path(&Url::parse(url).unwrap()), path);
        }
        let mut gathered = Gathered::default();
        let url = Url::parse("http://a.example/x").unwrap();
        gathered.add(Item {
            may_be_absent: true,
            ..Item::of_url(&url)
        });
        gathered.add(Item {
            size: Some(3),
            accept: Some("*/*".into()),
            ..Item::of_url(&url)
        });
        let all: Vec<&Item> = gathered.items().collect();
        assert_eq!(
            (all.len(), all[0].size, all[0].may_be_absent),
            (1, Some(3), false)
        );
    }
}
