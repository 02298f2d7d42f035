//! Links to the next page of a list ([RFC 8288](https://www.rfc-editor.org/rfc/rfc8288), distribution specification, "Listing tags").
//!
//! A registry links to itself. A client of the door, or of a mirror path, that followed such a link would go past this cache, or to another registry
//! behind it, so the link is answered as one to the same page here. Who has the registry's own URL, by a proxy, gets its links as they are. One that leads anywhere else is left out.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderValue, header};
use url::Url;

use super::Place;

/// Only links are resolved against it.
const BASE: &str = "http://registry.invalid";

/// Has the fields `Link` of a page of `place` lead back to where the client asked.
pub(super) fn lead_back(place: &Place, headers: &mut HeaderMap) {
    let fields: Vec<_> = headers.get_all(header::LINK).iter().cloned().collect();
    headers.remove(header::LINK);
    let next = fields
        .iter()
        .filter_map(|field| field.to_str().ok())
        .find_map(|field| own_link(place, field));
    if let Some(next) = next {
        headers.insert(header::LINK, next);
    }
}

/// The link to the next page in a field's `value`, as `</v2/…?…>; rel="next"` of the same page here.
fn own_link(place: &Place, value: &str) -> Option<HeaderValue> {
    let (path, namespace) = place.asked_here()?;
    let target = links(value).find(|link| link.is_next)?.target;
    // A relative reference is meant from the page that was asked for, which ends as ours does.
    let page = Url::parse(BASE).and_then(|base| base.join(path)).ok()?;
    let url = page.join(target).ok()?;
    let endpoint = |url: &Url| url.path().rsplit('/').next().map(str::to_owned);
    if endpoint(&url) != endpoint(&page) {
        return None;
    }
    // Which registry is meant is for the client to say, not for the registry.
    let parts = url.query()?.split('&').filter(|part| !part.starts_with("ns="));
    let mut own = format!("<{path}?{}", parts.collect::<Vec<_>>().join("&"));
    if let Some(namespace) = namespace {
        // Writing to a `String` cannot fail.
        let _infallible = write!(own, "&ns={namespace}");
    }
    own.push_str(">; rel=\"next\"");
    HeaderValue::try_from(own).ok()
}

/// One link-value of a field (RFC 8288 §3).
#[derive(Debug, PartialEq)]
struct Link<'a> {
    target: &'a str,
    is_next: bool,
}

/// The link-values of a field; it ends where it is none.
fn links(mut rest: &str) -> impl Iterator<Item = Link<'_>> {
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (target, after) = rest.strip_prefix('<')?.split_once('>')?;
        let (parameters, after) = split_outside_quotes(after, ',');
        rest = after;
        Some(Link {
            target,
            is_next: is_next(parameters),
        })
    })
}

/// Whether one of the relation types is `next`. "The first `rel` counts" (§3.3), and types are compared without regard to case.
fn is_next(mut parameters: &str) -> bool {
    while !parameters.is_empty() {
        let (parameter, after) = split_outside_quotes(parameters, ';');
        parameters = after;
        let Some((name, value)) = parameter.split_once('=') else {
            continue;
        };
        if name.trim().eq_ignore_ascii_case("rel") {
            let mut types = value.trim().trim_matches('"').split_ascii_whitespace();
            return types.any(|kind| kind.eq_ignore_ascii_case("next"));
        }
    }
    false
}

