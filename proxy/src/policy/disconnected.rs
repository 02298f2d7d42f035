//! What is sent by a cache that is disconnected on purpose: whatever is stored, however stale, whatever either side says about
//! validation.
//!
//! Off-spec: `no-cache` and `must-revalidate` of a response, and `no-cache`, `max-age` and `min-fresh` of a request, demand a
//! validation ([RFC 9111 §5.2]) that can never take place here. Who runs an offline mirror has decided that what was carried there is
//! the truth until something newer is carried there; answering 504 instead would make each index of packages useless. Selection
//! (§4.1) is as everywhere first; where no form was chosen by the same fields, the one that suits the request best is sent, see `acceptable`.
//!
//! Deliberately absent: what to do about a miss; see `pipeline/offline`.
//!
//! [RFC 9111 §5.2]: https://www.rfc-editor.org/rfc/rfc9111#section-5.2

use std::fmt;

use jiff::Timestamp;

use super::{
    Aged, Lookup, Overrides, Request, Stored, acceptable::suits, age::current_age,
    freshness::bounded_lifetime, select,
};

/// What is done without any origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disconnected {
    /// Send this one of the stored responses.
    Send {
        /// Its place among those that were given.
        index: usize,
        /// Its age; it may be stale for years.
        aged: Aged,
    },
    /// Nothing may be sent.
    Absent(Absence),
}

/// Why nothing stored answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// Nothing is stored under the URL.
    Unknown,
    /// What is stored was selected by other fields of a request (`Vary`).
    OtherVariant,
    /// What is stored was invalidated, by an operator or an unsafe request.
    Invalidated,
    /// What is stored is a failure of the origin, which says nothing about now.
    Failure,
}

impl Absence {
    /// A word for logs and documents.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::OtherVariant => "other-variant",
            Self::Invalidated => "invalidated",
            Self::Failure => "failure",
        }
    }
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "nothing is stored under this URL",
            Self::OtherVariant => "what is stored was chosen by other fields of a request (Vary)",
            Self::Invalidated => "what is stored was invalidated",
            Self::Failure => "what is stored is a failure of the origin",
        })
    }
}

/// Decides about `request` among `variants`, the responses stored under its key.
pub fn disconnected(
    request: &Request<'_>,
    variants: &[Stored],
    (overrides, now): (&Overrides, Timestamp),
) -> Disconnected {
    let index = match select(request, variants) {
        Lookup::Found { index, .. } => index,
        Lookup::Absent => return Disconnected::Absent(Absence::Unknown),
        Lookup::NoVariant => match best(request, variants) {
            Some(index) => index,
            None => return Disconnected::Absent(Absence::OtherVariant),
        },
    };
    let stored = &variants[index];
    if let Some(absence) = unfit(stored) {
        return Disconnected::Absent(absence);
    }
    Disconnected::Send {
        index,
        aged: Aged {
            age: current_age(stored, now),
            lifetime: bounded_lifetime(stored, overrides).0.duration,
        },
    }
}

/// Why `stored` is sent to nobody.
fn unfit(stored: &Stored) -> Option<Absence> {
    if stored.status.is_server_error() {
        return Some(Absence::Failure);
    }
    (stored.invalidated && !stored.known_digest).then_some(Absence::Invalidated)
}

