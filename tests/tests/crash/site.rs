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
use kato_upgrader::module::tree;
use tempfile::TempDir;

use crate::policies;

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
    /// The same with a release in between that brings it already.
    SelfUpdateHops,
    /// No release is installed, and what others put where 2.0.0 goes is in its way.
    Fresh,
    /// Plain, with an image and a command in each release.
    Policies,
    /// The same, and it never shows that it is healthy.
    PoliciesFailing,
    /// The same as [`Kind::Policies`], with a check that is a command.
    Checked,
    /// Plain, with a package in 2.0.0 as well; needs root.
    FirstPackage,
    /// The same, with one in 1.0.0 too.
    Packages,
    /// The same, and it never shows that it is healthy.
    PackagesFailing,
    /// Plain, with a patch of 1.0.0.
    Patch,
    /// Plain, with what killed runs and a lost power supply may leave in files.
    Littered,
}

impl Kind {
    const fn has_policies(self) -> bool {
        matches!(self, Self::Policies | Self::PoliciesFailing | Self::Checked) || self.has_packages()
    }

    const fn has_packages(self) -> bool {
        matches!(self, Self::FirstPackage | Self::Packages | Self::PackagesFailing)
    }

    const fn is_never_healthy(self) -> bool {
        matches!(
            self,
            Self::Failing | Self::PoliciesFailing | Self::PackagesFailing
        )
    }
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
    release.head =
        "restart = \"services\"\nbackup = [\"/s/state\"]\nsafe_paths = [\"/s/code/console/uploads/**\"]\n"
            .into();
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
        ("linked", text.as_str()),
    ];
    if version == "1.0.0" {
        files.extend([("gone", text.as_str()), ("gone-folder/file", &text)]);
    } else {
        files.extend([("fresh", text.as_str()), ("new/folder/file", &text)]);
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
            link_in_overlay(folder.path(), &release)?;
            repository.publish(&release).await?;
        }
        if kind == Kind::Patch {
            policies::patch(folder.path(), &repository).await?;
        }
        let host = StaticServer::start(&repository.dir()).await?;
        let roles = ["controller", "dea"];
        let mut node = TestNode::new(
            &folder.path().join("node"),
            &roles,
            &host.url(),
            &repository.root(),
        )?;
        node.put("s/state/db", "state of the platform")?;
        if kind.has_policies() {
            policies::with_runtime(&mut node)?;
        }
        if kind.has_packages() {
            policies::with_dpkg(&node)?;
        }
        if kind == Kind::Fresh {
            in_the_way(&node, &repository)?;
        } else {
            node.upgrade_ends(0, &["--version", "1.0.0"])?;
            local_changes(&node)?;
        }
        if matches!(kind, Kind::SelfUpdate | Kind::SelfUpdateHops) {
            node.put("home/stackato/bin/.kato-aB3dE6", "half a link")?;
            node.put("var/stackato/upgrade/bin/a/.kato-aB3dE6", "half a program")?;
        }
        if kind == Kind::Littered {
            litter(&node)?;
        }
        if kind == Kind::Restarting {
            node.with_systemd()?;
            node.put("proc/sys/kernel/random/boot_id", "the first boot")?;
            node.put("etc/systemd/system/.kato-aB3dE6", "half a unit")?;
        }
        Ok(Self { folder, node, host })
    }

    /// A folder of the site.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        self.folder.path().join(Path::new(name))
    }
}

/// A symbolic link among the files of the overlay: an archive may have one.
fn link_in_overlay(folder: &Path, release: &TestRelease) -> Result<()> {
    let folder = folder.join(format!("description-{}/static", release.version));
    durable::create_folder(&folder)?;
    Ok(durable::symlink(Path::new("kept"), &folder.join("link"))?)
}

