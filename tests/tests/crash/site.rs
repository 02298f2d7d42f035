//! A node at 1.0.0 with local changes, and a 2.0.0 that passes every place where a run can be killed.

use std::path::Path;

use anyhow::Result;
use integration_tests::{
    node::TestNode,
    releases::{Repository, TestModule, TestRelease},
    static_server::StaticServer,
};

/// A repository, its host, and the node that every killed run starts from.
pub(crate) struct Site {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) node: TestNode,
    _host: StaticServer,
}

/// All policies; `kato` itself as a module; an overlay with a file that goes, one that is changed here, and one of each side.
fn release(version: &str) -> TestRelease {
    let mut release = TestRelease::standard(version);
    let text = format!("version {version}\n");
    release.head = "restart = \"services\"\nbackup = [\"/s/state\"]\n".into();
    let mut kato = TestModule::new(
        "kato",
        "policy = \"versioned\"\ndest = \"/s/code/kato\"\nlink = \"/home/stackato/bin/kato\"\nlink_to = \"bin/kato\"",
        &[],
    )
    .with_file("bin/kato", text.clone().into_bytes(), 0o755);
    kato.keys.push_str("recovery = true\n");
    release.modules.push(kato);
    let mut files = vec![
        ("changed", text.as_str()),
        ("deep/er/file", &text),
        ("kept", "always the same\n"),
    ];
    if version == "1.0.0" {
        files.extend([("gone", text.as_str()), ("gone-folder/file", &text)]);
    } else {
        files.push(("fresh", text.as_str()));
    }
    release.modules.push(TestModule::new(
        "static",
        "policy = \"overlay\"\ndest = \"/s/static\"",
        &files,
    ));
    release
}

impl Site {
    pub(crate) async fn new() -> Result<Self> {
        Self::with("", "restart = \"services\"\n").await
    }

    /// The same under systemd, with a 2.0.0 that restarts the machine.
    pub(crate) async fn restarting() -> Result<Self> {
        let site = Self::with("", "restart = \"reboot\"\n").await?;
        site.node.with_systemd()?;
        site.node
            .put("proc/sys/kernel/random/boot_id", "the first boot")?;
        Ok(site)
    }

    /// The same with a 2.0.0 that never shows that it is healthy.
    pub(crate) async fn failing() -> Result<Self> {
        Self::with(
            "[[check]]\nid = \"command\"\nargv = [\"test\", \"-e\", \"healthy\"]\ndeadline = \"0s\"\n",
            "restart = \"services\"\n",
        )
        .await
    }

    /// The same with these checks in 2.0.0, and what it restarts.
    async fn with(checks: &str, restart: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let repository = Repository::empty(folder.path()).await?;
        repository.publish(&release("1.0.0")).await?;
        let mut two = release("2.0.0");
        two.head = two.head.replace("restart = \"services\"\n", restart);
        two.tail.push_str(checks);
        repository.publish(&two).await?;
        let host = StaticServer::start(&repository.dir()).await?;
        let roles = ["controller", "dea"];
        let node = TestNode::new(
            &folder.path().join("node"),
            &roles,
            &host.url(),
            &repository.root(),
        )?;
        node.put("s/state/db", "state of the platform")?;
        node.upgrade_ends(0, &["--version", "1.0.0"])?;
        for (path, content) in [
            ("s/static/changed", "changed here"),
            ("s/static/local", "only here"),
            ("s/code/console/theme.css", "a theme"),
        ] {
            node.put(path, content)?;
        }
        Ok(Self {
            folder,
            node,
            _host: host,
        })
    }

    /// A fresh copy of the node.
    pub(crate) fn copy(&self, name: &str) -> Result<TestNode> {
        self.node.copy_to(&self.place(name))
    }

    /// A folder of the site.
    pub(crate) fn place(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(Path::new(name))
    }
}
