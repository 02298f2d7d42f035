//! The areas of `cargo xtask test -- AREA`: which integration binaries and which unit tests belong together.
//!
//! An area whose binaries do not exist yet is an error with its own message: a run without tests must not look like success.

use anyhow::{Result, bail};

/// One area.
#[derive(Debug)]
pub(crate) struct Area {
    name: &'static str,
    /// Folders of `tests/tests/`.
    binaries: &'static [&'static str],
    /// A nextest filterset of related unit tests.
    units: Option<&'static str>,
}

const AREAS: &[Area] = &[
    Area {
        name: "cache",
        binaries: &["cache", "conformance", "apt"],
        units: Some("(package(kato-proxy) & not test(/oci|registry/))"),
    },
    Area {
        name: "store",
        binaries: &["store"],
        units: Some("(package(kato-proxy) & test(/store|storing/))"),
    },
    Area {
        name: "registry",
        binaries: &["registry"],
        units: Some("(package(kato-proxy) & test(/oci|registry/))"),
    },
    Area {
        name: "node",
        binaries: &["node", "patch", "release"],
        units: Some("(package(kato-upgrader) & not test(/cluster|ssh/))"),
    },
    Area {
        name: "patch",
        binaries: &["patch"],
        units: Some("test(/patch/)"),
    },
    Area {
        name: "origins",
        binaries: &["origins"],
        units: Some("(package(kato-proxy) & test(/origin|upstreams|tls/))"),
    },
    Area {
        name: "crash",
        binaries: &["crash"],
        units: None,
    },
    Area {
        name: "safety",
        binaries: &["safety"],
        units: Some("(package(fuzz-targets) | (package(kato-proxy) & test(/route|key|admin|metrics/)))"),
    },
    Area {
        name: "cluster",
        binaries: &["cluster", "demo"],
        units: Some("(package(kato-upgrader) & test(/cluster|ssh/))"),
    },
    Area {
        name: "offline",
        binaries: &["offline"],
        units: None,
    },
    Area {
        name: "bundle",
        binaries: &["bundle"],
        units: Some("(package(kato-proxy) & test(/bundle|snapshot/))"),
    },
    Area {
        name: "demo",
        binaries: &["demo"],
        units: Some("(package(kato-upgrader) & test(/demo|prepare/))"),
    },
    Area {
        name: "apt",
        binaries: &["apt"],
        units: None,
    },
    Area {
        name: "conformance",
        binaries: &["conformance"],
        units: None,
    },
    Area {
        name: "lab",
        binaries: &["lab"],
        units: None,
    },
    Area {
        name: "serving",
        binaries: &["serving"],
        units: Some("(package(kato-proxy) & test(/listener|tls|reload|connections|settings/))"),
    },
    Area {
        name: "intercept",
        binaries: &["intercept"],
        units: Some("(package(kato-proxy) & test(/authority|inside|route/))"),
    },
    Area {
        name: "generic",
        binaries: &["generic"],
        units: Some("(package(kato-proxy) & test(/sidecar|tuf/))"),
    },
    Area {
        name: "platform",
        binaries: &["platform"],
        units: None,
    },
    Area {
        name: "release",
        binaries: &["release"],
        units: None,
    },
];

impl Area {
    /// The area called `name`, or what the operator should read.
    pub(crate) fn named(name: &str) -> Result<&'static Self, String> {
        AREAS.iter().find(|area| area.name == name).ok_or_else(|| {
            let names: Vec<_> = AREAS.iter().map(|area| area.name).collect();
            format!("no area is called `{name}`: expected one of {}", names.join(", "))
        })
    }

    /// The nextest filterset of this area, given the integration binaries that exist.
    ///
    /// # Errors
    /// When none of the area's binaries exists.
    pub(crate) fn filter(&self, existing: &[String]) -> Result<String> {
        let mut parts: Vec<String> = self
            .binaries
            .iter()
            .filter(|binary| existing.iter().any(|there| there == *binary))
            .map(|binary| format!("(package(integration-tests) & binary(={binary}))"))
            .collect();
        if parts.is_empty() {
            bail!(
                "area `{}` has no integration tests yet: tests/tests/{}/main.rs does not exist",
                self.name,
                self.binaries.join("/main.rs and tests/tests/")
            );
        }
        parts.extend(self.units.map(str::to_owned));
        Ok(parts.join(" | "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_area_lists_the_known_ones() {
        let message = Area::named("caches").unwrap_err();
        assert!(
            message.contains("`caches`") && message.contains("cache, store, registry, node, patch, origins"),
            "{message}"
        );
    }

    #[test]
    fn an_area_without_binaries_is_an_error_even_where_unit_tests_exist() {
        let error = Area::named("registry")
            .unwrap()
            .filter(&["cache".to_owned()])
            .unwrap_err();
        assert!(
            error.to_string().contains("tests/tests/registry/main.rs"),
            "{error}"
        );
    }

    #[test]
    fn only_existing_binaries_are_named_because_nextest_refuses_the_others() {
        let filter = Area::named("cache")
            .unwrap()
            .filter(&["cache".to_owned()])
            .unwrap();
        assert!(
            filter.contains("binary(=cache)") && !filter.contains("binary(=apt)"),
            "{filter}"
        );
    }
}
