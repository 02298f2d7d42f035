//! Which of two versions is the later one ([deb-version(7)]): `[epoch:]upstream[-revision]`.
//!
//! Parts are compared as dpkg does: runs of other characters and runs of digits in turn, a tilde before everything, even the end, letters
//! before other characters. Numbers may have any length.
//!
//! Deliberately absent: what a valid version is. Whatever an index says is compared, as apt compares it.
//!
//! [deb-version(7)]: https://manpages.debian.org/bookworm/dpkg-dev/deb-version.7.en.html

use std::cmp::Ordering;

/// Which of two versions is the later one.
pub(crate) fn compare(one: &str, other: &str) -> Ordering {
    let (one, other) = (Parts::of(one), Parts::of(other));
    number(one.epoch, other.epoch)
        .then_with(|| part(one.upstream, other.upstream))
        .then_with(|| part(one.revision, other.revision))
}

struct Parts<'t> {
    epoch: &'t [u8],
    upstream: &'t [u8],
    revision: &'t [u8],
}

impl<'t> Parts<'t> {
    fn of(text: &'t str) -> Self {
        let text = text.trim();
        // "It is a single (generally small) unsigned integer. It may be omitted, in which case zero is assumed."
        let (epoch, rest) = text.split_once(':').unwrap_or(("", text));
        // "dpkg will break the version number apart at the last hyphen in the string".
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        Self {
            epoch: epoch.as_bytes(),
            upstream: upstream.as_bytes(),
            revision: revision.as_bytes(),
        }
    }
}

fn part(mut one: &[u8], mut other: &[u8]) -> Ordering {
    while !one.is_empty() || !other.is_empty() {
        let (left, right) = (run(&mut one, is_other), run(&mut other, is_other));
        let longest = left.len().max(right.len());
        let weights = |text: &[u8]| (0..longest).map(|at| weight(text.get(at))).collect::<Vec<_>>();
        let ordering = weights(left).cmp(&weights(right));
        let ordering = ordering.then_with(|| number(run(&mut one, is_digit), run(&mut other, is_digit)));
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
    Ordering::Equal
}

fn is_digit(byte: u8) -> bool {
    byte.is_ascii_digit()
}

fn is_other(byte: u8) -> bool {
    !byte.is_ascii_digit()
}

/// Takes the run of what `is_in` says from the beginning of `text`.
fn run<'t>(text: &mut &'t [u8], is_in: fn(u8) -> bool) -> &'t [u8] {
    let length = text.iter().take_while(|byte| is_in(**byte)).count();
    let (run, rest) = text.split_at(length);
    *text = rest;
    run
}

/// "the letters sort earlier than all the non-letters, and … a tilde sorts before anything, even the end of a part".
fn weight(byte: Option<&u8>) -> i32 {
    match byte {
        None => 0,
        Some(b'~') => -1,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    }
}

/// Numbers of any length; an empty one is zero.
fn number(one: &[u8], other: &[u8]) -> Ordering {
    let plain = |mut text: &[u8]| -> Vec<u8> {
        while let Some((b'0', rest)) = text.split_first() {
            text = rest;
        }
        text.to_vec()
    };
    let (one, other) = (plain(one), plain(other));
    one.len().cmp(&other.len()).then_with(|| one.cmp(&other))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_are_ordered_as_the_manual_says() {
        for (one, other, expected) in [
            ("1.0", "1.0", Ordering::Equal),
            ("1.0", "1.0-0", Ordering::Equal),
            ("0:1.0", "1.0", Ordering::Equal),
            ("1.00", "1.0", Ordering::Equal),
            ("1:0.1", "9.9", Ordering::Greater),
            ("1.10", "1.9", Ordering::Greater),
            ("1.0~rc1", "1.0", Ordering::Less),
            ("1.0~~", "1.0~", Ordering::Less),
            ("1.0a", "1.0+", Ordering::Less),
            ("1.0", "1.0a", Ordering::Less),
            ("1.0-1", "1.0-1+deb12u1", Ordering::Less),
            ("1.0-1~bpo12+1", "1.0-1", Ordering::Less),
            ("1-2-3", "1-2-4", Ordering::Less),
            (
                "99999999999999999999999",
                "100000000000000000000000",
                Ordering::Less,
            ),
        ] {
            assert_eq!(compare(one, other), expected, "{one} {other}");
            assert_eq!(compare(other, one), expected.reverse(), "{other} {one}");
        }
    }

    /// What dpkg says.
    #[expect(clippy::disallowed_methods, reason = "the judge of these tests")]
    fn dpkg(one: &str, relation: &str, other: &str) -> bool {
        let mut dpkg = Command::new("dpkg");
        dpkg.args(["--compare-versions", one, relation, other])
            .stderr(Stdio::null());
        dpkg.status().unwrap().success()
    }

    fn version() -> impl Strategy<Value = String> {
        "(0:|1:|2:)?[0-9][0-9a-b.+~]{0,5}(-[0-9a-b.+~]{1,4}){0,2}"
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn versions_are_ordered_as_dpkg_orders_them(one in version(), other in version()) {
            let expected = if dpkg(&one, "lt", &other) {
                Ordering::Less
            } else if dpkg(&one, "gt", &other) {
                Ordering::Greater
            } else {
                Ordering::Equal
            };
            prop_assert_eq!(compare(&one, &other), expected, "{} {}", one, other);
        }
    }
}
