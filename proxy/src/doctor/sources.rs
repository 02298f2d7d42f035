//! apt's sources that lead to the cache, and whether what they lead to has expired.

use jiff::{Timestamp, fmt::rfc2822};
use url::Url;

use super::Check;

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

#[cfg(test)]
mod tests {
    use super::*;

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
            ("Suite: s\n", super::super::State::Ok),
            (
                "Valid-Until: Fri, 02 Jan 2026 00:00:00 UTC\n",
                super::super::State::Ok,
            ),
            (
                "Valid-Until: Wed, 31 Dec 2025 00:00:00 UTC\n",
                super::super::State::Warning,
            ),
            ("Valid-Until: soon\n", super::super::State::Warning),
        ] {
            assert_eq!(validity(&suite, text, now).state, state, "{text}");
        }
    }
}
