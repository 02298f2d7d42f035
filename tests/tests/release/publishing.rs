//! What a publisher does, with the real program.

use std::{fs, path::Path};

use anyhow::Result;
use integration_tests::{
    releases::{Repository, TestRelease},
    static_server::StaticServer,
};
use serde_json::json;

use super::{USAGE, document, kato, overwrite, refused, snapshot, text, verify_url};

/// Describes the standard release `version` in `folder` and gives the description folder and the build folder.
fn described(folder: &Path, version: &str) -> Result<(String, String)> {
    let description = folder.join(format!("description-{version}"));
    TestRelease::standard(version).describe(&description)?;
    let build = folder.join(format!("build-{version}"));
    Ok((text(&description).into(), text(&build).into()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_built_signed_published_and_verified_by_the_commands() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (repo, keys) = (folder.path().join("repo"), folder.path().join("keys"));
    let (repo, keys) = (text(&repo), text(&keys));
    let made = document(&[
        "release",
        "init",
        "--dir",
        repo,
        "--keys",
        keys,
        "--root-keys",
        "3",
        "--root-threshold",
        "2",
    ])?;
    assert_eq!(made["root_threshold"], 2);
    assert_eq!(fs::read_dir(keys)?.count(), 6);

    let mut served: Vec<(std::path::PathBuf, Vec<u8>)> = Vec::new();
    for (count, version) in [(1, "1.0.0"), (2, "2.0.0")] {
        let (description, build) = described(folder.path(), version)?;
        let said = document(&["release", "build", &description, "--out", &build, "--no-upgrader"])?;
        assert_eq!(said["version"], version);
        let signed = document(&["release", "sign", &build, "--dir", repo, "--keys", keys])?;
        assert_eq!(signed["targets_version"], count);
        let published = document(&["release", "publish", &build, "--dir", repo, "--keys", keys])?;
        assert_eq!(published["timestamp"], count);
        // What was served before is served still, but for the timestamp.
        let now = snapshot(Path::new(repo))?;
        for (path, bytes) in &served {
            let stays = now.iter().any(|(same, kept)| same == path && kept == bytes);
            assert!(
                stays || path.ends_with("metadata/timestamp.json"),
                "{}",
                path.display()
            );
        }
        served = now;
    }
    let root = format!("{repo}/metadata/1.root.json");
    let local = document(&["release", "verify", "--root", &root, "--dir", repo])?;
    assert_eq!(local["versions"], json!(["1.0.0", "2.0.0"]));
    let host = StaticServer::start(Path::new(repo)).await?;
    assert_eq!(document(&verify_url(&root, host.url().as_str()))?, local);
    // Each target once, and nothing but the repository's own names.
    assert!(
        host.bodies()
            .iter()
            .all(|(path, count)| *count == 1 || !path.starts_with("/targets/"))
    );
    Ok(())
}

#[test]
fn the_same_description_gives_the_same_bytes() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (description, build) = described(folder.path(), "1.0.0")?;
    let again = format!("{build}-again");
    for out in [&build, &again] {
        let time = "2026-11-20T00:00:00Z";
        document(&[
            "release",
            "build",
            &description,
            "--out",
            out,
            "--no-upgrader",
            "--published",
            time,
        ])?;
    }
    let relative = |folder: &str| -> Result<Vec<_>> {
        let files = snapshot(Path::new(folder))?.into_iter();
        Ok(files
            .map(|(path, bytes)| (path.strip_prefix(folder).map(Path::to_owned), bytes))
            .collect())
    };
    assert_eq!(relative(&build)?, relative(&again)?);
    Ok(())
}

#[test]
fn the_upgrader_itself_is_shipped_by_default() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (description, build) = described(folder.path(), "1.0.0")?;
    let said = document(&["release", "build", &description, "--out", &build])?;
    let triple = kato_shared::release::layout::HOST_TRIPLE;
    let program = fs::metadata(integration_tests::binaries::built("kato")?)?;
    assert_eq!(said["upgrader"][triple]["size"], program.len());
    Ok(())
}

#[test]
fn a_mistake_in_the_description_is_named_with_its_line_and_what_was_meant() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (description, build) = described(folder.path(), "1.0.0")?;
    let file = Path::new(&description).join("release.toml");
    let good = fs::read_to_string(&file)?;
    let arguments = ["release", "build", &description, "--out", &build, "--no-upgrader"];
    for (wrong, right, said) in [
        ("polcy", "policy", "unknown key `polcy`"),
        ("\"versionned\"", "\"versioned\"", "unknown value `versionned`"),
    ] {
        overwrite(&file, good.replacen(right, wrong, 1).as_bytes())?;
        let output = kato(&arguments)?;
        let stderr = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(USAGE), "{stderr}");
        let line = 1 + good.split(right).next().unwrap_or_default().matches('\n').count();
        for part in [
            format!("release.toml:{line}: "),
            said.to_owned(),
            format!("did you mean `{}`", right.trim_matches('"')),
        ] {
            assert!(stderr.contains(&part), "`{part}` is not in: {stderr}");
        }
    }
    overwrite(
        &file,
        good.replacen("after = [\"app\"]", "after = [\"nobody\"]", 1)
            .as_bytes(),
    )?;
    let stderr = refused(&arguments, USAGE)?;
    assert!(
        stderr.contains("the module `console` comes after `nobody`"),
        "{stderr}"
    );
    assert!(!Path::new(&build).exists());
    Ok(())
}

