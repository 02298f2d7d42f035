//! The requests of clients that cannot run here, sent again one by one (`tests/data/registry-exchanges.txt`): every one is answered as
//! a registry would, the second client costs the registry no blob, and with the registry off all of it comes from the store.

use anyhow::{Context, Result};

use crate::{
    asking::until_held,
    scripted::{Cache, Scripted, Small, cache},
};

const EXCHANGES: &str = include_str!("../../data/registry-exchanges.txt");

/// The accepted media types of containerd's resolver, and so of the engines that have it inside.
const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*";

/// The name of a client, and its requests.
fn exchanges() -> Vec<(&'static str, Vec<(&'static str, &'static str)>)> {
    let parts = EXCHANGES.split("\n[").skip(1);
    parts
        .filter_map(|part| part.split_once("]\n"))
        .map(|(client, lines)| {
            let lines = lines.lines().filter(|line| !line.starts_with('#'));
            (client, lines.filter_map(|line| line.split_once(' ')).collect())
        })
        .collect()
}

async fn replay(cache: &Cache, image: &Small, (client, requests): &(&str, Vec<(&str, &str)>)) -> Result<()> {
    for (method, target) in requests {
        let target = target
            .replace("{manifest}", &image.digest())
            .replace("{layer}", &image.blob());
        let said = cache.ask(method, &target, &[("accept", ACCEPT)]).await?;
        assert_eq!(said.status, 200, "{client}: {method} {target}: {said:?}");
        let expected = if *method == "HEAD" {
            &[]
        } else if target.contains("/blobs/") {
            image.layer.as_slice()
        } else if target.contains("/manifests/") {
            image.manifest.as_slice()
        } else {
            b"{}"
        };
        assert_eq!(said.body, expected, "{client}: {method} {target}");
        let is_manifest = target.contains("/manifests/");
        let digest = said.header("docker-content-digest");
        assert_eq!(
            digest.filter(|_| is_manifest),
            is_manifest.then_some(image.digest()).as_deref(),
            "{client}: {method} {target}"
        );
        // A client that resolves by HEAD takes the size from there.
        if is_manifest {
            let length = said.header("content-length").context("no length")?;
            assert_eq!(length, image.manifest.len().to_string());
        }
    }
    Ok(())
}

#[tokio::test]
async fn recorded_exchanges_are_answered_as_by_a_registry_and_again_with_the_registry_off() -> Result<()> {
    let all = exchanges();
    assert!(all.len() >= 4, "{all:?}");
    for exchange in &all {
        let mut registry = Scripted::start().await?;
        let image = Small::new("one");
        registry.push("team/app", "v1", &image);
        let keys = "[upstream.registry]\ntag_ttl = \"0s\"\naliases = [\"hub.example\"]\n";
        let cache = cache(&format!(
            "[registry]\ndefault = \"lab\"\n{}",
            registry.section("lab", keys)
        ))
        .await?;
        replay(&cache, &image, exchange).await?;
        let blob = format!("/v2/team/app/blobs/{}", image.blob());
        replay(&cache, &image, exchange).await?;
        assert_eq!(registry.methods(&blob), ["GET"], "{}", exchange.0);
        if exchange
            .1
            .iter()
            .any(|(_, target)| target.contains("manifests/v1"))
        {
            until_held(&cache, "/v2/lab/team/app/manifests/v1").await?;
        }
        registry.origin.stop().await;
        replay(&cache, &image, exchange).await?;
    }
    Ok(())
}