/// What is before and behind the first `separator` that is in no quoted string.
fn split_outside_quotes(text: &str, separator: char) -> (&str, &str) {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let at = text.find(|c| {
        let was_escaped = std::mem::replace(&mut is_escaped, false);
        match c {
            _ if was_escaped => {}
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ => return c == separator && !is_quoted,
        }
        false
    });
    at.map_or((text, ""), |at| (&text[..at], &text[at + separator.len_utf8()..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Door;

    fn place(path: &str, namespace: Option<&str>) -> Place {
        Place {
            door: Some(Door {
                path: path.into(),
                namespace: namespace.map(str::to_owned),
            }),
            ..Place::of("v2/library/app/tags/list")
        }
    }

    #[test]
    fn links_to_the_next_page_lead_back_here() {
        let own = "</v2/hub.example/app/tags/list?last=b&n=2>; rel=\"next\"";
        for (link, expected) in [
            ("</v2/library/app/tags/list?last=b&n=2>; rel=\"next\"", Some(own)),
            (
                "<https://upstream.example/v2/library/app/tags/list?last=b&n=2>;rel=next",
                Some(own),
            ),
            (
                "</v2/library/app/tags/list?ns=evil.example&last=b&n=2>; rel=\"next\"",
                Some(own),
            ),
            // Relative to the page.
            ("<?last=b&n=2>; rel=\"next\"", Some(own)),
            ("<list?last=b&n=2>; rel=\"next\"", Some(own)),
            // One of several, in any order and any writing.
            (
                "</v2/a/tags/list?last=a>; rel=\"prev\", </v2/a/tags/list?last=b&n=2>; rel=\"next\"",
                Some(own),
            ),
            (
                "<?last=b&n=2>; title=\"a, \\\"b\\\"; rel=prev\"; REL=\"last Next\", <?last=c>; rel=prev",
                Some(own),
            ),
            ("</v2/a/tags/list?last=a>; rel=prev; rel=next", None),
            ("<?last=a>; title=\"rel=next\"", None),
            ("</elsewhere?n=2>; rel=\"next\"", None),
            ("</v2/library/app/tags/list>; rel=\"next\"", None),
            ("</v2/library/app/tags/list?n=2>; rel=\"first\"", None),
            ("<?last=a; rel=next", None),
            ("nonsense", None),
        ] {
            let own = own_link(&place("/v2/hub.example/app/tags/list", None), link);
            assert_eq!(own.as_ref().map(|own| own.to_str().unwrap()), expected, "{link}");
        }
    }

    #[test]
    fn by_a_mirror_path_they_lead_back_to_that_path() {
        let by_mirror_path = Place {
            mirror_path: Some("/hub/v2/library/app/tags/list".into()),
            ..Place::of("v2/library/app/tags/list")
        };
        for link in [
            "</v2/library/app/tags/list?last=b>; rel=\"next\"",
            "<?last=b>; rel=next",
        ] {
            let own = own_link(&by_mirror_path, link).unwrap();
            assert_eq!(own, "</hub/v2/library/app/tags/list?last=b>; rel=\"next\"");
        }
        assert_eq!(
            own_link(&Place::of("v2/library/app/tags/list"), "<?last=b>; rel=next"),
            None
        );
    }

    #[test]
    fn which_registry_is_meant_is_for_the_client_to_say() {
        let by_query = place("/v2/app/tags/list", Some("hub.example%3A5000"));
        for link in [
            "<https://upstream.example/v2/library/app/tags/list?last=b>;rel=next",
            "</v2/library/app/tags/list?last=b&ns=evil.example>; rel=\"next\"",
        ] {
            let own = own_link(&by_query, link).unwrap();
            assert_eq!(
                own,
                "</v2/app/tags/list?last=b&ns=hub.example%3A5000>; rel=\"next\""
            );
        }
    }

    #[test]
    fn the_next_page_may_be_named_in_any_of_several_fields() {
        let mut headers = HeaderMap::new();
        for link in ["<?last=a>; rel=\"prev\"", "<?last=b>; rel=\"next\""] {
            headers.append(header::LINK, HeaderValue::from_static(link));
        }
        lead_back(&place("/v2/hub.example/app/tags/list", None), &mut headers);
        let left: Vec<_> = headers.get_all(header::LINK).iter().collect();
        assert_eq!(left, ["</v2/hub.example/app/tags/list?last=b>; rel=\"next\""]);
    }
}
