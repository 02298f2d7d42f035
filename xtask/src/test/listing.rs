//! What there is to run: integration binaries from cargo, tests from nextest.

use anyhow::{Context, Result};
use serde_json::Value;

use super::WORKSPACE;
use crate::process::Tool;

/// The names of the folders in `tests/tests/` that are integration test binaries.
///
/// # Errors
/// When cargo fails or prints something unexpected.
pub(crate) fn integration_binaries() -> Result<Vec<String>> {
    let metadata = crate::tidy::metadata()?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata has no packages")?;
    Ok(packages
        .iter()
        .filter(|package| package["name"] == "integration-tests")
        .flat_map(|package| package["targets"].as_array().into_iter().flatten())
        .filter(|target| target["kind"][0] == "test")
        .filter_map(|target| target["name"].as_str().map(str::to_owned))
        .collect())
}

/// Every test that the nextest filterset `filter` matches, as `<binary> <test>`. Builds the test binaries.
///
/// # Errors
/// When the build fails.
pub(crate) fn tests(filter: &str) -> Result<Vec<String>> {
    let json = Tool::cargo()
        .args(["nextest", "list", "--message-format", "json", "-E", filter])
        .args(WORKSPACE)
        .stdout()?;
    let list: Value = serde_json::from_str(&json).context("nextest list printed no JSON")?;
    matching(&list).context("nextest list has an unknown shape")
}

fn matching(list: &Value) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for (binary, suite) in list["rust-suites"].as_object()? {
        // A suite that the filter rules out as a whole is not built into the list and has no test cases.
        for (test, case) in suite["testcases"].as_object()? {
            if case["filter-match"]["status"] == "matches" {
                names.push(format!("{binary} {test}"));
            }
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tests_that_match_are_listed_and_ignored_ones_are_not() {
        let list = serde_json::json!({"rust-suites": {"integration-tests::lab": {"testcases": {
            "as_root::a": {"ignored": false, "filter-match": {"status": "matches"}},
            "b": {"ignored": false, "filter-match": {"status": "mismatch", "reason": "expression"}},
        }}}});
        assert_eq!(
            matching(&list),
            Some(vec!["integration-tests::lab as_root::a".to_owned()])
        );
        assert_eq!(matching(&serde_json::json!({})), None);
    }
}
