//! The metrics page: what Prometheus' own linter asks for, labels that no client can multiply, and a dashboard that asks for
//! names that exist.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Setup;

/// A page, parsed.
#[derive(Debug, Default)]
struct Exposition {
    /// Family → type.
    families: BTreeMap<String, String>,
    /// Sample name and labels, as they stand.
    samples: BTreeMap<String, f64>,
}

/// Reads the text format 0.0.4 and refuses what `promtool check metrics` refuses.
fn parse(page: &str) -> Result<Exposition> {
    let mut found = Exposition::default();
    let mut helped = BTreeSet::new();
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').context("a family without a help text")?;
            ensure!(!text.is_empty() && helped.insert(name.to_owned()), "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').context("a family without a type")?;
            ensure!(helped.contains(name), "{name} has no help text");
            ensure!(matches!(kind, "counter" | "gauge" | "histogram"), "{line}");
            ensure!(
                (kind == "counter") == name.ends_with("_total"),
                "{line}: counters, and they alone, end in _total"
            );
            ensure!(
                !name.contains("_ms") && !name.contains("_milli") && !name.contains("_kb"),
                "{line}: base units"
            );
            found.families.insert(name.to_owned(), kind.to_owned());
        } else {
            let (series, value) = line
                .rsplit_once(' ')
                .with_context(|| format!("no sample: {line}"))?;
            let name = series.split('{').next().unwrap_or_default();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .filter_map(|suffix| name.strip_suffix(suffix))
                .find(|family| {
                    found
                        .families
                        .get(*family)
                        .is_some_and(|kind| kind == "histogram")
                })
                .unwrap_or(name);
            ensure!(
                found.families.contains_key(family),
                "{line} belongs to no family before it"
            );
            let is_new = found.samples.insert(series.to_owned(), value.parse()?).is_none();
            ensure!(is_new, "{series} stands twice");
        }
    }
    ensure!(page.ends_with('\n'), "the last line has an end");
    Ok(found)
}

async fn page(setup: &Setup) -> Result<Exposition> {
    let (response, body) = setup.proxy.admin_client().fetch("/-/metrics").await?;
    ensure!(response.status == 200);
    parse(&String::from_utf8(body)?)
}

#[tokio::test]
async fn p24_the_page_is_clean_and_no_client_can_make_it_grow() -> Result<()> {
    let setup = Setup::start().await?;
    setup.get("/files/a").await?;
    let before = page(&setup).await?;
    for nth in 0..50 {
        for sent in [
            format!("GET /files/{nth} HTTP/1.1\r\nHost: h{nth}\r\nUser-Agent: agent-{nth}\r\n\r\n"),
            format!("GET /upstream-{nth}/a HTTP/1.1\r\nHost: c\r\n\r\n"),
            format!("GET http://host-{nth}.example/a HTTP/1.1\r\nHost: c\r\n\r\n"),
            format!("VERB{nth} /files/a HTTP/1.1\r\nHost: c\r\n\r\n"),
            format!("CONNECT host-{nth}.example:443 HTTP/1.1\r\nHost: c\r\n\r\n"),
        ] {
            setup.send(sent).await?;
        }
    }
    let after = page(&setup).await?;
    let names = |page: &Exposition| page.samples.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after));
    let value = |series: &str| after.samples.get(series).copied().unwrap_or(f64::NAN);
    assert!(value("kato_proxy_requests_total{outcome=\"refused\"}") >= 150.0);
    assert!(value("kato_proxy_upstream_answers_total{upstream=\"files\",outcome=\"miss\"}") >= 51.0);
    assert!(value("kato_proxy_upstream_answer_bytes_total{upstream=\"files\",outcome=\"miss\"}") > 0.0);
    assert!(value("kato_proxy_connections_total") >= 251.0);
    assert!(value("kato_proxy_fill_seconds_count") >= 51.0);
    assert!(value("kato_proxy_stored_responses") >= 51.0);
    assert!(value("process_resident_memory_bytes") > 1e6);
    buckets_grow(&after);
    Ok(())
}

/// In each histogram a larger bound has no smaller count, and the last is the count of all.
fn buckets_grow(page: &Exposition) {
    let mut last: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    let mut rows: Vec<(String, f64, f64)> = page
        .samples
        .iter()
        .filter_map(|(series, count)| {
            let (begin, bound) = series.trim_end_matches("\"}").split_once("le=\"")?;
            let bound = if bound == "+Inf" {
                f64::INFINITY
            } else {
                bound.parse().ok()?
            };
            Some((begin.to_owned(), bound, *count))
        })
        .collect();
    rows.sort_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
    assert!(!rows.is_empty());
    for (series, bound, count) in rows {
        if let Some((before, fewer)) = last.insert(series.clone(), (bound, count)) {
            assert!(before < bound && fewer <= count, "{series} {bound}");
        }
    }
    assert!(last.values().all(|(bound, _)| bound.is_infinite()));
}

/// Names of this program's metrics in a text.
fn names_in(text: &str) -> BTreeSet<String> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| word.starts_with("kato_proxy_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn every_query_of_the_dashboard_and_every_name_in_the_manual_exists() -> Result<()> {
    let setup = Setup::start().await?;
    let page = page(&setup).await?;
    let known: BTreeSet<String> = page
        .families
        .iter()
        .flat_map(|(name, kind)| match kind.as_str() {
            "histogram" => vec![
                name.clone(),
                format!("{name}_bucket"),
                format!("{name}_sum"),
                format!("{name}_count"),
            ],
            _ => vec![name.clone()],
        })
        .collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(root.join("config/grafana/kato-proxy.json"))?)?;
    let mut asked = BTreeSet::new();
    for panel in dashboard["panels"].as_array().context("panels")? {
        let targets = panel["targets"].as_array().context("targets")?;
        ensure!(!targets.is_empty(), "{panel}");
        for target in targets {
            let query = target["expr"].as_str().context("expr")?;
            let names = names_in(query);
            ensure!(!names.is_empty(), "{query} asks for nothing of ours");
            asked.extend(names);
        }
    }
    assert!(asked.is_subset(&known), "unknown: {:?}", asked.difference(&known));
    let manual = names_in(&fs::read_to_string(root.join("docs/metrics.md"))?);
    assert!(
        manual.is_subset(&known),
        "unknown: {:?}",
        manual.difference(&known)
    );
    let families: BTreeSet<String> = page.families.keys().cloned().collect();
    assert!(
        families.is_subset(&manual),
        "not explained: {:?}",
        families.difference(&manual)
    );
    Ok(())
}
