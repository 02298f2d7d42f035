//! The same attempts against `kato node upgrade`: exit code 26, nothing on the node is changed, and the same command
//! succeeds as soon as the truth is served again.

use std::{fs, path::PathBuf};

use anyhow::Result;
use integration_tests::{
    node::TestNode,
    releases::{Repository, TestRelease},
    static_server::{Fault, StaticServer},
};
use jiff::SignedDuration;
use kato_shared::clock::Clock;
use tempfile::TempDir;

use super::{TRUST, overwrite};

/// A node that has 1.0.0, and an upgrade host with 1.0.0 and 2.0.0.
struct Site {
    _folder: TempDir,
    repository: Repository,
    host: StaticServer,
    node: TestNode,
    /// `timestamp.json` from before 2.0.0 was published.
    old_timestamp: Vec<u8>,
}

impl Site {
    async fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let repository = Repository::empty(folder.path()).await?;
        repository.publish(&TestRelease::standard("1.0.0")).await?;
        let old_timestamp = fs::read(repository.dir().join("metadata/timestamp.json"))?;
        repository.publish(&TestRelease::standard("2.0.0")).await?;
        let host = StaticServer::start(&repository.dir()).await?;
        let home = folder.path().join("node");
        let node = TestNode::new(&home, &["controller", "dea"], &host.url(), &repository.root())?;
        node.upgrade_ends(0, &["--version", "1.0.0"])?;
        Ok(Self {
            _folder: folder,
            repository,
            host,
            node,
            old_timestamp,
        })
    }

    fn timestamp(&self) -> PathBuf {
        self.repository.dir().join("metadata/timestamp.json")
    }

    /// The upgrade is refused and changes nothing; gives what was said.
    fn refuses(&self) -> Result<String> {
        let (before, retired) = (self.node.product()?, self.node.calls("retire"));
        let said = self.node.upgrade_ends(TRUST, &[])?;
        assert!(said.contains("hint: "), "{said}");
        assert_eq!(self.node.product()?, before);
        assert_eq!(self.node.installed().as_deref(), Some("1.0.0"));
        assert_eq!(self.node.calls("retire"), retired);
        Ok(said)
    }

    /// And with the truth served again it succeeds.
    fn succeeds(&self) -> Result<()> {
        self.node.upgrade_ends(0, &[])?;
        assert_eq!(self.node.installed().as_deref(), Some("2.0.0"));
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tampered_target_is_refused_before_anything_is_changed() -> Result<()> {
    let site = Site::new().await?;
    site.host.fail("app-2.0.0.tar.zst", Fault::Alter);
    let said = site.refuses()?;
    assert!(
        said.contains("digest mismatch: expected sha256:") && said.contains("received sha256:"),
        "{said}"
    );
    site.host.heal();
    site.succeeds()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timestamp_that_was_rolled_back_is_refused() -> Result<()> {
    let site = Site::new().await?;
    let new = fs::read(site.timestamp())?;
    overwrite(&site.timestamp(), &site.old_timestamp)?;
    assert!(
        site.refuses()?
            .contains("the timestamp metadata went back from version 2 to 1")
    );
    // A crash tore what `tough` remembers; the node's own record still refuses.
    let trust = site.node.state("state/trust");
    for file in ["timestamp.json", "snapshot.json", "targets.json", "root.json"] {
        overwrite(&trust.join(file), b"{\"signed\":")?;
    }
    assert!(site.refuses()?.contains("went back from version 2 to 1"));
    overwrite(&site.timestamp(), &new)?;
    site.succeeds()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_root_is_refused() -> Result<()> {
    let site = Site::new().await?;
    let other_folder = tempfile::tempdir()?;
    let other = Repository::empty(other_folder.path()).await?;
    other.publish(&TestRelease::standard("2.0.0")).await?;
    let imposter = StaticServer::start(&other.dir()).await?;
    let mut site = site;
    site.node.take_from(&imposter.url())?;
    let said = site.refuses()?;
    assert!(
        said.contains("is not signed by enough of the trusted keys"),
        "{said}"
    );
    site.node.take_from(&site.host.url())?;
    site.succeeds()
}

#[tokio::test(flavor = "multi_thread")]
async fn c17_expired_metadata_are_refused_until_they_are_renewed() -> Result<()> {
    let site = Site::new().await?;
    let long_ago = Clock::system().now() - SignedDuration::from_hours(24 * 10);
    site.repository.clone().at(long_ago).refresh().await?;
    assert!(site.refuses()?.contains("the timestamp metadata is expired"));
    site.repository.refresh().await?;
    site.succeeds()
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_data_are_cut_off_and_refused() -> Result<()> {
    let site = Site::new().await?;
    for (file, limit) in [("/timestamp.json", "65536"), ("console-2.0.0.tar.zst", "")] {
        site.host.fail(file, Fault::Endless);
        let said = site.refuses()?;
        assert!(
            said.contains(&format!("more than the expected {limit}")),
            "{said}"
        );
        site.host.heal();
    }
    site.succeeds()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_root_that_is_no_root_is_refused_by_its_name() -> Result<()> {
    let site = Site::new().await?;
    let root = fs::read(site.repository.root())?;
    overwrite(&site.repository.root(), b"{}")?;
    let said = site.refuses()?;
    assert!(
        said.contains("1.root.json") && said.contains("the pinned root is not valid root metadata"),
        "{said}"
    );
    overwrite(&site.repository.root(), &root)?;
    site.succeeds()
}
