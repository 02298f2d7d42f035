//! What the suite's results mean, read as the suite's own pages read them, and the comparison with what is expected.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

use anyhow::{Context, Result};
use kato_shared::durable;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the suite says about one of its tests.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Test {
    id: String,
    suite: String,
    kind: Kind,
    depends_on: Vec<String>,
}

/// How much a test weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// The RFC demands it.
    Required,
    /// A good cache does it.
    Optimal,
    /// Nobody demands it: caches differ, and the suite notes how.
    Check,
}

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// As it says; for a check: yes.
    Pass,
    /// Otherwise; for a check: no.
    Fail,
    /// It could not be set up: what it builds on went another way.
    Setup,
    /// The cache asked the origin twice for one request.
    Retry,
    /// A test that it depends on did not pass.
    Dependency,
}

/// Outcomes by the test's id.
pub(crate) type Outcomes = BTreeMap<String, Outcome>;

/// The results of a whole run.
#[derive(Debug)]
pub(crate) struct Scored {
    tests: Vec<Test>,
    outcomes: Outcomes,
    said: BTreeMap<String, String>,
}

/// Where a run differs from what is expected.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    pub(crate) better: Vec<String>,
    pub(crate) worse: Vec<String>,
}

impl Scored {
    /// `results` by the test's id: `true`, or a pair of an error's name and its message.
    pub(crate) fn new(tests: Vec<Test>, results: &BTreeMap<String, Value>) -> Self {
        let alone: Outcomes = tests
            .iter()
            .map(|test| (test.id.clone(), alone(results.get(&test.id))))
            .collect();
        let outcomes = tests
            .iter()
            .map(|test| (test.id.clone(), with_dependencies(test, &tests, &alone)))
            .collect();
        let said = results
            .iter()
            .filter_map(|(id, result)| Some((id.clone(), result.get(1)?.as_str()?.to_owned())))
            .collect();
        Self {
            tests,
            outcomes,
            said,
        }
    }

    /// What is worse and what is better than `expected`. A test that is not expected at all must pass.
    pub(crate) fn compare(&self, expected: &Outcomes) -> Compared {
        let mut compared = Compared::default();
        for (id, outcome) in &self.outcomes {
            let wanted = expected.get(id).copied().unwrap_or(Outcome::Pass);
            match (wanted == Outcome::Pass, *outcome == Outcome::Pass) {
                (true, false) => {
                    let said = self.said.get(id).map_or("", String::as_str);
                    compared.worse.push(format!("{id}: {outcome:?}: {said}"));
                }
                (false, true) => compared.better.push(id.clone()),
                _ => {}
            }
        }
        let unknown = expected.keys().filter(|id| !self.outcomes.contains_key(*id));
        compared.worse.extend(unknown.map(|id| format!("{id}: not run")));
        compared
    }
}

impl fmt::Display for Scored {
    /// A table: how many of each kind pass, without the suite of a field that only content delivery networks know.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: BTreeSet<Kind> = self.tests.iter().map(|test| test.kind).collect();
        for kind in kinds {
            let of_kind: Vec<_> = self
                .tests
                .iter()
                .filter(|test| test.kind == kind && test.suite != "surrogate-control")
                .collect();
            let passed = of_kind
                .iter()
                .filter(|test| self.outcomes.get(&test.id) == Some(&Outcome::Pass))
                .count();
            writeln!(f, "  {kind:?}: {passed} of {}", of_kind.len())?;
        }
        Ok(())
    }
}

fn alone(result: Option<&Value>) -> Outcome {
    match result {
        Some(Value::Bool(true)) => Outcome::Pass,
        Some(Value::Array(error)) if error.first().is_some_and(|name| name == "Setup") => {
            let is_retry = error.get(1).is_some_and(|message| message == "retry");
            if is_retry { Outcome::Retry } else { Outcome::Setup }
        }
        _ => Outcome::Fail,
    }
}

/// A test says nothing where one that it depends on, near or far, did not pass.
fn with_dependencies(test: &Test, tests: &[Test], alone: &Outcomes) -> Outcome {
    let mut left: Vec<&str> = test.depends_on.iter().map(String::as_str).collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = left.pop() {
        if !seen.insert(id) {
            continue;
        }
        if alone.get(id) != Some(&Outcome::Pass) {
            return Outcome::Dependency;
        }
        if let Some(further) = tests.iter().find(|other| other.id == id) {
            left.extend(further.depends_on.iter().map(String::as_str));
        }
    }
    alone.get(&test.id).copied().unwrap_or(Outcome::Fail)
}

/// The expected outcomes.
///
/// # Errors
/// When the file is missing or not what [`write`] writes.
pub(crate) fn read(file: &Path) -> Result<Outcomes> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read `{}`", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("`{}` is no table of outcomes", file.display()))
}

/// Makes the outcomes of `scored` the expected ones.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write(file: &Path, scored: &Scored) -> Result<()> {
    let text = serde_json::to_string_pretty(&scored.outcomes)? + "\n";
    durable::write(file, text.as_bytes(), 0o644)
        .with_context(|| format!("cannot write `{}`", file.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(id: &str, depends_on: &[&str]) -> Test {
        Test {
            id: id.into(),
            suite: "s".into(),
            kind: Kind::Required,
            depends_on: depends_on.iter().map(|id| (*id).to_owned()).collect(),
        }
    }

    #[test]
    fn a_loss_a_gain_and_what_hangs_on_them() {
        let tests = vec![
            test("a", &[]),
            test("b", &["a"]),
            test("c", &["b"]),
            test("d", &[]),
        ];
        let results =
            serde_json::from_str(r#"{"a": ["Setup", "retry"], "b": true, "c": true, "d": true}"#).unwrap();
        let scored = Scored::new(tests, &results);
        assert_eq!(scored.outcomes["a"], Outcome::Retry);
        assert_eq!(scored.outcomes["c"], Outcome::Dependency);
        let expected =
            serde_json::from_str(r#"{"a": "retry", "b": "pass", "d": "fail", "gone": "pass"}"#).unwrap();
        let compared = scored.compare(&expected);
        assert_eq!(compared.better, ["d"]);
        assert_eq!(
            compared.worse,
            ["b: Dependency: ", "c: Dependency: ", "gone: not run"]
        );
    }
}
