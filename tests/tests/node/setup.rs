//! A repository, its web server, and a node that takes releases from it.

use anyhow::Result;
use integration_tests::{
    node::TestNode,
    releases::{Repository, TestRelease},
    static_server::StaticServer,
};

/// Everything that a test of one node needs.
pub(crate) struct Site {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) repository: Repository,
    pub(crate) host: StaticServer,
    pub(crate) node: TestNode,
}

impl Site {
    /// A node with the roles `controller` and `dea`, and a repository with `releases`.
    pub(crate) async fn with(releases: &[TestRelease]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let repository = Repository::empty(folder.path()).await?;
        for release in releases {
            repository.publish(release).await?;
        }
        let host = StaticServer::start(&repository.dir()).await?;
        let node = TestNode::new(
            &folder.path().join("node"),
            &["controller", "dea"],
            &host.url(),
            &repository.root(),
        )?;
        Ok(Self {
            folder,
            repository,
            host,
            node,
        })
    }

    /// A node that has 1.0.0, and a repository with the standard releases 1.0.0 and 2.0.0.
    pub(crate) async fn at_one() -> Result<Self> {
        let site = Self::with(&[TestRelease::standard("1.0.0"), TestRelease::standard("2.0.0")]).await?;
        site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
        Ok(site)
    }
}
