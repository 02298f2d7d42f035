//! A list of tags, page by page (distribution specification, "Listing tags").

use std::cmp::Ordering;

use http::{HeaderValue, Response, header};
use serde::Serialize;

use crate::deliver::Payload;

/// A page of a list.
#[derive(Debug, PartialEq, Eq)]
struct Page<'t> {
    tags: Vec<&'t str>,
    /// The query of the next page.
    next: Option<String>,
}

/// The page of `tags` that `query` asks for; none where it asks for what is no number.
///
/// "the `<int>` value … is the maximum number of tags", "`last` … the response MUST begin non-inclusively with … immediately after".
fn page<'t>(mut tags: Vec<&'t str>, query: &str) -> Option<Page<'t>> {
    tags.sort_unstable_by(|one, other| order(one, other));
    tags.dedup();
    let parameters = || url::form_urlencoded::parse(query.as_bytes());
    let find = |wanted: &str| {
        parameters()
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value)
    };
    if let Some(last) = find("last") {
        tags.retain(|tag| order(tag, &last).is_gt());
    }
    let Some(most) = find("n") else {
        return Some(Page { tags, next: None });
    };
    let most: usize = most.parse().ok()?;
    let is_cut = tags.len() > most;
    tags.truncate(most);
    let next = tags.last().filter(|_| is_cut).map(|last| {
        let mut next = url::form_urlencoded::Serializer::new(String::new());
        next.append_pair("n", &most.to_string()).append_pair("last", last);
        next.finish()
    });
    Some(Page { tags, next })
}

/// "lexical (i.e. case-insensitive alphanumeric order)"; where that is the same, by bytes, so that no page is begun within others.
fn order(one: &str, other: &str) -> Ordering {
    let folded = |text: &str| text.to_ascii_lowercase();
    folded(one).cmp(&folded(other)).then_with(|| one.cmp(other))
}

#[derive(Serialize)]
struct List<'t> {
    name: &'t str,
    tags: Vec<&'t str>,
}

/// The answer about the `tags` of the repository `name`, at `path` with `query`; none where the query is not valid.
pub(crate) fn list(name: &str, tags: Vec<&str>, (path, query): (&str, &str)) -> Option<Response<Payload>> {
    let page = page(tags, query)?;
    let body = serde_json::to_vec(&List {
        name,
        tags: page.tags,
    })
    .ok()?;
    let mut response = Response::new(Payload::bytes(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Another import may change it at any moment.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Some(next) = page.next
        && let Ok(link) = HeaderValue::try_from(format!("<{path}?{next}>; rel=\"next\""))
    {
        headers.insert(header::LINK, link);
    }
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_in_order_and_lead_to_the_next() {
        let all = ["b", "1.10", "B", "1.9", "a", "sha256-00.sig", "1.9", "_x"];
        for (query, expected, next) in [
            ("", Some("1.10 1.9 _x a B b sha256-00.sig"), None),
            ("ns=hub.example", Some("1.10 1.9 _x a B b sha256-00.sig"), None),
            ("n=2", Some("1.10 1.9"), Some("n=2&last=1.9")),
            ("n=2&last=1.9", Some("_x a"), Some("n=2&last=a")),
            ("last=B&n=1", Some("b"), Some("n=1&last=b")),
            ("n=7", Some("1.10 1.9 _x a B b sha256-00.sig"), None),
            ("n=3&last=a", Some("B b sha256-00.sig"), None),
            // One that is there no more, escapes, the end, and no page at all.
            ("last=1.8&n=1", Some("1.9"), Some("n=1&last=1.9")),
            ("last=%5Fx&n=1", Some("a"), Some("n=1&last=a")),
            ("last=z", Some(""), None),
            ("n=0", Some(""), None),
            ("n=x", None, None),
            ("n=-1", None, None),
        ] {
            let found = page(all.to_vec(), query);
            let tags = found.as_ref().map(|page| page.tags.join(" "));
            assert_eq!(tags.as_deref(), expected, "{query}");
            assert_eq!(found.and_then(|page| page.next).as_deref(), next, "{query}");
        }
    }
}
