//! `kato-proxy doctor` on the machine of a client.

use std::process::{Command, Output};

use anyhow::{Context, Result};
use integration_tests::{
    command,
    origin::{Fault, Resource},
    proxy,
    published::PACKUMENT,
};
use serde_json::Value;

use crate::{
    node,
    site::{Site, document, run},
};

fn doctor(server: &str) -> Result<Command> {
    let mut doctor = command::new(proxy::program()?);
    doctor.args(["doctor", "--server", server, "--json"]);
    Ok(doctor)
}

/// The state of the check about `subject`.
fn state(output: &Output, subject: &str) -> Result<String> {
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let checks = report["checks"].as_array().context("checks")?;
    let check = checks.iter().find(|check| check["subject"] == subject);
    let check = check.with_context(|| format!("no check of {subject} in {report:#}"))?;
    Ok(check["state"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_on_which_clients_work_is_well() -> Result<()> {
    let site = Site::start("crates", "cargo").await?;
    let config = format!(r#"{{"dl":"{}"}}"#, site.files.url("/crates"));
    site.index
        .serve("/config.json", document(config, "application/json"));
    let output = run(doctor(&site.url())?).await?;
    for subject in [
        "name",
        "connection",
        "answer",
        "clock",
        "upstream crates",
        "environment",
    ] {
        assert_eq!(state(&output, subject)?, "ok", "{subject}");
    }
    assert_eq!(output.status.code(), Some(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_not_reached_and_a_server_that_is_none_are_failures() -> Result<()> {
    let mut site = Site::start("crates", "cargo").await?;
    site.cut_off().await;
    let output = run(doctor(&site.url())?).await?;
    assert_eq!(state(&output, "answer")?, "ok");
    assert_eq!(state(&output, "upstream crates")?, "failed");
    assert_eq!(output.status.code(), Some(1));

    let gone = site.index.url("/");
    let output = run(doctor(&gone)?).await?;
    assert_eq!(state(&output, "connection")?, "failed");
    assert_eq!(output.status.code(), Some(1));
    Ok(())
}

/// The cache does what it is for.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_away_is_a_warning_while_content_of_it_is_served() -> Result<()> {
    let mut site = Site::start("npm", "npm").await?;
    node::publish(&site)?;
    let (answer, packument) = site.proxy.client().fetch(&format!("/npm{PACKUMENT}")).await?;
    assert_eq!(answer.status, 200);
    assert!(!packument.is_empty());
    let stored = site.proxy.client().get(&format!("/npm{PACKUMENT}"));
    site.proxy.wait_until_stored(&stored, &packument).await?;
    site.cut_off().await;
    let output = run(doctor(&site.url())?).await?;
    assert_eq!(state(&output, "upstream npm")?, "warning", "{output:?}");
    assert_eq!(output.status.code(), Some(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_that_beat_what_clients_were_told_are_named() -> Result<()> {
    let site = Site::start("files", "generic").await?;
    let mut doctor = doctor(&site.url())?;
    doctor
        .env("HTTP_PROXY", site.url())
        .env("PIP_CERT", "/etc/ssl/some.pem")
        .env("PIP_INDEX_URL", "https://index.example/simple/");
    let output = run(doctor).await?;
    for subject in ["HTTP_PROXY", "PIP_INDEX_URL"] {
        assert_eq!(state(&output, subject)?, "warning");
    }
    assert!(
        state(&output, "PIP_CERT").is_err(),
        "no client meets a certificate of this server"
    );
    assert_eq!(output.status.code(), Some(0), "nothing has failed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_probe_of_a_registry_is_answered_by_the_registry_and_its_clock_is_looked_at() -> Result<()> {
    let site = Site::start("images", "registry").await?;
    let year_ago = Resource::new("{}")
        .header("content-type", "application/json")
        .header("date", "Wed, 01 Jan 2025 00:00:00 GMT");
    site.index.serve("/v2/", year_ago);
    let output = run(doctor(&site.url())?).await?;
    assert_eq!(state(&output, "upstream images")?, "ok");
    assert_eq!(state(&output, "upstream images clock")?, "warning");
    assert!(!site.index.requests("/v2/").is_empty());

    let mut gone = Site::start("images", "registry").await?;
    gone.cut_off().await;
    let output = run(doctor(&gone.url())?).await?;
    // The door of the cache itself answers all the same.
    assert_eq!(state(&output, "upstream images")?, "failed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_every_upstream_of_a_kind_has_and_this_one_has_not_is_a_failure() -> Result<()> {
    let site = Site::start("release", "release").await?;
    let output = run(doctor(&site.url())?).await?;
    assert_eq!(state(&output, "upstream release")?, "failed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_lists_no_folders_is_well_and_one_that_wants_credentials_is_named() -> Result<()> {
    let site = Site::start("deb", "packages").await?;
    for (status, expected) in [(403, "ok"), (401, "warning")] {
        let refused = Resource::new("no").fault(Fault::Status(status));
        site.index.serve("/dists/", refused);
        let output = run(doctor(&site.url())?).await?;
        assert_eq!(state(&output, "upstream deb")?, expected, "{status}");
    }
    Ok(())
}

/// One fault, one judgement: something that all servers of a kind have is not there.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_has_not_what_its_kind_has_is_said_for_every_kind() -> Result<()> {
    for (kind, expected) in [
        ("cargo", "failed"),
        ("registry", "failed"),
        ("release", "failed"),
        ("pypi", "warning"),
        ("npm", "warning"),
        ("packages", "ok"),
        ("generic", "ok"),
    ] {
        let site = Site::start("up", kind).await?;
        let output = run(doctor(&site.url())?).await?;
        assert_eq!(state(&output, "upstream up")?, expected, "{kind}");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("answers 404 Not Found for `"), "{kind}: {said}");
        assert_eq!(
            said.contains("its path included"),
            expected != "ok",
            "{kind}: {said}"
        );
    }
    Ok(())
}
