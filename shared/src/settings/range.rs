//! Values that mean something only within bounds, refused where they stand in the file with their unit and their range.
//!
//! Flow: `#[serde(deserialize_with = "range::duration::<_, _, 5, 3600>")]` on a field of a fragment → [`super::value`] adds file and line.
//!
//! Deliberately absent: bounds between two keys (whoever knows both checks them).

use std::{fmt, marker::PhantomData};

use serde::de::{Deserializer, Error, Visitor};

use super::{ByteSize, HumanDuration, told};

/// A duration of `MIN` to `MAX` seconds; also for an [`Option`] of it.
///
/// # Errors
/// The deserializer's, with the unit and the range.
pub fn duration<'de, D, T, const MIN: u64, const MAX: u64>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: From<HumanDuration>,
{
    let (least, most) = (HumanDuration::from_secs(MIN), HumanDuration::from_secs(MAX));
    let read = Text {
        expected: duration_from(least, most),
        is_within: move |value: &HumanDuration| (least..=most).contains(value),
        taken: |_: &HumanDuration| None,
        read: PhantomData,
    };
    from.deserialize_any(read).map(T::from)
}

/// A duration of `MIN` to `MAX` seconds in files of a version that took any of `WAS` seconds and more: of what is out of the range the
/// nearest is taken, which is told.
///
/// # Errors
/// The deserializer's, with the unit and the range.
pub fn duration_near<'de, D, T, const WAS: u64, const MIN: u64, const MAX: u64>(
    from: D,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: From<HumanDuration>,
{
    let (least, most) = (HumanDuration::from_secs(MIN), HumanDuration::from_secs(MAX));
    let read = Text {
        expected: duration_from(least, most),
        is_within: move |value: &HumanDuration| (least..=most).contains(value),
        taken: move |value: &HumanDuration| {
            (*value >= HumanDuration::from_secs(WAS)).then_some((*value).clamp(least, most))
        },
        read: PhantomData,
    };
    from.deserialize_any(read).map(T::from)
}

fn duration_from(least: HumanDuration, most: HumanDuration) -> String {
    format!("a duration with its unit from `{least}` to `{most}`, such as `90s` or `1h 30m`")
}

/// A size of `MIN` to `MAX` bytes; also for an [`Option`] of it.
///
/// # Errors
/// The deserializer's, with the unit and the range.
pub fn size<'de, D, T, const MIN: u64, const MAX: u64>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: From<ByteSize>,
{
    let (least, most) = (ByteSize::new(MIN), ByteSize::new(MAX));
    let read = Text {
        expected: format!("a size with its unit from `{least}` to `{most}`, such as `64MiB`"),
        is_within: move |value: &ByteSize| (least..=most).contains(value),
        taken: |_: &ByteSize| None,
        read: PhantomData,
    };
    from.deserialize_any(read).map(T::from)
}

/// A whole number of `MIN` to `MAX`, of what `unit` says; also for an [`Option`] of it.
///
/// # Errors
/// The deserializer's, with the unit and the range.
pub fn count<'de, D, T>(from: D, unit: &str, range: std::ops::RangeInclusive<u32>) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: From<u32>,
{
    let expected = format!("a number of {unit} from {} to {}", range.start(), range.end());
    let was = range.clone();
    let whole = Whole { expected, range, was };
    from.deserialize_any(whole).map(T::from)
}

/// The same in files of a version that took any number: of what is out of the range the nearest is taken, which is told.
///
/// # Errors
/// The deserializer's, with the unit and the range.
pub fn count_near<'de, D, T>(from: D, unit: &str, range: std::ops::RangeInclusive<u32>) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: From<u32>,
{
    let whole = Whole {
        expected: format!("a number of {unit} from {} to {}", range.start(), range.end()),
        range,
        was: 0..=u32::MAX,
    };
    from.deserialize_any(whole).map(T::from)
}

/// A port that others are told, so that it cannot be left to chance (0).
///
/// # Errors
/// The deserializer's, with the range.
pub fn port<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    let whole = Whole {
        expected: "a port from 1 to 65535".into(),
        range: 1..=u16::MAX.into(),
        was: 1..=u16::MAX.into(),
    };
    let port = from.deserialize_any(whole)?;
    u16::try_from(port).map_err(D::Error::custom)
}

/// A value that stands in the file as a text.
struct Text<T, F, N> {
    expected: String,
    is_within: F,
    /// What is taken in the place of one that is not.
    taken: N,
    read: PhantomData<T>,
}

impl<T, F, N> Visitor<'_> for Text<T, F, N>
where
    T: std::str::FromStr + fmt::Display,
    T::Err: fmt::Display,
    F: Fn(&T) -> bool,
    N: Fn(&T) -> Option<T>,
{
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        let value = text.trim().parse::<T>().ok();
        if let Some(value) = value {
            if (self.is_within)(&value) {
                return Ok(value);
            }
            if let Some(taken) = (self.taken)(&value) {
                told::say(text, &self.expected, &taken.to_string());
                return Ok(taken);
            }
        }
        Err(E::custom(format!("`{text}` given, expected {}", self.expected)))
    }
}

/// A value that stands in the file as a number.
struct Whole {
    expected: String,
    range: std::ops::RangeInclusive<u32>,
    /// What is taken at all; the nearest of the range, where it is none of it.
    was: std::ops::RangeInclusive<u32>,
}

