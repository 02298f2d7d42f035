//! HTTP dates ([RFC 9110 §5.6.7]): written in one form, read in three.
//!
//! "Recipients of timestamp values are encouraged to be robust in parsing timestamps unless otherwise restricted by the field
//! definition." Two kinds of harmless mistakes are read past: letter case, and a day of the week that is not that
//! of the date. Everything else that is wrong makes the date invalid, and with it what depended on it.
//!
//! [RFC 9110 §5.6.7]: https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7

use std::time::SystemTime;

use http::HeaderValue;
use jiff::Timestamp;

const DAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];

/// `now` as an IMF-fixdate (`Sun, 06 Nov 1994 08:49:37 GMT`); a time before 1970 is written as 1970.
pub(super) fn write(now: Timestamp) -> HeaderValue {
    let text = httpdate::fmt_http_date(SystemTime::from(now.max(Timestamp::UNIX_EPOCH)));
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
}

/// The time in a field value; `None` for what is no date.
pub(super) fn read(value: &HeaderValue) -> Option<Timestamp> {
    let text = value.to_str().ok()?.trim();
    let time = exactly(text).or_else(|| leniently(text))?;
    Timestamp::try_from(time).ok()
}

fn exactly(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text).ok()
}

fn leniently(text: &str) -> Option<SystemTime> {
    let text = in_regular_case(text);
    let (day, rest) = text.split_at_checked(text.find([' ', ','])?)?;
    // Full names belong to one of the forms, and their first three letters to the two others.
    let is_full = DAYS.contains(&day);
    let as_named = |name: &'static str| if is_full { name } else { &name[..3] };
    DAYS.iter()
        .any(|name| as_named(name) == day)
        .then(|| {
            DAYS.iter()
                .find_map(|name| exactly(&format!("{}{rest}", as_named(name))))
        })
        .flatten()
}

/// "Although all date formats are specified to be case-sensitive, a cache recipient SHOULD match the field value
/// case-insensitively" ([RFC 9111 §4.2](https://www.rfc-editor.org/rfc/rfc9111#section-4.2)).
fn in_regular_case(text: &str) -> String {
    let mut inside_word = false;
    let regular: String = text
        .chars()
        .map(|letter| {
            let changed = if inside_word {
                letter.to_ascii_lowercase()
            } else {
                letter.to_ascii_uppercase()
            };
            inside_word = letter.is_ascii_alphabetic();
            changed
        })
        .collect();
    match regular.strip_suffix("Gmt") {
        Some(before) => format!("{before}GMT"),
        None => regular,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::test_support::at;

    fn reads(text: &'static str) -> Option<Timestamp> {
        read(&HeaderValue::from_static(text))
    }

    #[test]
    fn rfc9111_s4_2_letter_case_of_a_date_means_nothing() {
        for text in [
            "SUN, 06 nov 1994 08:49:37 gMT",
            "sunday, 06-NOV-94 08:49:37 Gmt",
            "sun nov  6 08:49:37 1994",
        ] {
            assert_eq!(reads(text), Some(at(0)), "{text}");
        }
    }

    #[test]
    fn rfc9110_s5_6_7_a_date_with_the_wrong_day_of_the_week_is_that_date() {
        for text in [
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Thursday, 06-Nov-94 08:49:37 GMT",
            "Thu Nov  6 08:49:37 1994",
        ] {
            assert_eq!(reads(text), Some(at(0)), "{text}");
        }
    }

    #[test]
    fn rfc9110_s5_6_7_names_of_no_day_and_days_of_no_month_are_no_dates() {
        for text in [
            "Son, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06 Nov 1994 08:49:37 GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 utc",
            "Sun",
            "Sun, \u{7f}",
        ] {
            assert_eq!(
                HeaderValue::from_str(text).ok().and_then(|value| read(&value)),
                None,
                "{text}"
            );
        }
    }
}