/// The one among `variants` that suits `request` best, of equal ones the most recent (RFC 9111 §4.1).
fn best(request: &Request<'_>, variants: &[Stored]) -> Option<usize> {
    let suiting = variants.iter().enumerate().filter_map(|(index, stored)| {
        let suits = suits(request.headers, stored)?;
        let rank = (
            unfit(stored).is_none(),
            suits,
            stored.date(),
            stored.times.response,
        );
        Some((rank, index))
    });
    suiting.max().map(|(_, index)| index)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method, StatusCode};

    use super::*;
    use crate::policy::{
        Selecting,
        test_support::{at, date, headers, stored},
    };

    fn decided(asked: &HeaderMap, variants: &[Stored]) -> Disconnected {
        let request = Request {
            method: &Method::GET,
            headers: asked,
        };
        disconnected(&request, variants, (&Overrides::default(), at(1_000_000)))
    }

    fn is_sent(asked: &HeaderMap, one: &Stored) -> bool {
        matches!(
            decided(asked, std::slice::from_ref(one)),
            Disconnected::Send { index: 0, .. }
        )
    }

    #[test]
    fn what_is_held_is_sent_whatever_either_side_says_about_validation() {
        for directives in [
            "no-cache",
            "max-age=0, must-revalidate",
            "s-maxage=1",
            "private=\"x\"",
        ] {
            let held = stored(&[("date", date(0)), ("cache-control", directives.to_owned())]);
            for wish in ["no-cache", "max-age=0", "min-fresh=99999", "no-store"] {
                let asked = headers(&[("cache-control", wish.to_owned())]);
                assert!(is_sent(&asked, &held), "{directives} / {wish}");
            }
        }
    }

    #[test]
    fn an_invalidated_response_a_failure_and_nothing_at_all_are_misses_with_their_reason() {
        let none = HeaderMap::new();
        assert_eq!(decided(&none, &[]), Disconnected::Absent(Absence::Unknown));
        let mut held = stored(&[("date", date(0))]);
        held.invalidated = true;
        assert_eq!(
            decided(&none, std::slice::from_ref(&held)),
            Disconnected::Absent(Absence::Invalidated)
        );
        held.known_digest = true;
        assert!(is_sent(&none, &held));
        let mut failure = stored(&[("date", date(0))]);
        failure.status = StatusCode::BAD_GATEWAY;
        assert_eq!(decided(&none, &[failure]), Disconnected::Absent(Absence::Failure));
    }

    /// Of what suits, what is named comes first, then what came last; what cannot be sent comes behind all that can.
    #[test]
    fn of_several_forms_the_one_that_suits_best_is_sent() {
        let form = |media_type: &str, seconds: i64| {
            let mut one = stored(&[
                ("date", date(seconds)),
                ("vary", "accept".to_owned()),
                ("content-type", media_type.to_owned()),
            ]);
            one.selecting = Selecting::from_pairs([("accept".to_owned(), None)]);
            one
        };
        let sent = |accept: &str, variants: &[Stored]| match decided(
            &headers(&[("accept", accept.to_owned())]),
            variants,
        ) {
            Disconnected::Send { index, .. } => Some(index),
            Disconnected::Absent(_) => None,
        };
        let forms = [
            form("text/html", 9),
            form("application/json", 1),
            form("text/html", 5),
        ];
        assert_eq!(sent("application/json;q=0.1, */*", &forms), Some(1));
        assert_eq!(sent("*/*", &forms), Some(0));
        assert_eq!(sent("text/*;q=0.5, application/json;q=0.1", &forms), Some(0));
        assert_eq!(sent("text/plain", &forms), None);
        let mut failed = forms.clone();
        failed[0].status = StatusCode::BAD_GATEWAY;
        assert_eq!(sent("text/html", &failed), Some(2));
    }

    #[test]
    fn another_variant_is_sent_only_where_it_is_acceptable() {
        let asked = headers(&[("accept-encoding", "br".to_owned())]);
        let varying = |vary: &str, coding: Option<&str>| {
            let mut fields = vec![("date", date(0)), ("vary", vary.to_owned())];
            fields.extend(coding.map(|coding| ("content-encoding", coding.to_owned())));
            let mut one = stored(&fields);
            one.selecting = Selecting::from_pairs([(vary.to_owned(), Some("x".to_owned()))]);
            one
        };
        assert!(is_sent(&asked, &varying("accept-encoding", None)));
        assert!(is_sent(&asked, &varying("user-agent", None)));
        for (vary, coding) in [
            ("accept-encoding", Some("gzip")),
            ("authorization", None),
            ("x-other", None),
            ("accept", None),
        ] {
            assert_eq!(
                decided(&asked, &[varying(vary, coding)]),
                Disconnected::Absent(Absence::OtherVariant),
                "{vary} {coding:?}"
            );
        }
    }
}
