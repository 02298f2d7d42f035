//! apt's sources that lead to the cache, and whether what they lead to has expired.

use jiff::{SignedDuration, Timestamp, fmt::rfc2822};
use url::Url;

use super::Check;
use crate::archive_keys::{RingKey, signers};

/// What expires within it has to be seen to now: a newer keyring may have to be carried.
const SOON: SignedDuration = SignedDuration::from_hours(45 * 24);

/// A suite of a source: where its signed index is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Suite {
    /// The name, as in the source.
    pub name: String,
    /// Its `InRelease`.
    pub in_release: Url,
}

/// The suites that `text`, of a `.list` or a `.sources` file, takes from `server`; each once.
pub fn suites(text: &str, server: &Url) -> Vec<Suite> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for line in text.lines().filter_map(|line| line.trim().strip_prefix("deb ")) {
        // `deb [options] URI suite component…`.
        let line = line.trim_start();
        let line = match line.strip_prefix('[') {
            Some(rest) => rest.split_once(']').map_or("", |(_, rest)| rest),
            None => line,
        };
        let mut words = line.split_whitespace();
        if let (Some(uri), Some(suite)) = (words.next(), words.next()) {
            pairs.push((uri.to_owned(), suite.to_owned()));
        }
    }
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            stanza.lines().find_map(|line| {
                let (known, value) = line.split_once(':')?;
                known.eq_ignore_ascii_case(name).then(|| value.split_whitespace())
            })
        };
        for uri in field("URIs").into_iter().flatten() {
            for suite in field("Suites").into_iter().flatten() {
                pairs.push((uri.to_owned(), suite.to_owned()));
            }
        }
    }
    let mut suites: Vec<Suite> = pairs
        .iter()
        .filter_map(|(uri, name)| suite(uri, name, server))
        .collect();
    suites.sort();
    suites.dedup();
    suites
}

fn suite(uri: &str, name: &str, server: &Url) -> Option<Suite> {
    let base = Url::parse(&format!("{}/", uri.trim_end_matches('/'))).ok()?;
    if base.origin() != server.origin() {
        return None;
    }
    // A suite that ends with a slash is a folder by itself, without components.
    let path = match name.strip_suffix('/') {
        Some(folder) => format!("{folder}/InRelease"),
        None => format!("dists/{name}/InRelease"),
    };
    let in_release = base.join(path.trim_start_matches(['.', '/'])).ok()?;
    Some(Suite {
        name: name.to_owned(),
        in_release,
    })
}

/// What `in_release`, the signed index of `suite`, says about its own age.
pub fn validity(suite: &Suite, in_release: &str, now: Timestamp) -> Check {
    let subject = format!("apt {}", suite.name);
    let field = |name: &str| {
        let value = in_release.lines().find_map(|line| line.strip_prefix(name));
        value.map(str::trim)
    };
    let of = field("Date:").map_or_else(String::new, |date| format!(", of {date}"));
    let Some(until) = field("Valid-Until:") else {
        return Check::ok(subject, format!("there{of}, and does not expire"));
    };
    // Archives write UTC, which RFC 5322 calls GMT.
    let parsed = rfc2822::DateTimeParser::new().parse_timestamp(until.replace("UTC", "GMT"));
    match parsed {
        Ok(end) if end < now => Check::warning(
            subject,
            format!("expired: valid until {until}{of}"),
            "apt refuses it: does the cache reach the archive? Without a network, carry a newer one here, or set Valid-Until-Min: 15552000 (half a year) in this source",
        ),
        Ok(_) => Check::ok(subject, format!("there{of}, valid until {until}")),
        Err(_no_date) => Check::warning(
            subject,
            format!("valid until something that is no date: {until}"),
            "is it an InRelease file?",
        ),
    }
}

