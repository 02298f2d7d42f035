//! The hosts that an authority may sign for.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

/// Names and addresses, in lower case, IPv6 without brackets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hosts(BTreeSet<String>);

/// `host` as the set has it.
pub(super) fn normalised(host: &str) -> String {
    host.trim_start_matches('[')
        .trim_end_matches([']', '.'])
        .to_ascii_lowercase()
}

impl Hosts {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `host`, normalised, is one of them.
    pub fn contains(&self, host: &str) -> bool {
        self.0.contains(host)
    }

    /// Those that `other` has not.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).cloned().collect())
    }

    /// Names of the domain name system.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let names = self.0.iter().map(String::as_str);
        names.filter(|host| host.parse::<IpAddr>().is_err())
    }

    /// Addresses.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.0.iter().filter_map(|host| host.parse().ok())
    }
}

impl<'a> FromIterator<&'a str> for Hosts {
    fn from_iter<I: IntoIterator<Item = &'a str>>(hosts: I) -> Self {
        Self(hosts.into_iter().map(normalised).collect())
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.0.iter().map(String::as_str).collect();
        f.write_str(&all.join(", "))
    }
}
