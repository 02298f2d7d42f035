//! How old a stored response is: [RFC 9111 §4.2.3].
//!
//! [RFC 9111 §4.2.3]: https://www.rfc-editor.org/rfc/rfc9111#section-4.2.3

use http::{HeaderMap, header};
use jiff::{SignedDuration, Timestamp};

use super::{
    Stored,
    cache_control::{Argument, MAX_DELTA_SECONDS, split_list},
};

/// The age of `stored` at `now`, never negative, at most 2^31 seconds.
///
/// ```text
/// apparent_age          = max(0, response_time - date_value)
/// corrected_age_value   = age_value + (response_time - request_time)
/// corrected_initial_age = max(apparent_age, corrected_age_value)
/// current_age           = corrected_initial_age + (now - response_time)
/// ```
///
/// A clock that was set back between the times counts as no time passed.
pub fn current_age(stored: &Stored, now: Timestamp) -> SignedDuration {
    let times = stored.times;
    let apparent_age = elapsed(stored.date(), times.response);
    let corrected_age_value =
        age_value(&stored.headers).saturating_add(elapsed(times.request, times.response));
    let corrected_initial_age = apparent_age.max(corrected_age_value);
    let resident_time = elapsed(times.response, now);
    corrected_initial_age
        .saturating_add(resident_time)
        .min(SignedDuration::from_secs(i64::from(MAX_DELTA_SECONDS)))
}

/// The `Age` that the response came with.
///
/// "a cache encountering a message with a list-based Age field value SHOULD use the first member of the field value,
/// discarding subsequent ones. If the field value … is invalid, a cache SHOULD ignore the field" (§5.1).
fn age_value(headers: &HeaderMap) -> SignedDuration {
    let seconds = headers
        .get(header::AGE)
        .and_then(|line| split_list(line.as_bytes()).next())
        .and_then(|first| Argument(first.to_vec()).delta_seconds())
        .unwrap_or(0);
    SignedDuration::from_secs(i64::from(seconds))
}

fn elapsed(from: Timestamp, to: Timestamp) -> SignedDuration {
    to.duration_since(from).max(SignedDuration::ZERO)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::test_support::{at, date, stored};

    #[test]
    fn rfc9111_s4_2_3_age_is_the_greater_of_apparent_and_corrected_plus_residence() {
        // (Date, Age, request sent, response received, now, expected), all in seconds.
        let table = [
            (0, None, 0, 0, 10, 10),
            (0, None, 5, 7, 10, 10),         // apparent age 7 beats the delay of 2
            (5, Some("100"), 5, 7, 10, 105), // 100 + 2 + 3
            (0, Some("100"), 0, 200, 200, 300),
            (50, None, 0, 0, 1, 1), // an origin ahead of us does not make the age negative
            (0, None, 0, 0, -50, 0), // our clock was set back
        ];
        for (date_at, age, request, response, now, expected) in table {
            let mut fields = vec![("date", date(date_at))];
            fields.extend(age.map(|age| ("age", age.to_owned())));
            let mut entry = stored(&fields);
            entry.times = crate::policy::Times {
                request: at(request),
                response: at(response),
            };
            assert_eq!(current_age(&entry, at(now)).as_secs(), expected, "{fields:?}");
        }
    }

    #[test]
    fn rfc9111_s5_1_of_an_age_list_the_first_member_counts_and_a_broken_age_is_ignored() {
        for (age, expected) in [
            ("7, 900", 7),
            ("abc", 0),
            ("-5", 0),
            ("7.0", 0),
            ("99999999999999", 1 << 31),
        ] {
            let entry = stored(&[("date", date(0)), ("age", age.to_owned())]);
            assert_eq!(current_age(&entry, at(0)).as_secs(), expected, "{age}");
        }
    }

    proptest! {
        #[test]
        fn rfc9111_s4_2_3_age_grows_exactly_with_time(age in 0_i64..100_000, later in 0_i64..100_000) {
            let entry = stored(&[("date", date(0)), ("age", age.to_string())]);
            let first = current_age(&entry, at(0));
            prop_assert_eq!(first.as_secs(), age);
            prop_assert_eq!(current_age(&entry, at(later)).as_secs(), age + later);
        }
    }
}
