//! HTTP caching held against a public yardstick: the npm package `http-cache-tests`, a suite whose authors are also those of
//! the RFC.
//!
//! Flow: [`suite`] installs the package once and starts its origin; the built proxy stands before that origin; the suite's own
//! client asks through the proxy, once by the mirror path and once as through a forward proxy; [`score`] reads the results as
//! the suite itself would and compares them with `tests/data/http-cache-tests.json`. A test that passed and does not any more
//! is a loss, and fails; one that passes now is named, so that the file can be brought up to date with `KATO_BLESS=1`.
//!
//! Deliberately absent: the suite's code, which is installed and not copied; retries. What the expected failures mean is told in
//! `docs/conformance.md`.

use std::{collections::BTreeMap, env, path::Path};

use anyhow::{Context, Result, ensure};
use integration_tests::proxy::Settings;

mod score;
mod suite;

use score::Scored;
use suite::{Suite, Way};

#[tokio::test]
async fn rfc9111_http_cache_tests_lose_nothing_by_the_mirror_path_nor_by_the_forward_proxy() -> Result<()> {
    let suite = Suite::install()?;
    let (mirror, forward) = tokio::join!(measure(&suite, Way::Mirror), measure(&suite, Way::Forward));
    let (mirror, forward) = (mirror?, forward?);
    say(&format!("mirror path\n{mirror}\nforward proxy\n{forward}"));

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/http-cache-tests.json");
    if env::var_os("KATO_BLESS").is_some() {
        return score::write(&file, &mirror);
    }
    let expected = score::read(&file)?;
    let mut losses = Vec::new();
    for (way, scored) in [(Way::Mirror, &mirror), (Way::Forward, &forward)] {
        let compared = scored.compare(&expected);
        for better in &compared.better {
            say(&format!("{way:?} is better than expected: {better}"));
        }
        losses.extend(compared.worse.iter().map(|loss| format!("{way:?}: {loss}")));
    }
    ensure!(
        losses.is_empty(),
        "worse than {}:\n{}\nhint: one test with its messages: npm_config_id=ID (see docs/conformance.md)",
        file.display(),
        losses.join("\n")
    );
    Ok(())
}

/// One whole run: a fresh origin, a fresh proxy with an empty store, all tests.
async fn measure(suite: &Suite, way: Way) -> Result<Scored> {
    let origin = suite.origin()?;
    let cache = tempfile::tempdir()?;
    let proxy = Settings::new(cache.path())
        .upstream("suite", &format!("http://{}/", origin.address))
        .start()
        .await?;
    let tests = suite.tests.clone();
    let client = suite.client(way, &origin, proxy.data);
    let results = tokio::task::spawn_blocking(client).await??;
    let results: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(&results).with_context(|| format!("the suite's client printed: {results}"))?;
    Ok(Scored::new(tests, &results))
}

#[expect(clippy::print_stderr, reason = "the test runner shows it on request")]
fn say(what: &str) {
    eprintln!("{what}");
}