/// What people do to a node, in each class of folder.
fn local_changes(node: &TestNode) -> Result<()> {
    for (path, content) in [
        ("s/static/changed", "changed here"),
        ("s/static/local", "only here"),
        ("s/code/console/theme.css", "a theme"),
        ("s/code/console/uploads/deep/er/picture", "carried over"),
    ] {
        node.put(path, content)?;
    }
    durable::symlink(Path::new("local"), &node.path("s/static/linked"))?;
    Ok(durable::symlink(
        Path::new("deep"),
        &node.path("s/code/console/uploads/link"),
    )?)
}

/// A folder where a link goes, and a folder with the name of a version that is not that version.
fn in_the_way(node: &TestNode, repository: &Repository) -> Result<()> {
    node.put("s/code/app/current/run", "not versioned yet")?;
    let digest = tree::digest(&repository.target("runner-2.0.0.tar.zst")?)?.hex();
    node.put(
        &format!("s/code/runner/2.0.0-{}/run", &digest[..12]),
        "half of it",
    )
}

/// A torn line, a torn document, and temporary files.
fn litter(node: &TestNode) -> Result<()> {
    let journal = node.state("state/journal.jsonl");
    let mut text = fs::read_to_string(&journal)?;
    text.push_str("{\"schema\":1,\"se");
    durable::write(&journal, text.as_bytes(), 0o644)?;
    node.put("var/stackato/upgrade/state/trust/timestamp.json", "{\"signed\":{")?;
    let audit = node.state("audit/audit.jsonl");
    let mut text = fs::read_to_string(&audit)?;
    text.push_str("{\"schema\":1,\"se");
    durable::write(&audit, text.as_bytes(), 0o644)?;
    node.put("var/stackato/upgrade/audit/.kato-aB3dE6", "half a note")?;
    node.put("s/static/.kato-aB3dE6", "half a file")?;
    node.put("var/stackato/upgrade/state/.kato-aB3dE6", "half a document")
}

fn releases(kind: Kind, folder: &Path) -> Result<Vec<TestRelease>> {
    let (mut one, mut two) = (release("1.0.0"), release("2.0.0"));
    for release in [&mut one, &mut two] {
        if kind.has_policies() {
            policies::image_and_command(release);
        }
    }
    if kind.has_packages() {
        if kind != Kind::FirstPackage {
            policies::package(folder, &mut one)?;
        }
        policies::package(folder, &mut two)?;
    }
    if kind.is_never_healthy() {
        let check =
            "[[check]]\nid = \"command\"\nargv = [\"test\", \"-e\", \"healthy\"]\ndeadline = \"0s\"\n";
        two.tail.push_str(check);
    }
    if kind == Kind::Checked {
        let check = "[[check]]\nid = \"command\"\nargv = [\"../watched.sh\", \"check\", \".\", \"true\"]\n";
        two.tail.push_str(check);
    }
    match kind {
        Kind::Plain
        | Kind::Fresh
        | Kind::Littered
        | Kind::Failing
        | Kind::Patch
        | Kind::Policies
        | Kind::PoliciesFailing
        | Kind::Checked
        | Kind::FirstPackage
        | Kind::Packages
        | Kind::PackagesFailing => {}
        Kind::Restarting => {
            two.head = two
                .head
                .replace("restart = \"services\"\n", "restart = \"reboot\"\n");
        }
        Kind::Hops => {
            two.head.push_str("[from]\nmin = \"1.5.0\"\n");
            return Ok(vec![one, release("1.5.0"), two]);
        }
        Kind::SelfUpdate | Kind::SelfUpdateHops => {
            let mut between = release("1.5.0");
            // The link of `kato` is the self-update's then, and no module's.
            for release in [&mut one, &mut between, &mut two] {
                release.modules.retain(|module| module.name != "kato");
            }
            let next = next_edition(folder)?;
            let with_next = |release: TestRelease| release.with_upgrader(&next, env!("CARGO_PKG_VERSION"));
            if kind == Kind::SelfUpdate {
                return Ok(vec![one, with_next(two)]);
            }
            two.head.push_str("[from]\nmin = \"1.5.0\"\n");
            return Ok(vec![one, with_next(between), with_next(two)]);
        }
    }
    Ok(vec![one, two])
}
