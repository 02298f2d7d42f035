//! What the demonstration showed, as the document of `--json` and as tables. Pure: facts in, text out.

use kato_shared::settings::byte_size::human;
use serde::Serialize;

/// The version of the document.
const SCHEMA: u32 = 1;

/// What the documents of the repository may come to, which no node counts among its files.
const DOCUMENTS: u64 = 1 << 20;

/// The document of `--json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Outcome {
    /// The version of this document.
    pub(super) schema: u32,
    /// Whether everything is as promised; see [`Outcome::broken`].
    pub(super) ok: bool,
    /// The nodes in the order of their upgrades.
    pub(super) order: Vec<String>,
    /// The Core node.
    pub(super) core: String,
    /// The nodes, in the order of their upgrades.
    pub(super) nodes: Vec<Node>,
    /// The files of the new release, the largest first.
    pub(super) artifacts: Vec<Artifact>,
    /// Bytes that the upgrade host sent for the upgrade; the installation of the old release is not counted.
    pub(super) wan_bytes: u64,
    /// Bytes that it would have sent if every node had downloaded what its roles need.
    pub(super) direct_bytes: u64,
    /// What else was not as promised.
    #[serde(skip)]
    problems: Vec<String>,
}

/// One node's upgrade.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) seconds: f64,
}

/// One file of the new release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Artifact {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) origin_requests: u64,
    pub(super) cache_requests: u64,
}

impl Outcome {
    /// An outcome that has been judged.
    pub(super) fn new(
        core: &str,
        nodes: Vec<Node>,
        mut artifacts: Vec<Artifact>,
        (wan_bytes, direct_bytes): (u64, u64),
        problems: Vec<String>,
    ) -> Self {
        artifacts.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
        let mut outcome = Self {
            schema: SCHEMA,
            ok: false,
            order: nodes.iter().map(|node| node.name.clone()).collect(),
            core: core.to_owned(),
            nodes,
            artifacts,
            wan_bytes,
            direct_bytes,
            problems,
        };
        outcome.ok = outcome.broken().is_empty();
        outcome
    }

    /// The promises that were not kept.
    pub(super) fn broken(&self) -> Vec<String> {
        let mut broken = self.problems.clone();
        if self.order.last() != Some(&self.core) {
            broken.push(format!(
                "Core ({}) was not last: {}",
                self.core,
                self.order.join(", ")
            ));
        }
        for artifact in self
            .artifacts
            .iter()
            .filter(|artifact| artifact.origin_requests != 1)
        {
            let Artifact {
                name,
                origin_requests,
                ..
            } = artifact;
            broken.push(format!(
                "{name} was asked for {origin_requests} times at the upgrade host, expected once"
            ));
        }
        if self.artifacts.is_empty() {
            broken.push("the release has no artifacts".to_owned());
        }
        let once: u64 = self.artifacts.iter().map(|artifact| artifact.bytes).sum();
        if self.wan_bytes > once + DOCUMENTS || self.wan_bytes >= self.direct_bytes {
            broken.push(format!(
                "{} bytes crossed the WAN, expected the {once} of each file once, and fewer than the {} of direct upgrades",
                self.wan_bytes, self.direct_bytes
            ));
        }
        broken
    }

    /// The tables.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut nodes = vec![row(["node", "old", "new", "order", "seconds"])];
        for (at, node) in self.nodes.iter().enumerate() {
            let (order, seconds) = ((at + 1).to_string(), format!("{:.1}", node.seconds));
            nodes.push(row([&node.name, &node.from, &node.to, &order, &seconds]));
        }
        let mut artifacts = vec![row(["artifact", "size", "upgrade host", "cache"])];
        for artifact in &self.artifacts {
            let (origin, cache) = (
                artifact.origin_requests.to_string(),
                artifact.cache_requests.to_string(),
            );
            artifacts.push(row([&artifact.name, &human(artifact.bytes), &origin, &cache]));
        }
        let totals = [
            row(["bytes over the WAN", &human(self.wan_bytes)]),
            row(["three direct upgrades", &human(self.direct_bytes)]),
            row(["saved", &format!("{:.1} times", self.ratio())]),
        ];
        let mut lines = aligned(&nodes);
        lines.push(String::new());
        lines.extend(aligned(&artifacts));
        lines.push("requests at the cache: of the nodes, and of filling and checking it".into());
        lines.push(String::new());
        lines.extend(aligned(&totals));
        lines
    }

    /// How many times fewer bytes crossed the WAN.
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    fn ratio(&self) -> f64 {
        self.direct_bytes as f64 / self.wan_bytes.max(1) as f64
    }
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(ToOwned::to_owned).into()
}

