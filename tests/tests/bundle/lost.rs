//! A bundle that was lost on its way, and one that has nothing new: by the commands that people on both sides type.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use integration_tests::{origin::Resource, proxy::Settings};
use kato_shared::Digest;
use serde_json::Value;

use crate::{Site, served::all_is_served};

/// The bundle of number `seq` in `out`.
fn bundle(site: &Site, seq: u32) -> String {
    site.at(&format!("out/test-{seq:06}"))
}

fn export(site: &Site, more: &[&str]) -> Result<()> {
    let (store, key, out) = (site.at("here"), site.at("key"), site.at("out"));
    let mut words = Site::export(&store, &key, &out);
    words.extend(more);
    site.ok(&words, &[]).map(drop)
}

/// Takes bundle `seq` in on the other side; returns the exit code and what was said.
fn import(site: &Site, seq: u32) -> Result<(Option<i32>, Value)> {
    let (there, public) = (site.at("there"), site.at("key.pub"));
    let bundle = bundle(site, seq);
    let said = site.run(
        &[
            "bundle",
            "import",
            &bundle,
            "--cache-dir",
            &there,
            "--trust",
            &public,
            "--json",
        ],
        &[],
    )?;
    let document = serde_json::from_slice(&said.stdout).with_context(|| format!("{said:?}"))?;
    Ok((said.status.code(), document))
}

fn size(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for item in fs::read_dir(folder)? {
        let item = item?;
        let about = item.metadata()?;
        sum += if about.is_dir() {
            size(&item.path())?
        } else {
            about.len()
        };
    }
    Ok(sum)
}

