//! How carefully the nodes of a role are upgraded: how many at once, how many may fail, how many must stay in service.
//!
//! `[rollout]` of `cluster.toml` is the rule for every role and `[rollout.role.<name>]` the exception for one. The default is one
//! node at a time and a stop at the first failure. A node with several roles obeys the rules of all of them.

use std::{collections::BTreeMap, fmt, str::FromStr};

use kato_shared::settings::{HumanDuration, range};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// A number of nodes, as such or measured by how many there are of the role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Amount {
    /// So many.
    Count(u32),
    /// So many of a hundred, 0 to 100.
    Percent(u8),
    /// All but so many.
    AllBut(u32),
}

/// A text that is no amount of nodes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no number of nodes: expected a number from 0 to {MOST_NODES}, a share from `0%` to `100%`, or `n-1` for all but one"
)]
pub struct ParseAmountError(String);

/// More nodes than any cluster has.
const MOST_NODES: u32 = 100_000;

/// How an amount stands in a file: `2`, `"25%"`, `"n-1"`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number of nodes such as 2, a share such as \"25%\", or \"n-1\" for all but one"
)]
enum Written {
    Number(i64),
    Text(String),
}

impl Amount {
    /// As an upper limit for `of` nodes: a share is rounded down, but never to nothing.
    pub fn at_most(self, of: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(share) => portion(of, share, 0).max(1),
            Self::AllBut(count) => of.saturating_sub(count).max(1),
        }
    }

    /// As a lower limit for `of` nodes: a share is rounded up.
    pub fn at_least(self, of: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(share) => portion(of, share, 99),
            Self::AllBut(count) => of.saturating_sub(count),
        }
    }
}

/// `share` of a hundred of `of`; `rounding` of 0 rounds down, of 99 up.
fn portion(of: u32, share: u8, rounding: u64) -> u32 {
    let portion = (u64::from(of) * u64::from(share) + rounding) / 100;
    u32::try_from(portion).unwrap_or(of)
}

impl FromStr for Amount {
    type Err = ParseAmountError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseAmountError(text.to_owned());
        let number = |digits: &str| {
            let number = digits.trim().parse::<u32>().ok();
            number.filter(|number| *number <= MOST_NODES)
        };
        if let Some(digits) = text.strip_suffix('%') {
            let share = number(digits).filter(|share| *share <= 100);
            return share
                .and_then(|share| u8::try_from(share).ok())
                .map(Self::Percent)
                .ok_or_else(wrong);
        }
        if let Some(digits) = text.strip_prefix("n-") {
            return number(digits).map(Self::AllBut).ok_or_else(wrong);
        }
        number(text).map(Self::Count).ok_or_else(wrong)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Percent(share) => write!(f, "{share}%"),
            Self::AllBut(count) => write!(f, "n-{count}"),
        }
    }
}

impl TryFrom<Written> for Amount {
    type Error = ParseAmountError;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        match written {
            Written::Number(count) => {
                let known = u32::try_from(count).ok().filter(|count| *count <= MOST_NODES);
                known
                    .map(Self::Count)
                    .ok_or_else(|| ParseAmountError(count.to_string()))
            }
            Written::Text(text) => text.parse(),
        }
    }
}

impl From<Amount> for Written {
    fn from(amount: Amount) -> Self {
        match amount {
            Amount::Count(count) => Self::Number(count.into()),
            Amount::Percent(_) | Amount::AllBut(_) => Self::Text(amount.to_string()),
        }
    }
}

/// The rules for one role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolePolicy {
    /// So many nodes are upgraded first and by themselves; the others wait until all of them are fine.
    pub canaries: u32,
    /// So many nodes at most are out of service at a time; at least 1.
    pub max_in_flight: Amount,
    /// So many nodes may fail before no further one is begun.
    pub max_failures: u32,
    /// So many nodes may stop answering in the middle of their upgrade before no further one is begun.
    pub max_unreachable: u32,
    /// So many nodes of the role stay in service at any time; `None` for all but `max_in_flight`. One that somebody took out of service
    /// or that gives no answer is not in service.
    #[serde(default)]
    pub min_available: Option<Amount>,
    /// How long upgraded nodes must stay fine before the next ones are begun.
    pub soak: HumanDuration,
}

impl Default for RolePolicy {
    fn default() -> Self {
        Self {
            canaries: 1,
            max_in_flight: Amount::Count(1),
            max_failures: 0,
            max_unreachable: 0,
            min_available: None,
            soak: HumanDuration::from_secs(0),
        }
    }
}

impl RolePolicy {
    /// How many of `all` nodes of the role stay in service. `missed` of them were away before anything was decided: a number that
    /// somebody wrote down holds all the same, and where nobody did, the others are what there is.
    pub fn least(&self, all: u32, missed: u32) -> u32 {
        if let Some(least) = self.min_available {
            return least.at_least(all);
        }
        let there = all.saturating_sub(missed);
        there.saturating_sub(self.max_in_flight.at_most(there))
    }
}

/// The rules for all roles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policies {
    /// So many nodes of the whole cluster at most are out of service at a time, Core not counted.
    #[serde(default = "everybody")]
    pub total: Amount,
    /// The rules for a role that has none of its own.
    pub every: RolePolicy,
    /// The rules for single roles, whose names are in lower case.
    pub role: BTreeMap<String, RolePolicy>,
}