/// The first column to the left, the others to the right, two spaces between.
fn aligned(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    rows.iter()
        .map(|row| {
            let cells = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(at, (cell, &width))| match at {
                    0 => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                });
            cells.collect::<Vec<_>>().join("  ")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> Node {
        Node {
            name: name.into(),
            from: "1.0.0".into(),
            to: "2.0.0".into(),
            seconds: 1.25,
        }
    }

    fn artifact(name: &str, bytes: u64, origin_requests: u64) -> Artifact {
        Artifact {
            name: name.into(),
            bytes,
            origin_requests,
            cache_requests: 4,
        }
    }

    fn good() -> Outcome {
        let nodes = vec![node("dea"), node("core")];
        Outcome::new(
            "core",
            nodes,
            vec![artifact("a", 1024, 1), artifact("b", 4096, 1)],
            (100, 201),
            vec![],
        )
    }

    #[test]
    fn the_document_has_exactly_the_promised_keys() {
        let document = serde_json::to_value(good()).unwrap();
        let expected = serde_json::json!({
            "schema": 1, "ok": true, "order": ["dea", "core"], "core": "core",
            "nodes": [
                {"name": "dea", "from": "1.0.0", "to": "2.0.0", "seconds": 1.25},
                {"name": "core", "from": "1.0.0", "to": "2.0.0", "seconds": 1.25},
            ],
            "artifacts": [
                {"name": "b", "bytes": 4096, "origin_requests": 1, "cache_requests": 4},
                {"name": "a", "bytes": 1024, "origin_requests": 1, "cache_requests": 4},
            ],
            "wan_bytes": 100, "direct_bytes": 201,
        });
        assert_eq!(document, expected);
    }

    #[test]
    fn a_promise_that_was_not_kept_is_named() {
        let nodes = vec![node("core"), node("dea")];
        let outcome = Outcome::new(
            "core",
            nodes,
            vec![artifact("a", 1, 2)],
            (2_000_000, 3_000_000),
            vec!["router.conf was lost".into()],
        );
        assert!(!outcome.ok);
        assert_eq!(
            outcome.broken(),
            [
                "router.conf was lost",
                "Core (core) was not last: core, dea",
                "a was asked for 2 times at the upgrade host, expected once",
                "2000000 bytes crossed the WAN, expected the 1 of each file once, and fewer than the 3000000 of direct upgrades",
            ]
        );
        let dear = Outcome::new(
            "core",
            vec![node("core")],
            vec![artifact("a", 1, 1)],
            (100, 100),
            vec![],
        );
        assert_eq!(dear.broken().len(), 1, "as much as without a cache");
        assert!(!Outcome::new("core", vec![node("core")], vec![], (1, 9), vec![]).ok);
    }

    #[test]
    fn the_tables_are_aligned() {
        assert_eq!(
            good().lines(),
            [
                "node    old    new  order  seconds",
                "dea   1.0.0  2.0.0      1      1.2",
                "core  1.0.0  2.0.0      2      1.2",
                "",
                "artifact     size  upgrade host  cache",
                "b         4.0 KiB             1      4",
                "a         1.0 KiB             1      4",
                "requests at the cache: of the nodes, and of filling and checking it",
                "",
                "bytes over the WAN         100 B",
                "three direct upgrades      201 B",
                "saved                  2.0 times",
            ]
        );
    }
}