impl Visitor<'_> for Whole {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.expected)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<u32, E> {
        let value = u32::try_from(number).ok();
        let value = value.filter(|value| self.was.contains(value));
        let Some(value) = value else {
            return Err(E::custom(format!("`{number}` given, expected {}", self.expected)));
        };
        let taken = value.clamp(*self.range.start(), *self.range.end());
        if taken != value {
            told::say(&number.to_string(), &self.expected, &taken.to_string());
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde::Deserialize;

    use super::*;

    fn few<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
        count(from, "nodes", 1..=9)
    }

    fn some<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
        count_near(from, "backups", 1..=9)
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Older {
        #[serde(deserialize_with = "duration_near::<_, _, 1, 5, 3600>")]
        wait: Option<HumanDuration>,
        #[serde(deserialize_with = "some")]
        keep: u32,
    }

    #[test]
    fn what_an_earlier_version_took_is_the_nearest_and_is_told_with_its_line() {
        let read = |text: &str| super::super::parse_told::<Older>(Path::new("x.toml"), text);
        let secs = |secs| Some(HumanDuration::from_secs(secs));
        for (value, wait, keep, given) in [
            ("wait = \"1s\"", secs(5), 0, "`1s` given, expected a duration"),
            ("wait = \"2h\"", secs(3600), 0, "`2h` given, expected a duration"),
            (
                "keep = 0",
                None,
                1,
                "`0` given, expected a number of backups from 1 to 9; `1` is taken",
            ),
            ("keep = 4294967295", None, 9, "`4294967295` given, expected"),
        ] {
            let (older, told) = read(&format!("\n{value}\n")).unwrap();
            assert_eq!(older, Older { wait, keep }, "{value}");
            let told: Vec<String> = told.iter().map(ToString::to_string).collect();
            assert_eq!(told.len(), 1, "{value}: {told:?}");
            assert!(
                told[0].starts_with(&format!("x.toml:2: {given}")) && told[0].contains(told::REFUSED_FROM),
                "{told:?}"
            );
        }
        let (_, told) = read("keep = 0\nwait = \"1s\"\n").unwrap();
        let mut lines: Vec<usize> = told.iter().map(|told| told.line).collect();
        lines.sort_unstable();
        assert_eq!(lines, [1, 2]);
        assert_eq!(read("keep = 9\nwait = \"5s\"\n").unwrap().1, []);
        // What was refused before still is, and says nothing of itself to the next file.
        for value in [
            "wait = \"0s\"",
            "wait = \"999ms\"",
            "keep = -1",
            "keep = 4294967296",
            "keep = \"1\"",
        ] {
            assert!(read(&format!("{value}\n")).is_err(), "{value}");
        }
        assert!(read("keep = 0\nwait = \"0s\"\n").is_err() && read("").unwrap().1.is_empty());
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Fragment {
        #[serde(deserialize_with = "duration::<_, _, 5, 3600>")]
        lease: Option<HumanDuration>,
        #[serde(deserialize_with = "size::<_, _, 1024, 1_048_576>")]
        memory: Option<ByteSize>,
        #[serde(deserialize_with = "few")]
        nodes: Option<u32>,
        #[serde(deserialize_with = "port")]
        port: u16,
    }

    fn read(text: &str) -> Result<Fragment, String> {
        super::super::parse(Path::new("x.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_within_is_read_and_what_is_absent_stays_absent() {
        assert_eq!(read("").unwrap(), Fragment::default());
        for (text, lease) in [("5s", 5), ("1h", 3600), (" 1m 30s ", 90)] {
            let found = read(&format!("lease = \"{text}\"\n")).unwrap().lease;
            assert_eq!(found, Some(HumanDuration::from_secs(lease)), "{text}");
        }
        assert_eq!(
            read("memory = \"1KiB\"\n").unwrap().memory,
            Some(ByteSize::new(1024))
        );
        assert_eq!(read("nodes = 9\n").unwrap().nodes, Some(9));
        assert_eq!(read("port = 65535\n").unwrap().port, u16::MAX);
    }

    #[test]
    fn what_is_not_is_refused_with_line_unit_and_range() {
        let duration = "a duration with its unit from `5s` to `1h`, such as `90s` or `1h 30m`";
        let size = "a size with its unit from `1KiB` to `1MiB`, such as `64MiB`";
        let nodes = "a number of nodes from 1 to 9";
        for (value, said, expected) in [
            ("lease = \"0s\"", "`0s` given", duration),
            ("lease = \"4s 999ms\"", "`4s 999ms` given", duration),
            ("lease = \"2h\"", "`2h` given", duration),
            ("lease = \"-5s\"", "`-5s` given", duration),
            ("lease = 60", "invalid type: integer `60`", duration),
            ("lease = \"60\"", "`60` given", duration),
            ("memory = \"1B\"", "`1B` given", size),
            ("memory = \"2MiB\"", "`2MiB` given", size),
            ("memory = 2048", "invalid type: integer `2048`", size),
            ("port = 0", "`0` given", "a port from 1 to 65535"),
            ("port = 65536", "`65536` given", "a port from 1 to 65535"),
            ("nodes = 0", "`0` given", nodes),
            ("nodes = -1", "`-1` given", nodes),
            ("nodes = 10", "`10` given", nodes),
            ("nodes = 1.5", "invalid type: floating point `1.5`", nodes),
            ("nodes = \"2\"", "invalid type: string \"2\"", nodes),
            ("nodes = 99999999999999999999", "99999999999999999999", nodes),
        ] {
            let refused = read(&format!("\n{value}\n")).unwrap_err();
            assert!(refused.starts_with("x.toml:2: "), "{refused}");
            assert!(
                refused.contains(&format!("{said}, expected {expected}")),
                "{value}: {refused}"
            );
        }
    }
}