/// How the keys stand that have signed `in_release`: apt refuses a signature of an expired one, whatever is set about `Valid-Until`. Nothing where
/// it has no signature.
pub fn keys(suite: &Suite, in_release: &str, ring: &[RingKey], now: Timestamp) -> Option<Check> {
    let signers = signers(in_release, ring);
    let subject = format!("apt {}: keys", suite.name);
    let known: Vec<_> = signers.iter().filter(|key| key.is_known).collect();
    let Some(first) = known.first() else {
        let ids: Vec<&str> = signers.iter().map(|key| key.id.as_str()).collect();
        return (!ids.is_empty()).then(|| {
            Check::warning(
                subject,
                format!("signed by {}, in no keyring of this machine", ids.join(", ")),
                "install the archive's keyring, or name it with Signed-By",
            )
        });
    };
    // One good signature is enough for apt: the one that lasts longest counts.
    let Some(key) = known
        .iter()
        .all(|key| key.expires.is_some())
        .then(|| known.iter().max_by_key(|key| key.expires))
        .flatten()
    else {
        return Some(Check::ok(
            subject,
            format!("signed by {}, which does not expire", first.id),
        ));
    };
    let end = key.expires.unwrap_or(Timestamp::MAX);
    let said = format!("signed by {}, good until {end}", key.id);
    let hint = "carry the archive's newer keyring here; no setting of apt accepts an expired key";
    Some(if end < now {
        Check::failed(subject, said, hint)
    } else if end.duration_since(now) < SOON {
        Check::warning(subject, said, hint)
    } else {
        Check::ok(subject, said)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn both_kinds_of_files_are_read_and_other_servers_left_out() {
        let server = Url::parse("http://cache.site:3180/").unwrap();
        let text = "# comment\ndeb [arch=amd64 signed-by=/a] http://cache.site:3180/debian bookworm main\n\
                    deb http://elsewhere.example/debian bookworm main\ndeb http://cache.site:3180/flat ./\n\
                    deb-src http://cache.site:3180/debian bookworm main\n\n\
                    Types: deb\nURIs: http://cache.site:3180/security/\nSuites: a b\nComponents: main\n";
        let found: Vec<_> = suites(text, &server)
            .into_iter()
            .map(|suite| suite.in_release.path().to_owned())
            .collect();
        assert_eq!(
            found,
            [
                "/flat/InRelease",
                "/security/dists/a/InRelease",
                "/security/dists/b/InRelease",
                "/debian/dists/bookworm/InRelease",
            ]
        );
    }

    #[test]
    fn a_suite_says_when_it_expires() {
        let server = Url::parse("http://cache.site/").unwrap();
        let suite = suite("http://cache.site/d", "s", &server).unwrap();
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (text, state) in [
            ("Suite: s\n", State::Ok),
            ("Valid-Until: Fri, 02 Jan 2026 00:00:00 UTC\n", State::Ok),
            ("Valid-Until: Wed, 31 Dec 2025 00:00:00 UTC\n", State::Warning),
            ("Valid-Until: soon\n", State::Warning),
        ] {
            assert_eq!(validity(&suite, text, now).state, state, "{text}");
        }
    }

    #[test]
    fn keys_that_end_are_said_before_they_do() {
        let suite = Suite {
            name: "stable".into(),
            in_release: Url::parse("http://cache.site/dists/stable/InRelease").unwrap(),
        };
        // A packet of a signature (RFC 9580 §5.2.3) whose issuer is 0102030405060708.
        let text =
            "-----BEGIN PGP SIGNATURE-----\n\niBMEARYIAAAACgkQAQIDBAUGBwgA\n-----END PGP SIGNATURE-----\n";
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let state = |ring: &[RingKey]| keys(&suite, text, ring, now).map(|check| check.state);
        let until = |expires: Option<&str>| {
            let fingerprint = "FFFF0102030405060708".to_owned();
            let expires = expires.map(|time| time.parse().unwrap());
            state(&[RingKey { fingerprint, expires }])
        };
        assert_eq!(until(None), Some(State::Ok));
        assert_eq!(until(Some("2027-01-01T00:00:00Z")), Some(State::Ok));
        assert_eq!(until(Some("2026-01-20T00:00:00Z")), Some(State::Warning));
        assert_eq!(until(Some("2025-12-31T00:00:00Z")), Some(State::Failed));
        assert_eq!(state(&[]), Some(State::Warning), "in no keyring");
        assert_eq!(keys(&suite, "Date: x\n", &[], now), None);
    }
}
