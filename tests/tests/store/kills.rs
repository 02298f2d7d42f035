//! SIGKILL at random moments under mixed load, again and again on the same store: small and large bodies, with and without a
//! length, ranges, validation, unsafe methods, purges, and in every third life evictions under a small quota.
//!
//! After each kill: nothing in the temporary folder, every answer from the store right, everything there that a client had
//! whole a second before the kill (in the lives without evictions), and a verification that finds nothing.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use integration_tests::{
    client::Client,
    origin::{Framing, Resource},
    proxy::Proxy,
    wait,
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{KIB, MIB, Random, Site, assert_same, content, files};

/// Clients at once.
const CLIENTS: u64 = 8;

/// What a kill may cost: bodies that were whole for less than this.
const GRACE: Duration = Duration::from_secs(1);

/// Lives, unless `KATO_KILLS` says otherwise.
const LIVES: u64 = 40;

/// Everything that is served, by path.
type Bodies = Arc<HashMap<String, Vec<u8>>>;

/// When a client had which path whole; `None` once somebody removed it on purpose.
type Whole = Arc<Mutex<HashMap<String, Option<Instant>>>>;

fn serve_all(site: &Site) -> Bodies {
    let mut bodies = HashMap::new();
    let mut random = Random::new(4711);
    let groups = [
        ("s", 60, 64 * KIB),
        ("c", 20, 300 * KIB),
        ("l", 8, 3 * MIB),
        ("v", 10, 90 * KIB),
    ];
    for (group, count, longest) in groups {
        for n in 0..count {
            // With an end, so that no path is the beginning of another one: purges go by prefix.
            let path = format!("/{group}/{n}.bin");
            let body = content(1 + random.below(longest), random.next());
            let resource = match group {
                "c" => Resource::cacheable(body.clone()).framing(Framing::Chunked),
                "v" => Resource::new(body.clone())
                    .header("cache-control", "max-age=0")
                    .header("etag", "\"v\""),
                _ => Resource::cacheable(body.clone()),
            };
            site.origin.serve(&path, resource);
            bodies.insert(path, body);
        }
    }
    Arc::new(bodies)
}

/// One client until the proxy is gone. What it gets before that is right, as far as it came.
async fn load(client: Client, admin: Client, origin: String, seed: u64, bodies: Bodies, whole: Whole) {
    let mut random = Random::new(seed);
    let mut paths: Vec<&String> = bodies.keys().collect();
    paths.sort();
    loop {
        let path = paths[random.below(paths.len())];
        let body = &bodies[path];
        let target = format!("/files{path}");
        let went = match random.below(100) {
            0..3 => {
                note(&whole, path, None);
                let purge = format!("/-/api/purge?prefix={origin}{path}");
                admin
                    .request("POST", &purge)
                    .header("kato-admin", "1")
                    .fetch()
                    .await
                    .map(drop)
            }
            3..6 => {
                note(&whole, path, None);
                client.request("POST", &target).body("x").fetch().await.map(drop)
            }
            6..20 => part(&client, &target, body, &mut random).await,
            drawn => get(&client, (path, &target), body, drawn < 30, &whole).await,
        };
        if went.is_err() {
            return;
        }
    }
}

fn note(whole: &Whole, path: &str, when: Option<Instant>) {
    let mut whole = whole.lock().unwrap_or_else(PoisonError::into_inner);
    let noted = whole.entry(path.to_owned()).or_insert(when);
    // The first time counts, and a removal counts for ever: its place among the others is not known.
    if when.is_none() {
        *noted = None;
    }
}

async fn get(
    client: &Client,
    (path, target): (&str, &str),
    body: &[u8],
    validate: bool,
    whole: &Whole,
) -> Result<()> {
    let mut request = client.get(target);
    if validate {
        request = request.header("cache-control", "no-cache");
    }
    let mut response = request.send().await?;
    let is_kept = response.status == 200 && {
        let status = response.cache_status();
        status.contains("hit") || status.contains("stored")
    };
    let got = response.finish().await?;
    let end = if got.looks_whole {
        body.len()
    } else {
        got.bytes.len()
    };
    assert_same(&got.bytes, &body[..end], path);
    ensure!(got.looks_whole, "broke off");
    if is_kept {
        note(whole, path, Some(Instant::now()));
    }
    Ok(())
}

