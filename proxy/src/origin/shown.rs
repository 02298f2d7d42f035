//! Which URL showed which validator, so that the target of a redirect is asked about its own alone.
//!
//! A validator means something for the resource that it came from ([RFC 9110 §8.8.3]: unique among the representations "of a
//! particular resource"). `…/latest` redirects to one release today and to another tomorrow: asked "changed since the date of the first?",
//! an older second one says no, and the first would be served in its name.
//!
//! Deliberately absent: persistence. What was forgotten costs one download that could have been a 304.
//!
//! [RFC 9110 §8.8.3]: https://www.rfc-editor.org/rfc/rfc9110#section-8.8.3

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use http::{HeaderMap, HeaderValue, header};
use kato_shared::Digest;
use url::{Position, Url};

use crate::policy::validation::tag_list;

/// Pairs remembered: two for each response that came by way of a redirect.
const LIMIT: usize = 16_384;

/// Pairs of URL and validator that were seen together; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Shown(Arc<Mutex<Pairs>>);

#[derive(Debug, Default)]
struct Pairs {
    known: HashSet<Digest>,
    order: VecDeque<Digest>,
}

impl Shown {
    /// Notes that `url` answered with the validators in `headers`.
    pub(super) fn note(&self, url: &Url, headers: &HeaderMap) {
        let mut pairs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for name in [header::ETAG, header::LAST_MODIFIED] {
            let Some(validator) = headers.get(name) else {
                continue;
            };
            let pair = pair(url, validator.as_bytes());
            if pairs.known.insert(pair) {
                pairs.order.push_back(pair);
            }
        }
        while pairs.order.len() > LIMIT {
            if let Some(oldest) = pairs.order.pop_front() {
                pairs.known.remove(&oldest);
            }
        }
    }

    /// Removes from a conditional request what `url` did not show.
    pub(super) fn restrict(&self, url: &Url, headers: &mut HeaderMap) {
        let is_known = |validator: &[u8]| {
            let pairs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            pairs.known.contains(&pair(url, validator))
        };
        let tags = tag_list(headers, &header::IF_NONE_MATCH);
        let left: Vec<&[u8]> = tags.into_iter().filter(|tag| is_known(tag)).collect();
        let left = HeaderValue::from_bytes(&left.join(&b", "[..])).ok();
        headers.remove(header::IF_NONE_MATCH);
        if let Some(left) = left.filter(|left| !left.is_empty()) {
            headers.insert(header::IF_NONE_MATCH, left);
        }
        if let Some(since) = headers.get(header::IF_MODIFIED_SINCE)
            && !is_known(since.as_bytes())
        {
            headers.remove(header::IF_MODIFIED_SINCE);
        }
    }
}

/// Without the query, which carries signatures that change from redirect to redirect.
fn pair(url: &Url, validator: &[u8]) -> Digest {
    let url = &url[Position::BeforeScheme..Position::AfterPath];
    Digest::of(&[url.as_bytes(), b"\n", validator].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_asked_about_the_validators_that_it_showed_and_no_others() {
        let shown = Shown::default();
        let url = |text: &str| Url::parse(text).unwrap();
        let response = HeaderMap::from_iter([
            (header::ETAG, HeaderValue::from_static("\"a\"")),
            (
                header::LAST_MODIFIED,
                HeaderValue::from_static("Thu, 01 Jan 2026 00:00:00 GMT"),
            ),
        ]);
        shown.note(&url("http://a.example/v1?sig=1"), &response);
        let asked = |target: &str| {
            let mut headers = HeaderMap::from_iter([
                (header::IF_NONE_MATCH, HeaderValue::from_static("\"a\", \"b\"")),
                (
                    header::IF_MODIFIED_SINCE,
                    HeaderValue::from_static("Thu, 01 Jan 2026 00:00:00 GMT"),
                ),
            ]);
            shown.restrict(&url(target), &mut headers);
            let tags = headers.get(header::IF_NONE_MATCH).cloned();
            (tags, headers.contains_key(header::IF_MODIFIED_SINCE))
        };
        let own = HeaderValue::from_static("\"a\"");
        assert_eq!(asked("http://a.example/v1?sig=2"), (Some(own), true));
        assert_eq!(asked("http://a.example/v2"), (None, false));
    }
}
