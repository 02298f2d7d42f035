//! Memory in the documents of Kubernetes: quantities such as `512Mi`, and what a pod requests. Pure.
//!
//! A pod requests what the scheduler counts: the sum over its containers, with those init containers that stay (`restartPolicy:
//! Always`), or the largest other init container if that is more; and its overhead.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::Error as _};

/// Resources, of which only the memory counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Memory(Option<u128>);

/// What a pod is to be.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Spec {
    containers: Vec<Container>,
    init_containers: Vec<Container>,
    overhead: Memory,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    resources: Resources,
    restart_policy: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Resources {
    requests: Memory,
}

impl Memory {
    /// Bytes; `None` when nothing is said.
    pub(super) const fn bytes(self) -> Option<u128> {
        self.0
    }
}

impl<'de> Deserialize<'de> for Memory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let all: Option<BTreeMap<String, serde_json::Value>> = Option::deserialize(deserializer)?;
        let Some(memory) = all.and_then(|mut all| all.remove("memory")) else {
            return Ok(Self(None));
        };
        let text = memory
            .as_str()
            .map_or_else(|| memory.to_string(), ToOwned::to_owned);
        match bytes(&text) {
            Some(bytes) => Ok(Self(Some(bytes))),
            None => Err(D::Error::custom(format!(
                "expected a quantity such as 512Mi, found `{text}`"
            ))),
        }
    }
}

impl Spec {
    /// The bytes that the pod requests; 0 when it requests none.
    pub(super) fn requested(&self) -> u128 {
        let of = |container: &Container| container.resources.requests.bytes().unwrap_or(0);
        let stays = |container: &&Container| container.restart_policy == "Always";
        let staying: u128 = self.init_containers.iter().filter(stays).map(of).sum();
        let running: u128 = self.containers.iter().map(of).sum::<u128>() + staying;
        // One after the other, each beside those that began to stay before it: all of them is the most that can be.
        let starting = self
            .init_containers
            .iter()
            .filter(|one| !stays(one))
            .map(of)
            .max();
        running.max(starting.unwrap_or(0) + staying) + self.overhead.bytes().unwrap_or(0)
    }
}

/// The bytes of a quantity, rounded up; `None` for what is none.
fn bytes(text: &str) -> Option<u128> {
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, places) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && places.is_empty() {
        return None;
    }
    let digits: u128 = format!("{whole}{places}").parse().ok()?;
    let places = u32::try_from(places.len()).ok()?;
    let (factor, divisor): (u128, u128) = match unit {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => {
            let exponent: i32 = unit.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_u128.checked_pow(exponent.unsigned_abs())?;
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    };
    let divisor = divisor.checked_mul(10_u128.checked_pow(places)?)?;
    Some(digits.checked_mul(factor)?.div_ceil(divisor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r22_quantities_are_read_as_kubernetes_writes_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("128974848", Some(128_974_848)),
            ("129e6", Some(129_000_000)),
            ("129M", Some(129_000_000)),
            ("128974848000m", Some(128_974_848)),
            ("123Mi", Some(123 * 1_048_576)),
            ("1.5Gi", Some(1_610_612_736)),
            ("1k", Some(1000)),
            ("8Ki", Some(8192)),
            ("1m", Some(1)),
            ("", None),
            (".", None),
            ("12Xi", None),
            ("-1", None),
            ("1e", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn r22_a_pod_requests_what_the_scheduler_counts() {
        let spec = |json: &str| {
            serde_json::from_str::<Spec>(json)
                .map(|spec| spec.requested())
                .ok()
        };
        let of = |memory: &str| format!(r#"{{"resources": {{"requests": {{"memory": "{memory}"}}}}}}"#);
        let two = format!(r#"{{"containers": [{}, {}, {{}}]}}"#, of("100"), of("20"));
        assert_eq!(spec(&two), Some(120));
        let starting = format!(
            r#"{{"containers": [{}], "initContainers": [{}, {}], "overhead": {{"memory": "7"}}}}"#,
            of("100"),
            of("300"),
            of("200")
        );
        assert_eq!(spec(&starting), Some(307));
        let staying = r#"{"containers": [], "initContainers": [{"restartPolicy": "Always", "resources": {"requests": {"memory": "5"}}}]}"#;
        assert_eq!(spec(staying), Some(5));
        assert_eq!(
            spec(r#"{"containers": [{"resources": {"requests": {"cpu": "1"}}}]}"#),
            Some(0)
        );
        assert_eq!(
            spec(r#"{"containers": [{"resources": {"requests": {"memory": "much"}}}]}"#),
            None
        );
    }
}