/// Payloads that a bundle carries.
fn payloads(site: &Site, seq: u32) -> Result<usize> {
    let members = fs::read_to_string(Path::new(&bundle(site, seq)).join("MEMBERS.jsonl"))?;
    Ok(members.matches("\"role\":\"payload\"").count())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_new_since_the_last_one_is_less_than_a_mebibyte() -> Result<()> {
    let mut site = Site::new(12).await?;
    site.grow("large", 3 << 20).await?;
    export(&site, &[])?;
    ensure!(size(Path::new(&bundle(&site, 1)))? > 3 << 20, "all of it");
    export(&site, &["--since", "1"])?;
    let small = size(Path::new(&bundle(&site, 2)))?;
    ensure!(small < 1 << 20, "{small} bytes");
    ensure!(payloads(&site, 2)? == 0, "it has payloads");
    ensure!(import(&site, 1)?.0 == Some(0), "the first");
    let (code, said) = import(&site, 2)?;
    ensure!(code == Some(0) && said["active"]["seq"] == 2, "{said}");
    all_is_served(&site).await
}

/// The site signs what it has; an exporter that knows its key believes that, and no other receipt.
#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_is_believed_by_its_signature() -> Result<()> {
    let site = Site::new(4).await?;
    export(&site, &[])?;
    let (secret, public) = (site.at("site.key"), site.at("site.pub"));
    site.ok(
        &["bundle", "keygen", "--secret", &secret, "--public", &public],
        &[],
    )?;
    let (bundle, there, trust, receipt) = (
        bundle(&site, 1),
        site.at("there"),
        site.at("key.pub"),
        site.at("receipt.json"),
    );
    let import = [
        "bundle",
        "import",
        &bundle,
        "--cache-dir",
        &there,
        "--trust",
        &trust,
    ];
    let signed = ["--receipt", &receipt, "--receipt-key", &secret, "--site", "south"];
    site.ok(&[&import[..], &signed].concat(), &[])?;
    export(&site, &["--since", &receipt, "--receipt-trust", &public])?;
    ensure!(payloads(&site, 2)? == 0, "the site has all of it");

    let (store, key, out) = (site.at("here"), site.at("key"), site.at("out"));
    let refused = |words: &[&str]| -> Result<()> {
        let mut all = Site::export(&store, &key, &out);
        all.extend(words);
        let said = site.run(&all, &[])?;
        ensure!(said.status.code() == Some(26), "{said:?}");
        Ok(())
    };
    // The exporter's own key is not the site's; and a receipt that was changed is nobody's.
    refused(&["--since", &receipt, "--receipt-trust", &trust])?;
    let text = fs::read_to_string(&receipt)?.replace("south", "north");
    integration_tests::published::put(&site.path(""), "receipt.json", text.as_bytes())?;
    refused(&["--since", &receipt, "--receipt-trust", &public])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_bundle_is_named_by_the_next_one_and_healed_by_what_the_site_asks_for() -> Result<()> {
    let mut site = Site::new(6).await?;
    export(&site, &[])?;
    ensure!(import(&site, 1)?.0 == Some(0), "the first");
    site.grow("in-the-lost-one", 5000).await?;
    export(&site, &["--since", "1"])?;
    site.grow("in-the-next-one", 6000).await?;
    export(&site, &["--since", "2"])?;

    // The second never arrives.
    let (code, said) = import(&site, 3)?;
    ensure!(code == Some(75), "{said}");
    ensure!(said["stored"] == 6000, "what it has comes in: {said}");
    ensure!(said["active"]["seq"] == 1, "the one before stays: {said}");
    let request = fs::read_to_string(site.path("there/request.json"))?;
    ensure!(request.contains("/pool/in-the-lost-one"), "{request}");
    ensure!(!request.contains("/pool/in-the-next-one"), "{request}");

    export(&site, &["--satisfy", &site.at("there/request.json")])?;
    ensure!(payloads(&site, 4)? == 1, "what was asked for, and nothing else");
    let (code, said) = import(&site, 4)?;
    ensure!(code == Some(0) && said["active"]["seq"] == 4, "{said}");
    all_is_served(&site).await
}

/// Scripts tell tampering from a medium that is late by the exit code.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_ends_with_21_and_what_is_missing_with_75() -> Result<()> {
    let site = Site::new(4).await?;
    export(&site, &[])?;
    let name = Digest::of(&site.contents[1].1).hex();
    let blob = Path::new(&bundle(&site, 1)).join("blobs/sha256").join(name);
    let good = fs::read(&blob)?;
    let mut bytes = good.clone();
    bytes[7] ^= 1;
    let put = |bytes: &[u8]| kato_shared::durable::write(&blob, bytes, 0o644);
    put(&bytes)?;
    ensure!(import(&site, 1)?.0 == Some(21), "a byte is wrong");
    fs::remove_file(&blob)?;
    ensure!(import(&site, 1)?.0 == Some(75), "a file is missing");
    put(&good)?;
    ensure!(import(&site, 1)?.0 == Some(0), "all is well");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistyped_folder_is_no_empty_store() -> Result<()> {
    let site = Site::new(1).await?;
    let nowhere = site.at("nowhere");
    for words in [
        &["bundle", "plan", "--series", "test", "--cache-dir", &nowhere][..],
        &Site::export(&nowhere, &site.at("key"), &site.at("out")),
        &["request", "--cache-dir", &nowhere],
    ] {
        let said = site.run(words, &[])?;
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        ensure!(
            said.status.code() == Some(20) && text.contains("holds no store"),
            "{words:?}: {text}"
        );
        ensure!(!site.path("nowhere").exists(), "{words:?} made the folder");
    }
    Ok(())
}

/// A client misses something; the site asks for it, the other side fetches and sends it, and it is served after that one trip: again and again into
/// the same folder, whatever else the other side has come to hold.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_missed_is_served_after_one_trip_there_and_back() -> Result<()> {
    let mut site = Site::new(4).await?;
    export(&site, &[])?;
    ensure!(import(&site, 1)?.0 == Some(0), "the first");
    for (name, seq) in [("missed", 2), ("missed-later", 3)] {
        site.grow(&format!("of-nobody-{seq}"), 9000).await?;
        let path = format!("/pool/{name}");
        let body: Vec<u8> = name.bytes().cycle().take(4000).collect();
        site.origin.serve(&path, Resource::cacheable(body.clone()));
        ensure!(offline(&site, &path).await?.0 == 404, "it is there already");

        let (there, here, request) = (site.at("there"), site.at("here"), site.at("request.json"));
        site.ok(
            &["request", "--cache-dir", &there, "--output", &request, "--clear"],
            &[],
        )?;
        let upstream = format!("pkg={}", site.origin.url("/"));
        site.ok(
            &[
                "prefetch",
                "--cache-dir",
                &here,
                "--upstream",
                &upstream,
                "--request",
                &request,
            ],
            &[],
        )?;
        export(&site, &["--satisfy", &request])?;
        ensure!(payloads(&site, seq)? == 1, "what was asked for, and nothing else");
        let (code, said) = import(&site, seq)?;
        ensure!(code == Some(0) && said["active"]["seq"] == seq, "{said}");
        ensure!(
            offline(&site, &path).await? == (200, body),
            "{path} is not served"
        );
        ensure!(
            offline(&site, "/pool/0.deb").await?.0 == 200,
            "what was there is gone"
        );
    }
    Ok(())
}

/// What a client at the site gets for `path`.
async fn offline(site: &Site, path: &str) -> Result<(u16, Vec<u8>)> {
    let mut mirror = Settings::new(&site.path("there"))
        .upstream("pkg", &site.origin.url("/"))
        .arguments(&["--offline"])
        .start()
        .await?;
    let (answer, body) = mirror.client().fetch(&format!("/pkg{path}")).await?;
    mirror.terminate()?;
    ensure!(mirror.ended().await?.success(), "the mirror failed");
    Ok((answer.status, body))
}
