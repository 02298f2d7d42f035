//! Whether a stored response suits a request that would not have chosen it: `Accept` and the fields that choose wording.
//!
//! A cache with an origin behind it never needs this: it asks. Without one, what is held is all that there is, and RFC 9110 says what a
//! request puts up with:
//!
//! * "A request without any Accept header field implies that the user agent will accept any media type in response" ([§12.5.1]): no field
//!   and `*/*` say the same.
//! * A form that was chosen by nothing in particular (no `Accept`, `*/*`, or one that does not name the type that came) is what the origin gives
//!   everybody. It goes to each request that accepts its media type.
//! * A form that was chosen by its name goes to requests that name it, too: what a request that takes anything would have got is not known.
//! * Content of which the digest was known beforehand is the same for everybody: there is nothing to choose.
//!
//! So a whole packument (`application/json`) answers who would rather have the abbreviated one and puts up with it, and never the other way round.
//!
//! [§12.5.1]: https://www.rfc-editor.org/rfc/rfc9110#section-12.5.1

use http::{HeaderMap, header};

use super::{Stored, vary};

/// Fields that choose wording or compression alone: what is plain is for everybody ("identity" is always acceptable unless excluded,
/// RFC 9110 §12.5.3).
const WORDING: [&str; 4] = ["accept-encoding", "accept-language", "user-agent", "origin"];

/// How well a response suits; more is better: "using … qvalues on Accept and similar request header fields" (RFC 9111 §4.1), where what is named
/// goes before what is put up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Suits {
    is_named: bool,
    /// In thousandths.
    weight: u16,
}

/// How precisely a media range names a type ("the most specific reference has precedence").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Specific {
    /// `*/*`.
    Any,
    /// `text/*`.
    Family,
    /// `text/html`.
    Type,
    /// `text/html;level=1`.
    Parameters,
}

/// How well `stored` suits a request with the fields `asked`; `None` where it must not be sent. Never what was chosen by credentials, or by a field
/// that is not known here.
pub(super) fn suits(asked: &HeaderMap, stored: &Stored) -> Option<Suits> {
    let coding = stored.headers.get(header::CONTENT_ENCODING);
    let is_plain = coding.is_none_or(|coding| coding == "identity");
    if !is_plain || vary::varies_beyond_fields(&stored.headers) {
        return None;
    }
    let media_type = media_type(&stored.headers);
    let asked = Ranges::of(asked);
    let found = asked.as_ref().and_then(|ranges| ranges.find(&media_type));
    let found = found.filter(|found| found.weight > 0);
    for (name, chosen) in stored.selecting.pairs() {
        match name.as_str() {
            name if WORDING.contains(&name) => {}
            "accept" if stored.known_digest => {}
            "accept" => {
                let by = Ranges::read(chosen.iter().map(String::as_str)).find(&media_type);
                // What disregards the field was not chosen by it; of what does not say its type that is not known.
                let is_chosen_by_name =
                    by.map_or(media_type.first().is_none_or(String::is_empty), |by| by.is_named);
                if is_chosen_by_name && !found?.is_named {
                    return None;
                }
                found?;
            }
            _ => return None,
        }
    }
    Some(found.unwrap_or(Suits {
        is_named: false,
        weight: 0,
    }))
}

/// `Content-Type` in lower case, the type first, then its parameters. The type is empty where there is none: only who takes anything takes that.
fn media_type(headers: &HeaderMap) -> Vec<String> {
    let field = headers.get(header::CONTENT_TYPE);
    let text = field.and_then(|value| value.to_str().ok()).unwrap_or_default();
    parts(text).collect()
}

fn parts(text: &str) -> impl Iterator<Item = String> {
    text.split(';')
        .map(|part| part.trim().to_ascii_lowercase().replace('"', ""))
}

/// The media ranges of an `Accept`.
struct Ranges(Vec<(Vec<String>, u16)>);