async fn part(client: &Client, target: &str, body: &[u8], random: &mut Random) -> Result<()> {
    let first = random.below(body.len());
    let last = first + random.below(body.len() - first);
    let range = format!("bytes={first}-{last}");
    let (response, got) = client.get(target).header("range", &range).fetch().await?;
    let expected = if response.status == 206 {
        &body[first..=last]
    } else {
        body
    };
    assert_same(&got, expected, target);
    Ok(())
}

/// What must hold after a start.
async fn judge(site: &Site, proxy: &Proxy, bodies: &Bodies, kept: &HashSet<String>) -> Result<usize> {
    // What this process evicts at its start is marked for a moment; what was left behind would stay.
    wait::until("an empty temporary folder", Duration::from_secs(20), || {
        let left = files(&site.cache.path().join("tmp"));
        left.is_ok_and(|left| left.is_empty()).then_some(())
    })?;
    let mut found = 0;
    for (path, body) in bodies.iter() {
        let request = proxy
            .client()
            .get(&format!("/files{path}"))
            .header("cache-control", "only-if-cached, max-stale");
        let (response, got) = request.fetch().await?;
        if response.status == 200 {
            assert_same(&got, body, path);
            found += 1;
        } else {
            ensure!(response.status == 504, "{path}: {}", response.status);
            ensure!(!kept.contains(path), "{path} is lost");
        }
    }
    let (_, report) = proxy
        .admin_client()
        .request("POST", "/-/api/verify")
        .header("kato-admin", "1")
        .fetch()
        .await?;
    let report: serde_json::Value = serde_json::from_slice(&report)?;
    for list in ["damaged", "unnamed"] {
        ensure!(report[list].as_array().is_some_and(Vec::is_empty), "{report}");
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c05_killed_at_random_under_load_nothing_is_wrong_left_or_lost() -> Result<()> {
    let lives = std::env::var_os("KATO_KILLS")
        .and_then(|text| text.to_str()?.parse().ok())
        .unwrap_or(LIVES);
    let site = Site::new().await?;
    let bodies = serve_all(&site);
    let mut random = Random::new(20_261_122);
    let mut kept = HashSet::new();
    let (mut checked, mut found) = (0, 0);
    for life in 0..lives {
        let evicts = life % 3 == 2;
        let quota = if evicts {
            "max_size = \"4MiB\""
        } else {
            "max_size = \"1GiB\""
        };
        let started = site.start(quota).await;
        let mut proxy = started.with_context(|| format!("life {life}"))?;
        if evicts {
            // A quota that has become smaller is kept from the start.
            kept.clear();
        }
        let judged = judge(&site, &proxy, &bodies, &kept).await;
        found += judged.with_context(|| format!("after kill {life}"))?;
        checked += kept.len();
        let whole = Whole::default();
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            clients.spawn(load(
                proxy.client(),
                proxy.admin_client(),
                site.origin.url(""),
                random.next(),
                Arc::clone(&bodies),
                Arc::clone(&whole),
            ));
        }
        let lifetime = Duration::from_millis(50 + random.next() % 2000);
        // The moment is the point of the test: it is drawn. No client ends before, unless something is wrong.
        if let Ok(Some(ended)) = timeout(lifetime, clients.join_next()).await {
            ended.with_context(|| format!("life {life}"))?;
        }
        let killed = Instant::now();
        proxy.kill().await?;
        // A wrong body is a panic of its client.
        while let Some(ended) = clients.join_next().await {
            ended.with_context(|| format!("life {life}"))?;
        }
        let whole = whole.lock().unwrap_or_else(PoisonError::into_inner);
        let early = |at: &Option<Instant>| at.is_some_and(|at| at + GRACE < killed);
        let names = whole
            .iter()
            .filter(|(_, at)| early(at))
            .map(|(path, _)| path.clone());
        kept = if evicts { HashSet::new() } else { names.collect() };
    }
    ensure!(
        checked > 0 && found > 0,
        "the load was too little to say anything"
    );
    Ok(())
}
