//! A release whose publisher signed a list that is not that of the archive: a node finds it while it stages, and so does whoever signs.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::rand::SystemRandom;
use integration_tests::{
    node::TestNode,
    releases::{Repository, TestRelease},
    static_server::StaticServer,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tough::{
    editor::signed::SignedRole,
    key_source::{KeySource, LocalKeySource},
    schema::{KeyHolder, Root, Signed, Targets},
};

use super::{TRUST, document, kato, overwrite, refused, text};

/// The archive that is exchanged.
const APP: &str = "app-2.0.0.tar.zst";
/// The document that lists what should be in it.
const RELEASE: &str = "releases/2.0.0/release.json";

/// 2.0.0 as it should be, built and signed in `repository`, gets the archive of `other`; its list stays. Gives the build folder, not signed.
fn forge(repository: &Repository, other: &TestRelease) -> Result<std::path::PathBuf> {
    let build = repository.build(&TestRelease::standard("2.0.0"))?;
    let (dir, keys) = (repository.dir(), repository.keys());
    document(&[
        "release",
        "sign",
        text(&build),
        "--dir",
        text(&dir),
        "--keys",
        text(&keys),
    ])?;
    let folder = build.join("other");
    other.describe(&folder.join("description"))?;
    let other_build = folder.join("build");
    document(&[
        "release",
        "build",
        text(&folder.join("description")),
        "--out",
        text(&other_build),
        "--no-upgrader",
    ])?;
    let read = |build: &Path| -> Result<Value> {
        Ok(serde_json::from_slice(&fs::read(
            build.join("targets").join(RELEASE),
        )?)?)
    };
    let (mut release, other) = (read(&build)?, read(&other_build)?);
    let artifact = other["artifacts"][APP].clone();
    let target = artifact["target"].as_str().context("no target")?;
    fs::copy(
        other_build.join("targets").join(target),
        build.join("targets").join(target),
    )?;
    release["artifacts"][APP] = artifact;
    overwrite(
        &build.join("targets").join(RELEASE),
        &serde_json::to_vec(&release)?,
    )?;
    fs::remove_dir_all(&folder)?;
    Ok(build)
}

/// Signs by hand what `kato release sign` refuses to.
async fn sign_by_hand(repository: &Repository, build: &Path) -> Result<()> {
    let path = build.join("targets.json");
    let mut signed: Value = serde_json::from_slice(&fs::read(&path)?)?;
    for name in [RELEASE.to_owned(), forged_target(build)?] {
        let bytes = fs::read(build.join("targets").join(&name))?;
        signed["signed"]["targets"][name] =
            json!({"length": bytes.len(), "hashes": {"sha256": kato_shared::Digest::of(&bytes).hex()}});
    }
    let targets: Signed<Targets> = serde_json::from_value(signed)?;
    let root: Signed<Root> = serde_json::from_slice(&fs::read(repository.root())?)?;
    let key = repository.keys().join("targets-1.pk8");
    let keys: [Box<dyn KeySource>; 1] = [Box::new(LocalKeySource { path: key })];
    let holder = KeyHolder::Root(root.signed);
    let signed = SignedRole::new(targets.signed, &holder, &keys, &SystemRandom::new()).await?;
    overwrite(&path, signed.buffer())
}

fn forged_target(build: &Path) -> Result<String> {
    let release: Value = serde_json::from_slice(&fs::read(build.join("targets").join(RELEASE))?)?;
    Ok(release["artifacts"][APP]["target"]
        .as_str()
        .context("no target")?
        .to_owned())
}

/// A release that differs in the archive alone, and what is said about it.
fn forgeries() -> [(&'static str, TestRelease, &'static str); 3] {
    let with = |path: &str, content: Vec<u8>, mode: u32| {
        let mut release = TestRelease::standard("2.0.0");
        release.modules[0].files.retain(|(own, ..)| own != path);
        release.modules[0].files.push((path.to_owned(), content, mode));
        release
    };
    [
        (
            "a file that nobody lists, with the rights of its owner",
            with("su", b"#!/bin/sh\n".to_vec(), 0o6755),
            "`su`: the release does not list it",
        ),
        (
            "more bytes than are reserved",
            with("VERSION", vec![0; 8 << 20], 0o644),
            "`VERSION`: expected 35 bytes unpacked in all, found 8388608 up to here",
        ),
        (
            "other rights than are listed",
            with("bin/run", b"#!/bin/sh\necho 2.0.0\n".to_vec(), 0o4755),
            "`bin/run`: expected the mode 0755, found 4755",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn r37_an_archive_is_what_the_signed_release_lists_or_nothing_is_changed() -> Result<()> {
    for (label, other, expected) in forgeries() {
        let folder: TempDir = tempfile::tempdir()?;
        let repository = Repository::empty(folder.path()).await?;
        repository.publish(&TestRelease::standard("1.0.0")).await?;
        let build = forge(&repository, &other)?;
        let (dir, keys) = (repository.dir(), repository.keys());
        let words = |verb: &'static str| -> [String; 7] {
            let [build, dir, keys] = [&build, &dir, &keys].map(|path| text(path).to_owned());
            [
                "release".into(),
                verb.into(),
                build,
                "--dir".into(),
                dir,
                "--keys".into(),
                keys,
            ]
        };
        let sign = words("sign");
        let said = refused(&sign.iter().map(String::as_str).collect::<Vec<_>>(), TRUST)?;
        assert!(said.contains(expected), "{label}: {said}");

        sign_by_hand(&repository, &build).await?;
        let published = kato(&words("publish"))?;
        ensure!(
            published.status.success(),
            "{label}: {}",
            String::from_utf8_lossy(&published.stderr)
        );
        let host = StaticServer::start(&repository.dir()).await?;
        let node = TestNode::new(
            &folder.path().join("node"),
            &["controller", "dea"],
            &host.url(),
            &repository.root(),
        )?;
        node.upgrade_ends(0, &["--version", "1.0.0"])?;
        let (before, retired) = (node.product()?, node.calls("retire"));
        let said = node.upgrade_ends(TRUST, &[])?;
        assert!(
            said.contains(expected) && said.contains("nothing was changed"),
            "{label}: {said}"
        );
        assert_eq!(
            (node.product()?, node.calls("retire")),
            (before, retired),
            "{label}"
        );
        assert_eq!(node.installed().as_deref(), Some("1.0.0"), "{label}");
    }
    Ok(())
}
