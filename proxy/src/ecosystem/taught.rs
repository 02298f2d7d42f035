//! What an index of a language says about a URL, in the words of the index, and as lessons for the store.

use std::io::Read;

use kato_shared::Digest;
use url::Url;

use super::{Integrity, Known, Lesson, LessonError, Lessons, is_own};
use crate::{settings::Upstream, view::MOST_BYTES};

/// The content that a document promises at a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taught {
    /// The URL, absolute.
    pub url: Url,
    /// What its content must be.
    pub integrity: Integrity,
}

/// The lessons of a document of `upstream`, as `read` finds them in its bytes. Indexes of languages are read whole, as they are when
/// they are shown: a larger one is not shown, and teaches nothing.
pub(super) fn lessons<'d>(
    upstream: &'d Upstream,
    content: Box<dyn Read + Send + 'd>,
    read: impl FnOnce(&[u8]) -> Vec<Taught>,
) -> Lessons<'d> {
    let most = u64::try_from(MOST_BYTES).unwrap_or(u64::MAX);
    let mut document = Vec::new();
    if let Err(error) = content.take(most + 1).read_to_end(&mut document) {
        return Box::new(std::iter::once(Err(LessonError::Read(error))));
    }
    if document.len() > MOST_BYTES {
        return Box::new(std::iter::once(Err(LessonError::Damaged {
            expected: "a document that fits into memory",
        })));
    }
    let own = read(&document).into_iter().filter_map(move |taught| {
        let known = Known {
            integrity: taught.integrity,
            size: None,
        };
        is_own(upstream, &taught.url).then_some(Ok(Lesson {
            url: at_first_base(upstream, taught.url),
            known,
        }))
    });
    Box::new(own)
}

/// `url` as cache keys write it: of what stands at several base URLs, the first.
fn at_first_base(upstream: &Upstream, url: Url) -> Url {
    let mirrors = upstream.urls.iter().map(crate::settings::BaseUrl::url);
    let base = mirrors
        .filter(|base| base.origin() == url.origin() && url.path().starts_with(base.path()))
        .max_by_key(|base| base.path().len());
    let first = upstream.urls.first().map(crate::settings::BaseUrl::url);
    base.zip(first)
        .and_then(|(base, first)| {
            let below = &url[url::Position::BeforePath..][base.path().len()..];
            Url::parse(&format!("{first}{below}")).ok()
        })
        .unwrap_or(url)
}

impl Taught {
    /// A promise by SHA-256.
    pub fn sha256(url: Url, digest: Digest) -> Self {
        Self {
            url,
            integrity: Integrity::Sha256(digest),
        }
    }
}
