//! apt's sources that lead to the cache, and whether what they lead to has expired.

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp, fmt::rfc2822};
use url::Url;

use super::Check;
use crate::archive_keys::{RingKey, SOON, signers};

/// A suite of a source: where its signed index is, and what the source says about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Suite {
    /// The name, as in the source.
    pub name: String,
    /// Its `InRelease`.
    pub in_release: Url,
    /// What the source itself says.
    pub options: Options,
}

/// Options of a source that decide what apt makes of an old or strangely signed index.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Options {
    /// `Signed-By`: the keyrings that count, in the place of those of the machine.
    pub signed_by: Vec<PathBuf>,
    /// Whether it names keys otherwise than by files: by fingerprint, or in the source itself.
    pub has_own_keys: bool,
    /// `Valid-Until-Min`, in seconds.
    pub valid_until_min: Option<i64>,
    /// `Check-Valid-Until: no`.
    pub is_ageless: bool,
}

impl Options {
    /// Where keys are looked for.
    fn place(&self) -> &'static str {
        if self.signed_by.is_empty() {
            "of this machine"
        } else {
            "that Signed-By names"
        }
    }

    /// One option, by its name in whichever case.
    fn take(&mut self, name: &str, value: &str) {
        match name.to_ascii_lowercase().as_str() {
            "signed-by" => {
                for word in value.split([',', ' ']).filter(|word| !word.is_empty()) {
                    if word.starts_with('/') {
                        self.signed_by.push(PathBuf::from(word));
                    } else {
                        self.has_own_keys = true;
                    }
                }
                // The key itself begins on the next line.
                self.has_own_keys |= value.trim().is_empty();
            }
            "valid-until-min" => self.valid_until_min = value.trim().parse().ok(),
            "check-valid-until" => self.is_ageless = matches!(value.trim(), "no" | "false" | "off" | "0"),
            _ => {}
        }
    }
}

/// The suites that `text`, of a `.list` or a `.sources` file, takes from `server`; each once.
pub fn suites(text: &str, server: &Url) -> Vec<Suite> {
    let mut found: Vec<(String, String, Options)> = Vec::new();
    for line in text.lines().filter_map(|line| line.trim().strip_prefix("deb ")) {
        // `deb [options] URI suite component…`.
        let line = line.trim_start();
        let mut options = Options::default();
        let line = match line.strip_prefix('[') {
            Some(rest) => rest.split_once(']').map_or("", |(named, rest)| {
                for (name, value) in named.split_whitespace().filter_map(|word| word.split_once('=')) {
                    options.take(name, value);
                }
                rest
            }),
            None => line,
        };
        let mut words = line.split_whitespace();
        if let (Some(uri), Some(suite)) = (words.next(), words.next()) {
            found.push((uri.to_owned(), suite.to_owned(), options));
        }
    }
    for stanza in text.split("\n\n") {
        let fields = || stanza.lines().filter_map(|line| line.split_once(':'));
        let field = |name: &str| {
            let value = fields().find(|(known, _)| known.eq_ignore_ascii_case(name));
            value.map_or("", |(_, value)| value).split_whitespace()
        };
        let mut options = Options::default();
        fields().for_each(|(name, value)| options.take(name, value));
        for uri in field("URIs") {
            for suite in field("Suites") {
                found.push((uri.to_owned(), suite.to_owned(), options.clone()));
            }
        }
    }
    let mut suites: Vec<Suite> = found
        .into_iter()
        .filter_map(|(uri, name, options)| suite((&uri, &name), options, server))
        .collect();
    suites.sort();
    suites.dedup();
    suites
}

