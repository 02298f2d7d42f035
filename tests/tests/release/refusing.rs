//! What somebody on the way may try, and what a node says to it.

use std::{fs, path::Path, time::Duration};

use anyhow::Result;
use aws_lc_rs::rand::SystemRandom;
use integration_tests::{
    releases::{Repository, TestRelease},
    static_server::{Fault, StaticServer},
};
use jiff::SignedDuration;
use kato_shared::{clock::Clock, release::Version, trust::TrustError};
use kato_upgrader::fetch::{Fetcher, Route};
use serde_json::{Value, json};
use tempfile::TempDir;
use tough::{
    editor::signed::SignedRole,
    key_source::{KeySource, LocalKeySource},
    schema::{KeyHolder, Root, Signed},
};

use super::{DAMAGED, TRUST, TRY_AGAIN, copy_files, document, kato, overwrite, refused, text, verify_url};

/// A published repository, its web server, and a node's memory of it.
struct Site {
    repository: Repository,
    host: StaticServer,
    root: String,
    url: String,
    datastore: String,
    folder: TempDir,
}

impl Site {
    async fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let repository = Repository::with_two_releases(folder.path()).await?;
        Self::of(repository, folder).await
    }

    async fn of(repository: Repository, folder: TempDir) -> Result<Self> {
        let host = StaticServer::start(&repository.dir()).await?;
        Ok(Self {
            root: text(&repository.root()).to_owned(),
            url: host.url().into(),
            datastore: text(&folder.path().join("node")).to_owned(),
            repository,
            host,
            folder,
        })
    }

    /// `kato release verify` as the node with the memory `datastore`.
    fn verify(&self) -> Vec<&str> {
        let mut arguments = verify_url(&self.root, &self.url);
        arguments.extend(["--datastore", &self.datastore]);
        arguments
    }

    fn metadata(&self, name: &str) -> std::path::PathBuf {
        self.repository.dir().join("metadata").join(name)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tampered_target_is_refused_with_both_digests() -> Result<()> {
    let site = Site::new().await?;
    document(&site.verify())?;
    let target = site.repository.target("app-2.0.0.tar.zst")?;
    let mut bytes = fs::read(&target)?;
    let signed = kato_shared::Digest::of(&bytes);
    bytes[10] ^= 1;
    overwrite(&target, &bytes)?;
    let stderr = refused(&site.verify(), TRUST)?;
    for part in [signed.to_string(), kato_shared::Digest::of(&bytes).to_string()] {
        assert!(stderr.contains(&part), "{stderr}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timestamp_that_was_rolled_back_is_refused_even_when_the_cached_one_was_torn() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let repository = Repository::empty(folder.path()).await?;
    repository.publish(&TestRelease::standard("1.0.0")).await?;
    let old = fs::read(repository.dir().join("metadata/timestamp.json"))?;
    repository.publish(&TestRelease::standard("2.0.0")).await?;
    let site = Site::of(repository, folder).await?;
    document(&site.verify())?;
    let new = fs::read(site.metadata("timestamp.json"))?;

    // Whole metadata, all signed, of a state that this node has left behind.
    overwrite(&site.metadata("timestamp.json"), &old)?;
    assert!(refused(&site.verify(), TRUST)?.contains("the timestamp metadata went back from version 2 to 1"));

    // SIGKILL in the middle of a write of the node's cached metadata: the rollback is still seen.
    for (file, torn) in [
        ("timestamp.json", &b"{\"signed\":{\"_ty"[..]),
        ("snapshot.json", b""),
        ("root.json", b"{"),
    ] {
        overwrite(&Path::new(&site.datastore).join(file), torn)?;
    }
    assert!(refused(&site.verify(), TRUST)?.contains("went back from version 2 to 1"));

    // And the node is not stuck.
    overwrite(&site.metadata("timestamp.json"), &new)?;
    document(&site.verify())?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_that_cannot_be_read_is_an_error_and_not_a_first_contact() -> Result<()> {
    let site = Site::new().await?;
    document(&site.verify())?;
    overwrite(
        &Path::new(&site.datastore).join("high-water.json"),
        b"{\"schema\":1,",
    )?;
    assert!(refused(&site.verify(), DAMAGED)?.contains("high-water.json` is damaged"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_root_is_refused() -> Result<()> {
    let site = Site::new().await?;
    let other_folder = tempfile::tempdir()?;
    let other = Repository::empty(other_folder.path()).await?;
    let root = other.root();
    let stderr = refused(&verify_url(text(&root), &site.url), TRUST)?;
    assert!(
        stderr.contains("the timestamp metadata is not signed by enough of the trusted keys"),
        "{stderr}"
    );
    // A repository with other keys in the same place, for a node that knows this one.
    copy_files(&other.dir().join("metadata"), &site.folder.path().join("other"))?;
    other.publish(&TestRelease::standard("9.0.0")).await?;
    let imposter = StaticServer::start(&other.dir()).await?;
    refused(&verify_url(&site.root, imposter.url().as_str()), TRUST)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_needs_the_signatures_of_two_of_three_keys() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let repository = Repository::with_roots(folder.path(), 3, 2).await?;
    repository.publish(&TestRelease::standard("1.0.0")).await?;
    let site = Site::of(repository, folder).await?;
    let whole: Value = serde_json::from_slice(&fs::read(&site.root)?)?;
    let pinned = site.folder.path().join("pinned.json");
    for (kept, good) in [(3, true), (2, true), (1, false)] {
        let mut root = whole.clone();
        let signatures = root["signatures"].as_array_mut().expect("signatures are a list");
        assert_eq!(signatures.len(), 3);
        signatures.truncate(kept);
        overwrite(&pinned, &serde_json::to_vec(&root)?)?;
        let arguments = verify_url(text(&pinned), &site.url);
        if good {
            document(&arguments)?;
        } else {
            let stderr = refused(&arguments, TRUST)?;
            assert!(
                stderr.contains("the pinned root is not valid root metadata"),
                "{stderr}"
            );
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c17_expired_metadata_are_refused_until_the_publisher_renews_them() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let long_ago = Clock::system().now() - SignedDuration::from_hours(24 * 10);
    let repository = Repository::empty(folder.path()).await?.at(long_ago);
    repository.publish(&TestRelease::standard("1.0.0")).await?;
    let site = Site::of(repository, folder).await?;
    let stderr = refused(&site.verify(), TRUST)?;
    assert!(stderr.contains("the timestamp metadata is expired"), "{stderr}");
    assert!(stderr.contains("kato release refresh"), "{stderr}");
    let (dir, keys) = (site.repository.dir(), site.repository.keys());
    document(&["release", "refresh", "--dir", text(&dir), "--keys", text(&keys)])?;
    assert_eq!(document(&site.verify())?["versions"], json!(["1.0.0"]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_data_are_cut_off_and_refused() -> Result<()> {
    let site = Site::new().await?;
    for file in [
        "/timestamp.json",
        "/1.snapshot.json",
        "/2.snapshot.json",
        "app-2.0.0.tar.zst",
    ] {
        site.host.fail(file, Fault::Endless);
    }
    let stderr = refused(&site.verify(), TRUST)?;
    assert!(
        stderr.contains("timestamp.json: more than the expected 65536 bytes"),
        "{stderr}"
    );
    site.host.heal();
    site.host.fail("app-2.0.0.tar.zst", Fault::Endless);
    assert!(refused(&site.verify(), TRUST)?.contains("app-2.0.0.tar.zst: more than the expected"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_the_place_of_metadata_is_called_one_and_what_is_no_metadata_is_refused() -> Result<()> {
    let site = Site::new().await?;
    overwrite(&site.metadata("timestamp.json"), b"<html>Please log in</html>")?;
    let stderr = refused(&site.verify(), TRY_AGAIN)?;
    assert!(
        stderr.contains("timestamp.json was answered with a page"),
        "{stderr}"
    );
    // What is neither a page nor metadata is no weather.
    overwrite(&site.metadata("timestamp.json"), b"Please log in")?;
    assert!(refused(&site.verify(), TRUST)?.contains("what is served as timestamp metadata"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mixture_of_two_states_is_refused() -> Result<()> {
    let site = Site::new().await?;
    // Mix and match: the snapshot of the first state under the name of the second.
    fs::copy(site.metadata("1.snapshot.json"), site.metadata("2.snapshot.json"))?;
    let stderr = refused(&site.verify(), TRUST)?;
    assert!(stderr.contains("2.snapshot.json"), "{stderr}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_is_no_refusal() -> Result<()> {
    let site = Site::new().await?;
    // The line breaks at the question for a newer root: neither "there is none" nor "badly signed".
    site.host.fail("/2.root.json", Fault::Status(503));
    let stderr = refused(&site.verify(), TRY_AGAIN)?;
    assert!(stderr.contains("2.root.json"), "{stderr}");
    assert_eq!(site.host.count("/timestamp.json"), 0);
    site.host.heal();
    // A wrong address: the server answers, the repository is not there.
    let elsewhere = format!("{}elsewhere/", site.url);
    let stderr = refused(&verify_url(&site.root, &elsewhere), TRY_AGAIN)?;
    assert!(
        stderr.contains("elsewhere/metadata/timestamp.json was not found"),
        "{stderr}"
    );
    // One answer that breaks off and one "not now" cost a second request, not the run.
    site.host.fail_times("app-1.0.0.tar.zst", Fault::Truncate(20), 1);
    site.host.fail_times("/timestamp.json", Fault::Status(503), 1);
    document(&site.verify())?;
    assert_eq!(site.host.count("app-1.0.0.tar.zst"), 2);
    // Nobody there at all.
    let url = site.url.clone();
    drop(site.host);
    let stderr = refused(&verify_url(&site.root, &url), TRY_AGAIN)?;
    assert!(stderr.contains("does not answer"), "{stderr}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_file_that_is_not_there_is_a_wrong_command_line() -> Result<()> {
    let site = Site::new().await?;
    let stderr = refused(&verify_url("/no/such/root.json", &site.url), super::USAGE)?;
    assert!(stderr.contains("/no/such/root.json"), "{stderr}");
    let output = kato(&["release", "verify", "--root", &site.root])?;
    assert_eq!(output.status.code(), Some(super::USAGE));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_downloads_an_artifact_in_pieces_and_asks_nothing_twice() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let repository = Repository::empty(folder.path()).await?;
    let release = TestRelease::standard("1.0.0").with_payload(3_000_000);
    repository.publish(&release).await?;
    let site = Site::of(repository, folder).await?;
    let fetcher = Fetcher::new(Route::Direct)?;
    let root = fs::read(&site.root)?;
    let trusted = fetcher
        .repository(&root, &site.host.url(), Path::new(&site.datastore))
        .await?;
    let release = trusted.release(&Version::new(1, 0, 0)).await?;
    let artifact = &release.artifacts["app-1.0.0.tar.zst"];
    let file = trusted.target(&artifact.target)?;
    let staging = site.folder.path().join("staging");
    site.host
        .fail_times("app-1.0.0.tar.zst", Fault::Truncate(1_000_000), 2);
    let path = fetcher.download(&file, &staging, &|_, _| ()).await?;
    assert_eq!(kato_shared::Digest::of(&fs::read(&path)?), artifact.sha256);
    assert_eq!(site.host.count("app-1.0.0.tar.zst"), 3);
    assert_eq!(site.host.ranges().values().sum::<u64>(), 2);
    fetcher.download(&file, &staging, &|_, _| ()).await?;
    assert_eq!(site.host.count("app-1.0.0.tar.zst"), 3);

    let missing = trusted.release(&Version::new(7, 0, 0)).await.unwrap_err();
    assert!(matches!(missing, TrustError::NoSuchRelease { .. }));
    assert_eq!(
        missing.to_string(),
        "release 7.0.0 is not published; published: 1.0.0"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_that_went_back_is_named_with_both_times() -> Result<()> {
    let site = Site::new().await?;
    document(&site.verify())?;
    let later = Clock::system().now() + SignedDuration::try_from(Duration::from_secs(7200))?;
    let file = Path::new(&site.datastore).join("latest_known_time.json");
    overwrite(&file, &serde_json::to_vec(&later)?)?;
    let stderr = refused(&site.verify(), TRY_AGAIN)?;
    assert!(stderr.contains(&later.to_string()), "{stderr}");
    Ok(())
}

/// Signs the next root of `repository`, with the same keys.
async fn rotate_root(repository: &Repository) -> Result<std::path::PathBuf> {
    let mut root: Signed<Root> = serde_json::from_slice(&fs::read(repository.root())?)?;
    root.signed.version = root.signed.version.saturating_add(1);
    let path = repository.keys().join("root-1.pk8");
    let keys: [Box<dyn KeySource>; 1] = [Box::new(LocalKeySource { path })];
    let holder = KeyHolder::Root(root.signed.clone());
    let signed = SignedRole::new(root.signed, &holder, &keys, &SystemRandom::new()).await?;
    let next = repository.dir().join("metadata/2.root.json");
    overwrite(&next, signed.buffer())?;
    Ok(next)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_root_is_followed_and_cannot_be_hidden_again() -> Result<()> {
    let site = Site::new().await?;
    document(&site.verify())?;
    let next = rotate_root(&site.repository).await?;
    document(&site.verify())?;
    // Somebody who stole retired keys would hide the root that retired them.
    fs::remove_file(&next)?;
    let stderr = refused(&site.verify(), TRUST)?;
    assert!(
        stderr.contains("the root metadata went back from version 2 to 1"),
        "{stderr}"
    );
    // A root that is not signed by the keys of the one before is none.
    let other_folder = tempfile::tempdir()?;
    let other = Repository::empty(other_folder.path()).await?;
    fs::copy(rotate_root(&other).await?, &next)?;
    assert!(refused(&site.verify(), TRUST)?.contains("the root metadata is not signed by enough"));
    Ok(())
}
