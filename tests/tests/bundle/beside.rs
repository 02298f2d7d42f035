//! Bundles carried while `serve` runs on the very store: clients notice nothing but what is new.

use std::{fs, process::Stdio};

use anyhow::{Context, Result, ensure};
use integration_tests::{
    command,
    origin::Resource,
    proxy::{Proxy, Settings, program},
    wait::until,
};
use kato_shared::durable;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{SOON, Site, only, record};

/// Clients that never stop asking.
const CLIENTS: usize = 4;

/// The arguments of an import of bundle `seq` into `there`.
fn import(site: &Site, seq: u32) -> Vec<String> {
    let bundle = site.at(&format!("out/test-{seq:06}"));
    let words = [
        "bundle",
        "import",
        &bundle,
        "--cache-dir",
        &site.at("there"),
        "--trust",
        &site.at("key.pub"),
    ];
    words.map(str::to_owned).to_vec()
}

/// Runs the program to its end beside what runs here.
async fn run(site: &Site, words: &[String]) -> Result<(Option<i32>, String)> {
    let mut program = command::new(program()?);
    program.args(words).current_dir(site.folder.path());
    let done = tokio::task::spawn_blocking(move || command::run(program, SOON, &[])).await??;
    let said = [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    Ok((done.status.code(), said.concat()))
}

async fn succeed(site: &Site, words: &[String]) -> Result<String> {
    let (code, said) = run(site, words).await?;
    ensure!(code == Some(0), "{words:?}: {code:?}: {said}");
    Ok(said)
}

/// Two bundles, of which the first is in the store `there`; what the second one has beside it.
async fn two_bundles() -> Result<(Site, (String, Vec<u8>))> {
    let mut site = Site::new(12).await?;
    let (store, key, out) = (site.at("here"), site.at("key"), site.at("out"));
    let export = Site::export(&store, &key, &out);
    site.ok(&export, &[])?;
    succeed(&site, &import(&site, 1)).await?;
    site.grow("new.deb", 9_000_000).await?;
    site.ok(&export, &[])?;
    let new = site.contents.pop().context("it has grown")?;
    Ok((site, new))
}

fn mirror(site: &Site) -> Settings {
    Settings::new(&site.path("there"))
        .upstream("pkg", &site.origin.url("/"))
        .arguments(&["--offline"])
}

/// Clients that ask for all that was there before, until `over`; each answer must be right. Returns how many there were.
fn clients(site: &Site, proxy: &Proxy, over: &CancellationToken) -> JoinSet<Result<u64>> {
    let mut clients = JoinSet::new();
    for _client in 0..CLIENTS {
        let (client, contents, over) = (proxy.client(), site.contents.clone(), over.clone());
        clients.spawn(async move {
            let mut count = 0;
            while !over.is_cancelled() {
                for (path, body) in &contents {
                    let (head, found) = client.get(&format!("/pkg{path}")).fetch().await?;
                    ensure!(head.status == 200 && found == *body, "{path}: {}", head.status);
                    count += 1;
                }
            }
            Ok(count)
        });
    }
    clients
}

async fn end(over: CancellationToken, mut clients: JoinSet<Result<u64>>) -> Result<()> {
    over.cancel();
    while let Some(client) = clients.join_next().await {
        ensure!(client?? > 0, "a client has not asked");
    }
    Ok(())
}

/// Whether `proxy` sends `new`.
async fn has(proxy: &Proxy, (path, body): &(String, Vec<u8>)) -> Result<bool> {
    let (head, found) = proxy.client().get(&format!("/pkg{path}")).fetch().await?;
    Ok(head.status == 200 && found == *body)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_beside_a_mirror_under_load_switches_and_nobody_is_refused() -> Result<()> {
    let (site, new) = two_bundles().await?;
    let mut proxy = mirror(&site).start().await?;
    ensure!(!has(&proxy, &new).await?, "it is there already");
    let over = CancellationToken::new();
    let asking = clients(&site, &proxy, &over);
    // The fewest that can be kept: what was served a moment ago must stay all the same.
    let mut words = import(&site, 2);
    words.extend(["--keep".to_owned(), "1".to_owned()]);
    let said = succeed(&site, &words).await?;
    ensure!(said.contains("active      test 2"), "{said}");
    ensure!(
        has(&proxy, &new).await?,
        "the new snapshot is served as soon as the command has ended"
    );
    // Once more, and an older one: judged as without a server.
    let again = succeed(&site, &import(&site, 2)).await?;
    ensure!(again.contains(" 0 B stored"), "{again}");
    let (code, old) = run(&site, &import(&site, 1)).await?;
    ensure!(
        code == Some(26) && old.contains("test 1 is old"),
        "{code:?}: {old}"
    );
    end(over, asking).await?;
    proxy.terminate()?;
    proxy.ended().await?;
    ensure!(!site.path("there/serve.sock").exists(), "the socket stays behind");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_in_an_import_has_the_old_snapshot_or_the_new_one() -> Result<()> {
    let (site, new) = two_bundles().await?;
    for moment in ["bundle.pending", "bundle.member", "bundle.stored", "bundle.heads"] {
        durable::rename(&site.path("there"), &site.path("kept"))?;
        command::success("cp", command::run(copy(&site), SOON, &[])?)?;
        let mut killed = mirror(&site).variable("KATO_KILL_AT", moment).start().await?;
        let (code, said) = run(&site, &import(&site, 2)).await?;
        ensure!(
            code == Some(75) && said.contains("broke off"),
            "{moment}: {code:?}: {said}"
        );
        killed.ended().await?;
        let mut proxy = mirror(&site).start().await?;
        for (path, body) in &site.contents {
            ensure!(
                has(&proxy, &(path.clone(), body.clone())).await?,
                "{path} after a kill at {moment}"
            );
        }
        succeed(&site, &import(&site, 2)).await?;
        ensure!(has(&proxy, &new).await?, "not whole after a kill at {moment}");
        proxy.terminate()?;
        proxy.ended().await?;
        fs::remove_dir_all(site.path("there"))?;
        durable::rename(&site.path("kept"), &site.path("there"))?;
    }
    Ok(())
}

fn copy(site: &Site) -> std::process::Command {
    let mut copy = command::new("cp");
    copy.arg("-a").arg(site.path("kept")).arg(site.path("there"));
    copy
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_goes_on_without_the_command_that_ordered_it() -> Result<()> {
    let (site, new) = two_bundles().await?;
    let proxy = mirror(&site).start().await?;
    let mut program = tokio::process::Command::from(command::new(program()?));
    let mut ordered = program
        .args(import(&site, 2))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let pending = site.path("there/snapshots/pending/test/000002.json");
    let imported = site.path("there/snapshots/imported/test/000002.json");
    until("the import has begun", SOON, || {
        (pending.exists() || imported.exists()).then_some(())
    })?;
    ordered.kill().await?;
    until("the import has ended", SOON, || {
        (imported.exists() && !pending.exists()).then_some(())
    })?;
    let said = succeed(&site, &import(&site, 2)).await?;
    ensure!(said.contains(" 0 B stored"), "{said}");
    ensure!(has(&proxy, &new).await?, "it is served");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_beside_a_proxy_that_fills_is_whole_and_leaves_nothing_behind() -> Result<()> {
    let site = Site::new(12).await?;
    let (store, key, out) = (site.at("here"), site.at("key"), site.at("out"));
    let proxy = Settings::new(&site.path("here"))
        .upstream("pkg", &site.origin.url("/"))
        .start()
        .await?;
    let plan = ["bundle", "plan", "--cache-dir", &store, "--series", "test"].map(str::to_owned);
    let planned = succeed(&site, &plan).await?;
    ensure!(planned.contains("test-000001"), "{planned}");
    let mut filling = JoinSet::new();
    for number in 0..200 {
        let body = format!("late {number}").into_bytes();
        let path = format!("/late/{number}");
        site.origin.serve(&path, Resource::cacheable(body.clone()));
        let client = proxy.client();
        filling.spawn(async move {
            let (_, found) = client.get(&format!("/pkg{path}")).fetch().await?;
            ensure!(found == body, "{path} is another");
            Ok(())
        });
    }
    let export: Vec<String> = Site::export(&store, &key, &out)
        .into_iter()
        .map(str::to_owned)
        .collect();
    succeed(&site, &export).await?;
    while let Some(filled) = filling.join_next().await {
        filled??;
    }
    let bundle = only(&site.path("out"))?.display().to_string();
    let verify = ["bundle", "verify", &bundle, "--trust", &site.at("key.pub")].map(str::to_owned);
    succeed(&site, &verify).await?;
    until("the view is gone", SOON, || {
        (!site.path("here/view").exists()).then_some(())
    })?;
    // What came too late goes with the next one, and all of it is served on.
    let last = b"after the first export".to_vec();
    site.origin.serve("/last", Resource::cacheable(last.clone()));
    record(&proxy, "/last", &last).await?;
    for (path, body) in &site.contents {
        record(&proxy, path, body).await?;
    }
    succeed(&site, &export).await?;
    ensure!(site.path("out/test-000002").exists(), "no second bundle");
    succeed(&site, &import(&site, 1)).await?;
    crate::served::all_is_served(&site).await
}

#[tokio::test(flavor = "multi_thread")]
async fn prefetch_fills_through_the_server_that_has_the_store_open() -> Result<()> {
    let site = Site::new(3).await?;
    let (store, upstream) = (site.at("here"), format!("pkg={}", site.origin.url("/")));
    let body = b"fetched beside a server".to_vec();
    site.origin.serve("/beside", Resource::cacheable(body.clone()));
    let proxy = Settings::new(&site.path("here"))
        .upstream("pkg", &site.origin.url("/"))
        .start()
        .await?;
    let url = site.origin.url("/beside");
    let words = ["prefetch", "--cache-dir", &store, "--upstream", &upstream, &url].map(str::to_owned);
    let said = succeed(&site, &words).await?;
    ensure!(said.contains("fetched 1 file,"), "{said}");
    ensure!(
        has(&proxy, &("/beside".to_owned(), body)).await?,
        "it is not there"
    );
    ensure!(
        site.origin.requests("/beside").len() == 1,
        "the origin is asked once"
    );
    drop(proxy);
    Ok(())
}