impl Ranges {
    /// What `headers` say; `None` where that cannot be understood.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let lines = headers.get_all(header::ACCEPT).iter();
        let lines: Result<Vec<&str>, _> = lines.map(|line| line.to_str()).collect();
        Some(Self::read(lines.ok()?.into_iter()))
    }

    fn read<'l>(lines: impl Iterator<Item = &'l str>) -> Self {
        let members = lines.flat_map(|line| line.split(','));
        let ranges = members.filter(|member| !member.trim().is_empty()).map(|member| {
            let mut weight = 1000;
            let mut range = Vec::new();
            for part in parts(member) {
                match part.strip_prefix("q=") {
                    Some(text) => {
                        weight = thousandths(text);
                        // What follows is no parameter of the type.
                        break;
                    }
                    // A charset is none of what distinguishes forms.
                    None if part.is_empty() || part.starts_with("charset=") => {}
                    None => range.push(part),
                }
            }
            (range, weight)
        });
        Self(ranges.collect())
    }

    /// By which range, and how much, `held` is wanted: the most specific one decides. No range at all is `*/*`.
    fn find(&self, held: &[String]) -> Option<Suits> {
        if self.0.is_empty() {
            return Some(Suits {
                is_named: false,
                weight: 1000,
            });
        }
        let matching = self
            .0
            .iter()
            .filter_map(|(range, weight)| Some((specific(range, held)?, *weight)));
        matching.max().map(|(range, weight)| Suits {
            is_named: range > Specific::Any,
            weight,
        })
    }
}

/// How precisely `range` names `held`; `None` where it does not.
fn specific(range: &[String], held: &[String]) -> Option<Specific> {
    let (name, parameters) = range.split_first()?;
    let held_name = held.first().map_or("", String::as_str);
    if !parameters.iter().all(|parameter| held.contains(parameter)) {
        return None;
    }
    if name == "*/*" || name == "*" {
        return Some(Specific::Any);
    }
    if let Some(family) = name.strip_suffix("/*") {
        let (held_family, _) = held_name.split_once('/')?;
        return (family == held_family).then_some(Specific::Family);
    }
    let named = if parameters.is_empty() {
        Specific::Type
    } else {
        Specific::Parameters
    };
    (name == held_name).then_some(named)
}