fn suite((uri, name): (&str, &str), options: Options, server: &Url) -> Option<Suite> {
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
        options,
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
    let time = |text: &str| rfc2822::DateTimeParser::new().parse_timestamp(text.replace("UTC", "GMT"));
    let options = &suite.options;
    // apt counts from the date of the index; its own end counts where that is later.
    let put_off = field("Date:")
        .and_then(|date| time(date).ok())
        .zip(options.valid_until_min)
        .and_then(|(date, seconds)| date.checked_add(SignedDuration::from_secs(seconds)).ok());
    match time(until) {
        Ok(end) if end < now && options.is_ageless => Check::warning(
            subject,
            format!("expired: valid until {until}{of}, and this source has Check-Valid-Until: no"),
            "Valid-Until-Min: 15552000 (half a year) does the same with a bound",
        ),
        Ok(end) if end < now && put_off.is_some_and(|put_off| put_off >= now) => {
            let put_off = put_off.unwrap_or(end);
            Check::ok(
                subject,
                format!("there{of}, valid until {until}, by Valid-Until-Min of this source until {put_off}"),
            )
        }
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
    if known.is_empty() && suite.options.has_own_keys {
        return None;
    }
    let Some(first) = known.first() else {
        let ids: Vec<&str> = signers.iter().map(|key| key.id.as_str()).collect();
        return (!ids.is_empty()).then(|| {
            Check::warning(
                subject,
                format!(
                    "signed by {}, in no keyring {}",
                    ids.join(", "),
                    suite.options.place()
                ),
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
    fn what_a_source_says_of_keys_and_age_is_read_in_both_forms() {
        let server = Url::parse("http://cache.site/").unwrap();
        let text = "deb [signed-by=/a.gpg,/b.gpg valid-until-min=60] http://cache.site/d a main\n\n\
                    Types: deb\nURIs: http://cache.site/d\nSuites: b\nSigned-By: /c.gpg\nCheck-Valid-Until: no\n\n\
                    Types: deb\nURIs: http://cache.site/d\nSuites: c\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n";
        let found: Vec<Options> = suites(text, &server)
            .into_iter()
            .map(|suite| suite.options)
            .collect();
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(found[0].signed_by, paths(&["/a.gpg", "/b.gpg"]));
        assert_eq!((found[0].valid_until_min, found[0].is_ageless), (Some(60), false));
        assert_eq!(
            (&found[1].signed_by, found[1].is_ageless),
            (&paths(&["/c.gpg"]), true)
        );
        assert!(found[2].has_own_keys && found[2].signed_by.is_empty());
    }

    #[test]
    fn a_suite_says_when_it_expires() {
        let server = Url::parse("http://cache.site/").unwrap();
        let with = |options| suite(("http://cache.site/d", "s"), options, &server).unwrap();
        let plain = with(Options::default());
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (text, state) in [
            ("Suite: s\n", State::Ok),
            ("Valid-Until: Fri, 02 Jan 2026 00:00:00 UTC\n", State::Ok),
            ("Valid-Until: Wed, 31 Dec 2025 00:00:00 UTC\n", State::Warning),
            ("Valid-Until: soon\n", State::Warning),
        ] {
            assert_eq!(validity(&plain, text, now).state, state, "{text}");
        }
        let expired = "Date: Wed, 24 Dec 2025 00:00:00 UTC\nValid-Until: Wed, 31 Dec 2025 00:00:00 UTC\n";
        for (days, state) in [(8, State::Warning), (9, State::Ok)] {
            let options = Options {
                valid_until_min: Some(days * 24 * 3600 - 1),
                ..Options::default()
            };
            assert_eq!(validity(&with(options), expired, now).state, state, "{days}");
        }
    }

    #[test]
    fn keys_that_end_are_said_before_they_do() {
        let suite = Suite {
            name: "stable".into(),
            in_release: Url::parse("http://cache.site/dists/stable/InRelease").unwrap(),
            options: Options::default(),
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
        let own = Suite {
            options: Options {
                has_own_keys: true,
                ..Options::default()
            },
            ..suite.clone()
        };
        assert_eq!(
            keys(&own, text, &[], now),
            None,
            "apt has the key, and we have not"
        );
    }
}