#[test]
fn a_policy_that_this_build_does_not_know_is_refused_by_name() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let repository = runtime.block_on(Repository::empty(folder.path()))?;
    let build = repository.build(&TestRelease::standard("1.0.0"))?;
    let document = build.join("targets/releases/1.0.0/release.json");
    let altered = fs::read_to_string(&document)?.replacen("\"overlay\"", "\"teleport\"", 1);
    overwrite(&document, altered.as_bytes())?;
    let (dir, keys) = (repository.dir(), repository.keys());
    let stderr = refused(
        &[
            "release",
            "sign",
            text(&build),
            "--dir",
            text(&dir),
            "--keys",
            text(&keys),
        ],
        USAGE,
    )?;
    assert!(
        stderr.contains(
            "the module `etc` asks for policy `teleport`, this upgrader knows versioned, replace, overlay"
        ),
        "{stderr}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_release_never_changes() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let repository = Repository::with_two_releases(folder.path()).await?;
    let before = snapshot(&repository.dir())?;
    let build = repository.build(&TestRelease::standard("1.0.0").with_payload(10))?;
    let (dir, keys) = (repository.dir(), repository.keys());
    let stderr = refused(
        &[
            "release",
            "sign",
            text(&build),
            "--dir",
            text(&dir),
            "--keys",
            text(&keys),
        ],
        USAGE,
    )?;
    assert!(
        stderr.contains("`releases/1.0.0/release.json` is published already"),
        "{stderr}"
    );
    assert_eq!(snapshot(&repository.dir())?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_and_publishing_need_their_own_keys_only_and_the_right_ones() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let repository = Repository::empty(folder.path()).await?;
    let other_folder = tempfile::tempdir()?;
    let other = Repository::empty(other_folder.path()).await?;
    let build = repository.build(&TestRelease::standard("1.0.0"))?;
    let (dir, keys, other_keys) = (repository.dir(), repository.keys(), other.keys());
    let step = |step, keys| ["release", step, text(&build), "--dir", text(&dir), "--keys", keys];
    assert!(refused(&step("publish", text(&keys)), USAGE)?.contains("was not signed"));
    assert!(
        refused(&step("sign", text(&other_keys)), USAGE)?.contains("signing the targets metadata failed")
    );

    // Two machines: one with the targets key, one with the online keys.
    let (signer, publisher) = (folder.path().join("signer"), folder.path().join("publisher"));
    for (machine, roles) in [
        (&signer, vec!["targets"]),
        (&publisher, vec!["snapshot", "timestamp"]),
    ] {
        fs::create_dir(machine)?;
        for role in roles {
            let name = format!("{role}-1.pk8");
            fs::copy(keys.join(&name), machine.join(&name))?;
        }
    }
    document(&step("sign", text(&signer)))?;
    document(&step("publish", text(&publisher)))?;
    assert!(
        refused(&step("publish", text(&publisher)), USAGE)?.contains("signed as version 1 of the targets")
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_stops_before_the_timestamp_changes_nothing_and_can_be_repeated() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let repository = Repository::empty(folder.path()).await?;
    repository.publish(&TestRelease::standard("1.0.0")).await?;
    let timestamp = repository.dir().join("metadata/timestamp.json");
    let before = fs::read(&timestamp)?;
    repository.publish(&TestRelease::standard("2.0.0")).await?;
    // Everything but the last step is done.
    overwrite(&timestamp, &before)?;
    let (root, dir, keys) = (repository.root(), repository.dir(), repository.keys());
    let verify = ["release", "verify", "--root", text(&root), "--dir", text(&dir)];
    assert_eq!(document(&verify)?["versions"], json!(["1.0.0"]));
    let build = folder.path().join("build-2.0.0");
    document(&[
        "release",
        "publish",
        text(&build),
        "--dir",
        text(&dir),
        "--keys",
        text(&keys),
    ])?;
    assert_eq!(document(&verify)?["versions"], json!(["1.0.0", "2.0.0"]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changed_after_signing_is_not_published() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let repository = Repository::with_two_releases(folder.path()).await?;
    let before = fs::read(repository.dir().join("metadata/timestamp.json"))?;
    let build = repository.build(&TestRelease::standard("3.0.0"))?;
    let (dir, keys) = (repository.dir(), repository.keys());
    let step = |step| {
        [
            "release",
            step,
            text(&build),
            "--dir",
            text(&dir),
            "--keys",
            text(&keys),
        ]
    };
    document(&step("sign"))?;
    let document = build.join("targets/releases/3.0.0/release.json");
    overwrite(&document, b"{}")?;
    assert!(refused(&step("publish"), super::TRUST)?.contains("is not what was signed"));
    assert_eq!(
        fs::read(repository.dir().join("metadata/timestamp.json"))?,
        before
    );
    Ok(())
}

#[test]
fn keys_are_private_are_never_overwritten_and_never_served() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir()?;
    let (repo, keys) = (folder.path().join("repo"), folder.path().join("keys"));
    let inside = repo.join("keys");
    let init = |keys| ["release", "init", "--dir", text(&repo), "--keys", keys];
    assert!(refused(&init(text(&inside)), USAGE)?.contains("served to everybody"));
    document(&init(text(&keys)))?;
    for entry in fs::read_dir(&keys)? {
        assert_eq!(entry?.metadata()?.permissions().mode() & 0o777, 0o600);
    }
    let before = snapshot(&keys)?;
    assert!(refused(&init(text(&keys)), USAGE)?.contains("exists already"));
    assert_eq!(snapshot(&keys)?, before);
    let mut more = init(text(&keys)).to_vec();
    more.extend(["--root-threshold", "2"]);
    assert!(refused(&more, USAGE)?.contains("a threshold of 2"));
    Ok(())
}
