//! The commands of a bundle's README.txt: other people's programs say the same as ours.

use std::fs;

use anyhow::{Context, Result, ensure};
use integration_tests::command;

use crate::{Site, only};

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_read_by_sha256sum_minisign_and_skopeo() -> Result<()> {
    let site = Site::new(12).await?;
    let (store, key, out) = (site.at("here"), site.at("key"), site.at("out"));
    site.ok(&Site::export(&store, &key, &out), &[])?;
    let bundle = only(&site.path("out"))?;
    let readme = fs::read_to_string(bundle.join("README.txt"))?;
    ensure!(
        readme.contains("sha256sum -c") && readme.contains("minisign -Vm"),
        "{readme}"
    );
    let mut sums = command::new("sha256sum");
    sums.args(["-c", "--quiet", "SHA256SUMS"]).current_dir(&bundle);
    command::success("sha256sum", command::run(sums, crate::SOON, &[])?)?;
    let mut minisign = command::new("minisign");
    minisign
        .args(["-Vm", "BUNDLE.json", "-p", &site.at("key.pub")])
        .current_dir(&bundle);
    let said = command::success("minisign", command::run(minisign, crate::SOON, &[])?)?;
    ensure!(said.contains("seq:1"), "{said}");
    let from = format!("oci:{}:{}", bundle.display(), site.image);
    let to = format!("dir:{}", site.at("copied"));
    command::ok(&[
        "skopeo",
        "--insecure-policy",
        "copy",
        "--preserve-digests",
        &from,
        &to,
    ])?;
    ensure!(
        site.path("copied").join("manifest.json").exists(),
        "nothing was copied"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_unpacked_by_tar_into_a_folder_that_is_the_same() -> Result<()> {
    let site = Site::new(12).await?;
    let (store, key, out) = (site.at("here"), site.at("key"), site.at("out"));
    let mut export = Site::export(&store, &key, &out);
    export.extend(["--volume", "131072"]);
    site.ok(&export, &[])?;
    let bundle = only(&site.path("out"))?;
    // The very commands that the page tells.
    let readme = fs::read_to_string(bundle.join("test-000001.head").join("README.txt"))?;
    let commands: Vec<&str> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("  "))
        .skip_while(|line| !line.starts_with("mkdir"))
        .take_while(|line| !line.starts_with("minisign"))
        .collect();
    ensure!(commands.len() == 4, "{commands:?}");
    let script = format!(
        "set -e\n{}\nsha256sum -c --quiet SHA256SUMS\n",
        commands.join("\n")
    );
    let mut shell = command::new("sh");
    shell.args(["-c", &script]).current_dir(&bundle);
    command::success("sh", command::run(shell, crate::SOON, &[])?)?;
    let said = site.ok(
        &[
            "bundle",
            "verify",
            &bundle.display().to_string(),
            "--trust",
            &site.at("key.pub"),
            "--json",
        ],
        &[],
    )?;
    let report: serde_json::Value = serde_json::from_str(&said)?;
    let findings = report["findings"].as_array().context("a list of findings")?;
    ensure!(findings.is_empty(), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn verbs_end_with_the_codes_of_the_registry() -> Result<()> {
    let site = Site::new(4).await?;
    let (store, key, out) = (site.at("here"), site.at("key"), site.at("out"));
    let unproven: Vec<&str> = Site::export(&store, &key, &out)
        .into_iter()
        .filter(|word| !["--waive", "a test"].contains(word))
        .collect();
    ensure!(
        site.run(&unproven, &[])?.status.code() == Some(2),
        "an export without proof"
    );
    let planned = site.ok(
        &[
            "bundle",
            "plan",
            "--cache-dir",
            &store,
            "--series",
            "test",
            "--json",
        ],
        &[],
    )?;
    let plan: serde_json::Value = serde_json::from_str(&planned)?;
    ensure!(plan["new_contents"] == site.contents.len(), "{planned}");
    ensure!(!site.path("here/snapshots").exists(), "a plan left something");
    site.ok(&Site::export(&store, &key, &out), &[])?;
    let bundle = only(&site.path("out"))?.display().to_string();
    site.ok(
        &[
            "bundle",
            "keygen",
            "--secret",
            &site.at("other"),
            "--public",
            &site.at("other.pub"),
        ],
        &[],
    )?;
    let refused = site.run(
        &[
            "bundle",
            "import",
            &bundle,
            "--cache-dir",
            &site.at("there"),
            "--trust",
            &site.at("other.pub"),
        ],
        &[],
    )?;
    ensure!(refused.status.code() == Some(26), "{refused:?}");
    ensure!(!site.path("there").exists(), "a refused bundle left something");
    let info = site.ok(&["bundle", "info", &bundle], &[])?;
    ensure!(info.contains("not verified"), "{info}");
    Ok(())
}
