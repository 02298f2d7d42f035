//! What the policies without a folder of their own install: images, commands, packages; and a patch.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::Result;
use integration_tests::{
    command,
    node::TestNode,
    releases::{Repository, TestModule, TestRelease},
};
use kato_shared::{Digest, clock::Clock, durable};
use kato_upgrader::publish::{self, BuildOptions, Lifetimes};

const MIGRATE: &str = r#"#!/bin/sh
set -eu
if [ -e "$KATO_ROOT/../watched.sh" ] && [ -z "${WATCHED-}" ]; then
    WATCHED=yes exec "$KATO_ROOT/../watched.sh" "migrate-$1" "$KATO_ROOT" "$0" "$@"
fi
case $1 in
    up) echo "$KATO_VERSION" > "$KATO_ROOT/s/schema" ;;
    down) echo "$KATO_FROM" > "$KATO_ROOT/s/schema" ;;
    is) test "$(cat "$KATO_ROOT/s/schema")" = "$KATO_VERSION" ;;
esac
"#;

/// An image for the runtime of files, and a command that changes a file which no module has.
pub(crate) fn image_and_command(release: &mut TestRelease) {
    let digest = Digest::of(release.version.to_string().as_bytes());
    let image = format!(
        "policy = \"image\"\n[[module.install.images]]\nname = \"hub.example/lab/app\"\ndigest = \"{digest}\"\nsize = 1000\ntag = \"live\""
    );
    release.modules.push(TestModule::new("images", &image, &[]));
    let exec = "policy = \"exec\"\ncmd = [\"./migrate\", \"up\"]\nprobe = [\"./migrate\", \"is\"]\nundo = [\"./migrate\", \"down\"]";
    release
        .modules
        .push(TestModule::new("database", exec, &[]).with_file("migrate", MIGRATE.into(), 0o755));
}

/// A real package for the machine's dpkg, in the node's own root.
pub(crate) fn package(folder: &Path, release: &mut TestRelease) -> Result<()> {
    let version = &release.version;
    let tree = folder.join(format!("tree-{version}"));
    durable::create_folder(&tree.join("DEBIAN"))?;
    durable::create_folder(&tree.join("usr/share"))?;
    let control = format!(
        "Package: lab-tool\nVersion: {version}\nArchitecture: all\nMaintainer: Lab <lab@lab.example>\nDescription: a package of the lab\n"
    );
    durable::write(&tree.join("DEBIAN/control"), control.as_bytes(), 0o644)?;
    durable::write(
        &tree.join("usr/share/lab-tool"),
        version.to_string().as_bytes(),
        0o644,
    )?;
    let name = format!("lab-tool_{version}_all.deb");
    let file = folder.join(&name);
    let (from, to) = (tree.display().to_string(), file.display().to_string());
    command::ok(&["dpkg-deb", "--root-owner-group", "--build", &from, &to])?;
    let install = format!("policy = \"package\"\npackages = [\"lab-tool={version}\"]");
    let module = TestModule::new("tools", &install, &[]).with_file(&name, fs::read(file)?, 0o644);
    release.modules.push(module);
    Ok(())
}

/// A container runtime of files, and the file that the command changes.
pub(crate) fn with_runtime(node: &mut TestNode) -> Result<()> {
    node.with_runtime("podman")?;
    node.put("s/schema", "none\n")
}

/// An empty database of packages.
pub(crate) fn with_dpkg(node: &TestNode) -> Result<()> {
    for below in ["info", "updates", "triggers", "parts"] {
        durable::create_folder(&node.path("var/lib/dpkg").join(below))?;
    }
    node.put("var/lib/dpkg/status", "")
}

/// Publishes a patch of 1.0.0 that adds, changes and replaces.
pub(crate) async fn patch(folder: &Path, repository: &Repository) -> Result<()> {
    let mut release = TestRelease::standard("1.0.0");
    release.head = "kind = \"patch\"\n".into();
    release.modules = vec![
        TestModule::new(
            "etc-fix",
            "policy = \"overlay\"\ndest = \"/s/etc\"",
            &[("app.conf", "patched\n"), ("new/sub.conf", "patched\n")],
        ),
        TestModule::new(
            "console-fix",
            "policy = \"replace\"\ndest = \"/s/code/console\"",
            &[("index.html", "patched\n")],
        ),
        TestModule::new(
            "app-fix",
            "policy = \"versioned\"\ndest = \"/s/code/app\"",
            &[("VERSION", "patched\n")],
        ),
    ];
    write!(
        release.tail,
        "\n[patch]\nid = 1\nname = \"broad\"\nsummary = \"mends\"\nseverity = \"required\"\n"
    )?;
    let (description, build) = (folder.join("patch-description"), folder.join("patch-build"));
    release.describe(&description)?;
    let options = BuildOptions {
        upgraders: Vec::new(),
        level: 1,
    };
    let (now, lifetimes) = (Clock::system().now(), Lifetimes::default());
    publish::build(&description, &build, &options, now)?;
    publish::sign(&build, &repository.dir(), &repository.keys(), lifetimes, now).await?;
    publish::publish(&build, &repository.dir(), &repository.keys(), lifetimes, now).await?;
    Ok(())
}
