//! Up to where a node can go back: the point of no return of its plan.

use kato_shared::release::Release;
use serde::Serialize;

use super::node::{ModulePlan, NodeFacts};

/// Up to where a node can go back to the release that it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WayBack {
    /// The first step after which there is no way back. A failure before it is rolled back; from it on, the way is forward.
    pub point_of_no_return: String,
    /// Why it is this one.
    pub reason: String,
}

impl WayBack {
    /// The way back from an upgrade to `release` that installs `modules`.
    pub fn of(facts: &NodeFacts, release: &Release, modules: &[ModulePlan]) -> Self {
        let installed = facts.installed.as_ref();
        let first_change = || {
            let first = modules.iter().find(|module| module.skip.is_none());
            first.map_or_else(|| "restart".into(), |module| step(&module.name))
        };
        let irreversible = modules.iter().find_map(|planned| {
            let module = release
                .modules
                .iter()
                .find(|module| module.name == planned.name)?;
            let of_release = module.irreversible();
            let reason = of_release.or_else(|| facts.irreversible.get(&module.name).cloned())?;
            Some((step(&module.name), reason))
        });
        let (point_of_no_return, reason) = match installed {
            None => (first_change(), "the node has no release to go back to".into()),
            Some(installed) if *installed == release.version && release.patch.is_none() => (
                first_change(),
                "the release that is installed is installed again".into(),
            ),
            Some(_) if !release.reversible => {
                (first_change(), "the release says that it cannot be undone".into())
            }
            Some(installed) => match irreversible {
                Some(found) => found,
                None if release.patch.is_some() => {
                    ("record".into(), "then `kato patch revert` takes it back".into())
                }
                None => (
                    "record".into(),
                    format!("then only its backup leads back to {installed}"),
                ),
            },
        };
        Self {
            point_of_no_return,
            reason,
        }
    }
}

fn step(module: &str) -> String {
    format!("module:{module}")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use kato_shared::Digest;
    use serde_json::json;

    use super::*;
    use crate::plan::node::plan;

    fn way_back(installed: Option<&str>, reversible: bool, second: bool) -> WayBack {
        let module = |name: &str, reversible: bool| {
            json!({"name": name, "artifact": "a", "roles": ["*"], "reversible": reversible,
                   "install": {"policy": "versioned", "dest": format!("/s/{name}")}})
        };
        let document = json!({
            "schema": 1, "product": "demo", "version": "2.0.0", "published": "2026-01-01T00:00:00Z",
            "reversible": reversible,
            "artifacts": {"a": {"target": "artifacts/a", "sha256": Digest::of(b"a"), "size": 1}},
            "modules": [module("one", true), module("two", second)],
        });
        let release = Release::from_json("r", &serde_json::to_vec(&document).unwrap()).unwrap();
        let facts = NodeFacts {
            installed: installed.map(|version| version.parse().unwrap()),
            ..NodeFacts::default()
        };
        plan(&facts, &release, Digest::of(b"r"), Timestamp::UNIX_EPOCH).way_back
    }

    #[test]
    fn c23_the_plan_marks_the_point_of_no_return_and_says_why() {
        for (installed, reversible, second, step, reason) in [
            (
                Some("1.0.0"),
                true,
                true,
                "record",
                "only its backup leads back to 1.0.0",
            ),
            (
                Some("1.0.0"),
                true,
                false,
                "module:two",
                "the module two cannot be undone",
            ),
            (
                Some("1.0.0"),
                false,
                true,
                "module:one",
                "says that it cannot be undone",
            ),
            (Some("2.0.0"), true, true, "module:one", "installed again"),
            (None, true, true, "module:one", "no release to go back to"),
        ] {
            let found = way_back(installed, reversible, second);
            assert_eq!(found.point_of_no_return, step);
            assert!(found.reason.contains(reason), "{found:?}");
        }
    }
}