/// `0.25` as 250; what is no weight counts as one.
fn thousandths(weight: &str) -> u16 {
    let (whole, fraction) = weight.split_once('.').unwrap_or((weight, ""));
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    match (whole, digits.parse::<u16>()) {
        ("0" | "", Ok(thousandths)) => thousandths,
        _ => 1000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{
        Selecting,
        test_support::{headers, stored},
    };

    const WHOLE: &str = "application/json";
    const ABBREVIATED: &str = "application/vnd.npm.install-v1+json";
    const OF_NPM: &str = "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*";
    const OF_PIP: &str =
        "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01";
    const OF_A_BROWSER: &str = "text/html,application/xhtml+xml,*/*;q=0.8";
    const OCTETS: &str = "application/octet-stream";

    /// A response of this type that a request with this `Accept` has chosen.
    fn chosen(accept: Option<&str>, media_type: &str) -> Stored {
        let mut fields = vec![("vary", "Accept")];
        fields.extend((!media_type.is_empty()).then_some(("content-type", media_type)));
        let mut one = stored(&fields);
        one.selecting = Selecting::from_pairs([("accept".to_owned(), accept.map(str::to_owned))]);
        one
    }

    fn asked(accept: Option<&str>) -> HeaderMap {
        accept.map_or_else(HeaderMap::new, |accept| headers(&[("accept", accept)]))
    }

    /// By whom a form was chosen, of which type it is, who asks, and whether it may be sent.
    #[rustfmt::skip]
    const CASES: &[(Option<&str>, &str, Option<&str>, bool)] = &[
        // RFC 9110 §12.5.1: no field is `*/*`.
        (None, OCTETS, Some("*/*"), true),
        (Some("*/*"), OCTETS, None, true),
        (Some(""), OCTETS, Some("*/*"), true),
        (None, "", Some("*/*"), true),
        (None, "", Some("text/html"), false),
        (Some("x"), "", Some("*/*"), false),
        // The form for everybody goes to whoever accepts its type.
        (Some("*/*"), OCTETS, Some(OCTETS), true),
        (Some("*/*"), OCTETS, Some("application/*"), true),
        (Some("*/*"), OCTETS, Some("Application/Octet-Stream; Q=0.1"), true),
        (Some("*/*"), OCTETS, Some(OF_A_BROWSER), true),
        (Some("*/*"), OCTETS, Some("text/html"), false),
        (Some("*/*"), OCTETS, Some("text/html, */*;q=0"), false),
        (Some("*/*"), OCTETS, Some("*/*, application/octet-stream;q=0"), false),
        (Some("*/*"), "text/html; charset=utf-8", Some("text/html"), true),
        (Some("*/*"), "text/html", Some("text/html; charset=utf-8"), true),
        (Some("*/*"), "text/html", Some("text/html;level=1"), false),
        (Some("*/*"), "text/html;level=1", Some("text/html; level=\"1\""), true),
        // Whoever names other types and takes this one with the rest has not chosen it, as a browser that downloads.
        (Some(OF_A_BROWSER), OCTETS, Some("*/*"), true),
        (Some("text/html, image/gif, *; q=.2"), OCTETS, None, true),
        // An origin that disregards the field does not choose by it.
        (Some("text/*"), OCTETS, Some("*/*"), true),
        // What was chosen by its name goes to those who name it.
        (Some(OF_NPM), ABBREVIATED, Some(ABBREVIATED), true),
        (Some(OF_NPM), ABBREVIATED, Some(WHOLE), false),
        (Some(OF_NPM), ABBREVIATED, Some("*/*"), false),
        (Some(OF_NPM), ABBREVIATED, None, false),
        (Some(WHOLE), WHOLE, Some(OF_NPM), true),
        (Some(WHOLE), "application/json; charset=utf-8", Some(OF_NPM), true),
        (Some(WHOLE), WHOLE, Some("*/*"), false),
        (Some("text/html"), "text/html", Some(OF_PIP), true),
        (Some(OF_PIP), "application/vnd.pypi.simple.v1+json", Some("text/html"), false),
        (Some(OF_PIP), "text/html", Some("text/html"), true),
        (Some("text/*"), "text/html", Some("text/html"), true),
        (Some("text/*"), "text/html", Some("*/*"), false),
    ];

    #[test]
    fn rfc9110_s12_5_1_a_form_goes_to_whoever_accepts_it_and_is_not_chosen_by_name_for_another() {
        for (by, media_type, accept, expected) in CASES {
            let one = chosen(*by, media_type);
            assert_eq!(
                suits(&asked(*accept), &one).is_some(),
                *expected,
                "chosen by {by:?}, {media_type}, asked with {accept:?}"
            );
        }
    }

    #[test]
    fn what_has_a_digest_that_was_known_is_the_same_for_everybody() {
        let mut one = chosen(Some(OF_NPM), ABBREVIATED);
        one.known_digest = true;
        assert!(suits(&asked(Some("*/*")), &one).is_some());
        one.selecting = Selecting::from_pairs([("authorization".to_owned(), Some("x".to_owned()))]);
        assert!(suits(&asked(None), &one).is_none());
    }

    #[test]
    fn a_field_that_is_no_text_accepts_nothing() {
        let mut fields = HeaderMap::new();
        fields.insert(
            header::ACCEPT,
            http::HeaderValue::from_bytes(b"text/\xff").unwrap(),
        );
        assert!(suits(&fields, &chosen(None, OCTETS)).is_none());
    }

    #[test]
    fn rfc9111_s4_1_what_is_named_goes_before_what_is_put_up_with_then_by_weight() {
        let of = |media_type: &str| suits(&asked(Some(OF_NPM)), &chosen(None, media_type));
        assert!(of(ABBREVIATED) > of(WHOLE));
        assert!(of(WHOLE) > of("text/html"));
    }
}
