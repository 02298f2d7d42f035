//! SIGKILL at each moment between the first byte of a body and the verdict about it: what the next start serves was verified.
//!
//! The moments are those of a run that is not killed (`KATO_KILL_TRACE`). A body whose digest nobody knows is whole when all of it was
//! received; one that is known by its digest and is something else is never content, whenever the program ends.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, ensure};
use integration_tests::{client::Request, origin::Resource, proxy::Proxy};
use kato_shared::Digest;

use crate::{MIB, Site, assert_same, content};

/// Larger than what is held back until it is verified.
const SIZE: usize = 2 * MIB;

/// A registry at the same origin: what its paths say of content holds.
fn images(site: &Site) -> String {
    format!(
        "[[upstream]]\nname = \"images\"\nkind = \"registry\"\nurls = [\"{}\"]\n",
        site.origin.url("/images/")
    )
}

/// The moments at which the trace in `file` passes by, without those before `begun`.
fn moments(file: &Path, begun: usize) -> BTreeSet<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().skip(begun).map(str::to_owned).collect()
}

fn passed(file: &Path) -> usize {
    fs::read_to_string(file).map_or(0, |text| text.lines().count())
}

/// Fetches with `proxy`, whatever comes of it, until the end of the program or of the body.
async fn fetch(proxy: &Proxy, request: &Request) -> Result<()> {
    drop(request.fetch().await);
    // A verdict, an fsync and a name later it counts or is gone.
    proxy.wait_for_stats(|stats| stats.queued_responses == 0).await
}

#[tokio::test]
async fn i04_what_was_not_verified_before_a_kill_is_not_served_after_it() -> Result<()> {
    let site = Site::new().await?;
    let (right, wrong) = (content(SIZE, 3), content(SIZE, 4));
    let blob = format!("/images/v2/lab/app/blobs/{}", Digest::of(&right));
    site.origin.serve("/plain", Resource::cacheable(right.clone()));
    let more = images(&site);
    let mut killed = 0;
    for (target, path) in [
        ("/files/plain".to_owned(), "/plain"),
        (blob.clone(), blob.as_str()),
    ] {
        let is_known = path != "/plain";
        let trace = site.config.path().join(format!("trace-{is_known}"));
        site.origin.serve(&blob, Resource::cacheable(wrong.clone()));
        let folder = tempfile::tempdir()?;
        let settings = site.settings(folder.path(), &more)?;
        let proxy = settings
            .variable("KATO_KILL_TRACE", &trace.display().to_string())
            .start()
            .await?;
        let begun = passed(&trace);
        let request = proxy.client().get(&target);
        fetch(&proxy, &request).await?;
        if !is_known {
            proxy.wait_until_stored(&request, &right).await?;
        }
        let moments = moments(&trace, begun);
        ensure!(moments.len() >= 2, "{target}: {moments:?}");
        drop(proxy);
        for moment in moments {
            site.origin.serve(&blob, Resource::cacheable(wrong.clone()));
            killed += usize::from(
                one(&site, (&target, is_known), &moment, &right)
                    .await
                    .with_context(|| moment.clone())?,
            );
        }
    }
    ensure!(killed >= 4, "the program was killed {killed} times");
    Ok(())
}

/// Kills at `moment`, and asks the next life; whether the program was killed.
async fn one(site: &Site, (target, is_known): (&str, bool), moment: &str, right: &[u8]) -> Result<bool> {
    let folder = tempfile::tempdir()?;
    let more = images(site);
    let settings = site.settings(folder.path(), &more)?;
    let mut proxy = settings.variable("KATO_KILL_AT", moment).start().await?;
    let request = proxy.client().get(target);
    let is_killed = fetch(&proxy, &request).await.is_err();
    // The next life begins when this one is over.
    if is_killed {
        proxy.ended().await?;
    } else {
        proxy.kill().await?;
    }
    let proxy = site.start_on(folder.path(), &more).await?;
    let request = proxy.client().get(target);
    let (stored, held) = request
        .clone()
        .header("cache-control", "only-if-cached")
        .fetch()
        .await?;
    if is_known || stored.status != 200 {
        ensure!(stored.status == 504, "served from the store: {}", stored.status);
    } else {
        assert_same(&held, right, "what was stored before the kill");
    }
    // It is put right: the next request gets what it should.
    let path = target.strip_prefix("/files").unwrap_or(target);
    site.origin.serve(path, Resource::cacheable(right.to_vec()));
    let (answer, got) = request.fetch().await?;
    ensure!(answer.status == 200, "{answer:?}");
    assert_same(&got, right, "after the kill");
    Ok(is_killed)
}