const fn everybody() -> Amount {
    Amount::Percent(100)
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            total: everybody(),
            every: RolePolicy::default(),
            role: BTreeMap::new(),
        }
    }
}

impl Policies {
    /// The rules for `role`, which is in lower case.
    pub fn of(&self, role: &str) -> &RolePolicy {
        self.role.get(role).unwrap_or(&self.every)
    }
}

/// A number of nodes that may be none.
fn nodes<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    range::count(from, "nodes", 0..=MOST_NODES)
}

/// An amount of nodes that is not nothing: with none at a time no node could ever be upgraded.
fn some_nodes<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Amount>, D::Error> {
    let amount = Amount::deserialize(from)?;
    if matches!(amount, Amount::Count(0) | Amount::Percent(0)) {
        return Err(D::Error::custom(format!(
            "`{amount}` given, and no node could be upgraded: expected a number of nodes from 1 to {MOST_NODES}, a share from `1%` to `100%`, \
             or `n-1` for all but one"
        )));
    }
    Ok(Some(amount))
}

/// `[rollout]` as it is written: each role's table says only what is different.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RolloutFragment {
    #[serde(deserialize_with = "nodes")]
    canaries: Option<u32>,
    #[serde(deserialize_with = "some_nodes")]
    max_in_flight: Option<Amount>,
    #[serde(deserialize_with = "some_nodes")]
    max_in_flight_total: Option<Amount>,
    #[serde(deserialize_with = "nodes")]
    max_failures: Option<u32>,
    #[serde(deserialize_with = "nodes")]
    max_unreachable: Option<u32>,
    min_available: Option<Amount>,
    #[serde(deserialize_with = "range::duration::<_, _, 0, 604_800>")]
    soak: Option<HumanDuration>,
    role: BTreeMap<String, RoleFragment>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RoleFragment {
    #[serde(deserialize_with = "nodes")]
    canaries: Option<u32>,
    #[serde(deserialize_with = "some_nodes")]
    max_in_flight: Option<Amount>,
    #[serde(deserialize_with = "nodes")]
    max_failures: Option<u32>,
    #[serde(deserialize_with = "nodes")]
    max_unreachable: Option<u32>,
    min_available: Option<Amount>,
    #[serde(deserialize_with = "range::duration::<_, _, 0, 604_800>")]
    soak: Option<HumanDuration>,
}

impl RoleFragment {
    fn over(self, policy: &RolePolicy) -> RolePolicy {
        RolePolicy {
            canaries: self.canaries.unwrap_or(policy.canaries),
            max_in_flight: self.max_in_flight.unwrap_or(policy.max_in_flight),
            max_failures: self.max_failures.unwrap_or(policy.max_failures),
            max_unreachable: self.max_unreachable.unwrap_or(policy.max_unreachable),
            min_available: self.min_available.or(policy.min_available),
            soak: self.soak.unwrap_or(policy.soak),
        }
    }
}

impl From<RolloutFragment> for Policies {
    fn from(written: RolloutFragment) -> Self {
        let every = RoleFragment {
            canaries: written.canaries,
            max_in_flight: written.max_in_flight,
            max_failures: written.max_failures,
            max_unreachable: written.max_unreachable,
            min_available: written.min_available,
            soak: written.soak,
        }
        .over(&RolePolicy::default());
        let role = written
            .role
            .into_iter()
            .map(|(role, own)| (role.to_lowercase(), own.over(&every)))
            .collect();
        let total = written.max_in_flight_total.unwrap_or_else(everybody);
        Self { total, every, role }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c24_an_amount_is_a_number_a_share_or_all_but_some() {
        for (text, of, at_most, at_least) in [
            ("2", 10, 2, 2),
            ("25%", 10, 2, 3),
            ("25%", 3, 1, 1),
            ("0%", 3, 1, 0),
            ("100%", 3, 3, 3),
            ("n-1", 3, 2, 2),
            ("n-1", 1, 1, 0),
            ("n-5", 3, 1, 0),
        ] {
            let amount: Amount = text.parse().unwrap();
            assert_eq!(
                (amount.at_most(of), amount.at_least(of)),
                (at_most, at_least),
                "{text} of {of}"
            );
            assert_eq!(amount.to_string(), text);
        }
        for wrong in ["", "-1", "101%", "n", "n-", "many", "%"] {
            assert!(wrong.parse::<Amount>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn c24_a_role_says_only_what_is_different_for_it() {
        let written: RolloutFragment =
            toml::from_str("max_failures = 1\n[role.DEA]\nmax_in_flight = \"25%\"\nsoak = \"5m\"\n").unwrap();
        let policies = Policies::from(written);
        let dea = policies.of("dea");
        assert_eq!(dea.max_in_flight, Amount::Percent(25));
        assert_eq!((dea.max_failures, dea.canaries), (1, 1));
        assert_eq!(policies.of("router"), &policies.every);
        assert_eq!(policies.every.max_in_flight, Amount::Count(1));
        assert!(toml::from_str::<RolloutFragment>("[role.dea]\nmax_fligth = 1\n").is_err());
        for wrong in ["-1", "true", "1.5"] {
            let refused =
                toml::from_str::<RolloutFragment>(&format!("max_in_flight = {wrong}\n")).unwrap_err();
            assert!(refused.to_string().contains("all but one"), "{refused}");
        }
    }
}
