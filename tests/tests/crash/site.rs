//! A node at 1.0.0 with local changes, and a 2.0.0 that passes every place where a run can be killed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use integration_tests::{
    binaries, command,
    node::TestNode,
    releases::{Repository, TestModule, TestRelease},
    static_server::StaticServer,
};
use kato_shared::durable;
use tempfile::TempDir;

/// What kind of node a scenario begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 2.0.0 restarts services.
    Plain,
    /// The same, and it never shows that it is healthy.
    Failing,
    /// Under systemd, with a 2.0.0 that restarts the machine.
    Restarting,
    /// 2.0.0 can only be installed from 1.5.0 on.
    Hops,
    /// 2.0.0 brings another `kato`.
    SelfUpdate,
}

/// A repository, its host, and the node that every run starts from.
pub(crate) struct Site {
    pub(crate) folder: TempDir,
    pub(crate) node: TestNode,
    pub(crate) host: StaticServer,
}

/// A temporary folder in memory where there is one: some hundred nodes are copied, and what is not on a disk is flushed at once.
pub(crate) fn fast_folder() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    Ok(if memory.is_dir() {
        tempfile::tempdir_in(memory)?
    } else {
        tempfile::tempdir()?
    })
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

/// Another `kato` that works: the built one with a tail that changes its digest and nothing else.
fn next_edition(folder: &Path) -> Result<PathBuf> {
    let (small, next) = (folder.join("kato-small"), folder.join("kato-new"));
    let built = binaries::built("kato")?.display().to_string();
    // What a debugger needs is most of the file.
    command::ok(&["strip", "-o", &small.display().to_string(), &built])?;
    let mut program = fs::read(&small)?;
    program.extend_from_slice(b"the next edition");
    durable::write(&next, &program, 0o755)?;
    Ok(next)
}

impl Site {
    /// A site of this kind whose node has 1.0.0 and local changes.
    pub(crate) async fn new(kind: Kind) -> Result<Self> {
        let folder = fast_folder()?;
        let repository = Repository::empty(folder.path()).await?;
        for release in releases(kind, folder.path())? {
            repository.publish(&release).await?;
        }
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
        if kind == Kind::Restarting {
            node.with_systemd()?;
            node.put("proc/sys/kernel/random/boot_id", "the first boot")?;
        }
        for (path, content) in [
            ("s/static/changed", "changed here"),
            ("s/static/local", "only here"),
            ("s/code/console/theme.css", "a theme"),
        ] {
            node.put(path, content)?;
        }
        Ok(Self { folder, node, host })
    }

    /// A folder of the site.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        self.folder.path().join(Path::new(name))
    }
}

fn releases(kind: Kind, folder: &Path) -> Result<Vec<TestRelease>> {
    let mut two = release("2.0.0");
    match kind {
        Kind::Plain => {}
        Kind::Failing => two.tail.push_str(
            "[[check]]\nid = \"command\"\nargv = [\"test\", \"-e\", \"healthy\"]\ndeadline = \"0s\"\n",
        ),
        Kind::Restarting => {
            two.head = two
                .head
                .replace("restart = \"services\"\n", "restart = \"reboot\"\n");
        }
        Kind::Hops => {
            two.head.push_str("[from]\nmin = \"1.5.0\"\n");
            return Ok(vec![release("1.0.0"), release("1.5.0"), two]);
        }
        Kind::SelfUpdate => two = two.with_upgrader(&next_edition(folder)?, env!("CARGO_PKG_VERSION")),
    }
    Ok(vec![release("1.0.0"), two])
}
