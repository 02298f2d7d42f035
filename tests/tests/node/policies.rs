//! The policies `exec` and `image` with programs of small files: what is asked, in which order, and how it goes back.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::Result;
use integration_tests::{
    command,
    releases::{TestModule, TestRelease},
};
use kato_shared::Digest;

use crate::setup::Site;

/// The command of a module: brings `s/schema` to a version, and notes how it was called in `s/calls`.
const MIGRATE: &str = r#"#!/bin/sh
set -eu
root=$KATO_ROOT
mkdir -p "$root/s"
echo "$KATO_PHASE $KATO_MODULE $KATO_NODE ${KATO_FROM:-none} $KATO_VERSION $1" >> "$root/s/calls"
if read -r line; then echo "input: $line" >&2; exit 9; fi
case $1 in
    up) if [ -e "$root/s/broken" ]; then seq 1 60; echo "the database is locked" >&2; exit 3; fi
        test -e "$KATO_DIR/migrate"; echo "$KATO_VERSION" > "$root/s/schema" ;;
    down) echo "$KATO_FROM" > "$root/s/schema" ;;
    is) test "$(cat "$root/s/schema" 2>/dev/null)" = "$KATO_VERSION" ;;
    hang) sleep 600 ;;
esac
"#;

const CHECK: &str =
    "[[check]]\nid = \"command\"\nargv = [\"test\", \"-e\", \"healthy\"]\ndeadline = \"0s\"\n";

/// A module that migrates.
fn migration(undo: &str) -> TestModule {
    let install =
        format!("policy = \"exec\"\ncmd = [\"./migrate\", \"up\"]\nprobe = [\"./migrate\", \"is\"]\n{undo}");
    TestModule::new("database", &install, &[]).with_file("migrate", MIGRATE.into(), 0o755)
}

const UNDO: &str = "undo = [\"./migrate\", \"down\"]";

fn with(version: &str, module: TestModule) -> TestRelease {
    let mut release = TestRelease::standard(version);
    release.modules.push(module);
    release
}

async fn migrating(undo: &str, tail: &str) -> Result<Site> {
    let mut two = with("2.0.0", migration(undo));
    two.head = "restart = \"services\"\n".into();
    two.tail.push_str(tail);
    let site = Site::with(&[with("1.0.0", migration(undo)), two]).await?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    Ok(site)
}

fn plan(site: &Site) -> Result<String> {
    let kato = site.node.kato(&["node", "upgrade", "--plan"])?;
    Ok(String::from_utf8(
        command::run(kato, Duration::from_secs(60), &[])?.stdout,
    )?)
}

fn calls(site: &Site) -> String {
    site.node.text("s/calls").unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn r40_a_command_is_run_until_its_probe_says_so_and_told_what_it_is_for() -> Result<()> {
    let site = migrating(UNDO, "").await?;
    assert_eq!(site.node.text("s/schema").as_deref(), Some("1.0.0\n"));
    assert!(
        calls(&site).contains("cmd database n1 none 1.0.0 up\n"),
        "{}",
        calls(&site)
    );
    let plan = plan(&site)?;
    assert!(plan.contains("exec: ./migrate up"), "{plan}");
    site.node.upgrade_ends(0, &[])?;
    assert_eq!(site.node.text("s/schema").as_deref(), Some("2.0.0\n"));
    assert!(
        calls(&site).contains("cmd database n1 1.0.0 2.0.0 up\n"),
        "{}",
        calls(&site)
    );
    assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());

    // Done already: the same release once more asks the probe and runs nothing.
    let ran = calls(&site).matches(" up\n").count();
    site.node.upgrade_ends(0, &["--version", "2.0.0", "--force"])?;
    assert_eq!(calls(&site).matches(" up\n").count(), ran);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c11_a_command_that_fails_shows_its_last_lines_and_is_run_again() -> Result<()> {
    let site = migrating(UNDO, "").await?;
    site.node.put("s/broken", "")?;
    let said = site.node.upgrade_ends(21, &[])?;
    assert!(
        said.contains("the command of the module database")
            && said.contains("exit status: 3")
            && said.contains("the database is locked")
            && said.contains("\n  60")
            && !said.contains("\n  9\n"),
        "{said}"
    );
    assert!(!site.node.latches().contains(&"database".to_owned()));
    fs::remove_file(site.node.path("s/broken"))?;
    site.node.upgrade_ends(0, &[])?;
    assert_eq!(site.node.text("s/schema").as_deref(), Some("2.0.0\n"));
    assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c20_a_command_that_hangs_is_stopped_at_the_modules_timeout() -> Result<()> {
    let mut module = TestModule::new(
        "database",
        "policy = \"exec\"\ncmd = [\"./migrate\", \"hang\"]\nprobe = [\"false\"]",
        &[],
    )
    .with_file("migrate", MIGRATE.into(), 0o755);
    module.keys.push_str("timeout = \"2s\"\n");
    let site = Site::with(&[with("1.0.0", module)]).await?;
    let said = site.node.upgrade_ends(21, &[])?;
    assert!(said.contains("was stopped after"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c23_a_command_is_taken_back_by_its_undo() -> Result<()> {
    let site = migrating(UNDO, CHECK).await?;
    let said = site.node.upgrade_ends(22, &[])?;
    assert!(said.contains("this node runs 1.0.0 again"), "{said}");
    assert_eq!(site.node.text("s/schema").as_deref(), Some("1.0.0\n"));
    assert!(
        calls(&site).contains("undo database n1 1.0.0 2.0.0 down\n"),
        "{}",
        calls(&site)
    );
    assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c23_a_command_without_an_undo_is_the_point_of_no_return() -> Result<()> {
    let site = migrating("", CHECK).await?;
    let plan = plan(&site)?;
    assert!(
        plan.contains("way back   until module:database: the command of the module database has no undo"),
        "{plan}"
    );
    site.node.upgrade_ends(21, &[])?;
    assert_eq!(site.node.text("s/schema").as_deref(), Some("2.0.0\n"));
    site.node.put("healthy", "")?;
    site.node.upgrade_ends(0, &[])?;
    Ok(())
}

fn image_module(text: &str) -> TestModule {
    let install = format!(
        "policy = \"image\"\n[[module.install.images]]\nname = \"hub.example/lab/app\"\ndigest = \"{}\"\nsize = 1000\nplatform = \"linux/amd64\"\ntag = \"live\"",
        Digest::of(text.as_bytes())
    );
    TestModule::new("images", &install, &[])
}

/// A node with a runtime of files, at 1.0.0, and a 2.0.0 that moves the tag.
async fn pulling(runtime: &str, tail: &str) -> Result<Site> {
    let mut two = with("2.0.0", image_module("two"));
    two.head = "restart = \"services\"\n".into();
    two.tail.push_str(tail);
    let mut site = Site::with(&[with("1.0.0", image_module("one")), two]).await?;
    site.node.with_runtime(runtime)?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    Ok(site)
}

/// What the tag means on the node, by the text whose digest it is.
fn live(site: &Site) -> Option<&'static str> {
    let digest = site.node.image(LIVE)?;
    ["one", "two"]
        .into_iter()
        .find(|text| digest == Digest::of(text.as_bytes()).to_string())
}

const LIVE: &str = "hub.example/lab/app:live";

#[tokio::test(flavor = "multi_thread")]
async fn c14_images_are_pulled_by_digest_before_anything_is_changed_and_then_tagged() -> Result<()> {
    for runtime in ["docker", "podman"] {
        let site = pulling(runtime, "").await?;
        assert_eq!(live(&site), Some("one"));
        let plan = plan(&site)?;
        assert!(
            plan.contains(&format!("image: hub.example/lab/app@{}", Digest::of(b"two"))),
            "{plan}"
        );
        site.node.put("platform/fail-pull", "")?;
        let before = site.node.product()?;
        let said = site.node.upgrade_ends(75, &[])?;
        assert!(
            said.contains("pulling hub.example/lab/app@") && said.contains("no route to the registry"),
            "{said}"
        );
        assert_eq!(site.node.product()?, before);
        assert!(!site.node.state("tmp/upgrade-failed").exists());
        fs::remove_file(site.node.path("platform/fail-pull"))?;
        site.node.upgrade_ends(0, &["--download-only"])?;
        assert_eq!(live(&site), Some("one"), "a download moves no tag");
        site.node.put("platform/fail-pull", "")?;
        site.node.upgrade_ends(0, &[])?;
        assert_eq!(live(&site), Some("two"));
        assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());
        let asked = site.node.text("platform/runtime").unwrap_or_default();
        let pull = format!(
            "pull --quiet --platform linux/amd64 hub.example/lab/app@{}",
            Digest::of(b"two")
        );
        assert_eq!(asked.lines().filter(|line| *line == pull).count(), 2, "{asked}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_whose_digest_the_runtime_does_not_confirm_is_not_tagged() -> Result<()> {
    let site = pulling("podman", "").await?;
    site.node.put("platform/other-image", "")?;
    let said = site.node.upgrade_ends(75, &[])?;
    assert!(said.contains("the runtime does not confirm sha256:"), "{said}");
    assert_eq!(live(&site), Some("one"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c23_a_tag_means_again_what_it_meant_and_a_new_one_goes() -> Result<()> {
    let site = pulling("podman", CHECK).await?;
    site.node.upgrade_ends(22, &[])?;
    assert_eq!(live(&site), Some("one"));
    assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());

    let mut two = with("2.0.0", image_module("two"));
    two.tail.push_str(CHECK);
    let mut site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
    site.node.with_runtime("docker")?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    site.node.upgrade_ends(22, &[])?;
    assert_eq!(site.node.image(LIVE), None);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_runtime_is_told_what_was_asked() -> Result<()> {
    let mut site = Site::with(&[with("1.0.0", image_module("one"))]).await?;
    site.node
        .add_settings("[images]\nruntime = \"podman\"\ncommand = [\"/none/podman\"]\n")?;
    let said = site.node.upgrade_ends(75, &[])?;
    assert!(
        said.contains("no container runtime is there: starting `/none/podman` failed")
            && said.contains("hint: start the container runtime"),
        "{said}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c13_images_are_counted_where_the_runtime_keeps_them() -> Result<()> {
    let mut huge = image_module("huge");
    huge.install = huge.install.replace("size = 1000", "size = 9000000000000000");
    let mut site = Site::with(&[with("1.0.0", huge)]).await?;
    site.node.with_runtime("podman")?;
    let said = site.node.upgrade_ends(20, &[])?;
    assert!(
        said.contains("not enough space on `/`") && said.contains("images"),
        "{said}"
    );
    assert_eq!(site.node.image(LIVE), None);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r43_safe_paths_are_not_touched_in_any_folder_whatever_the_release_brings() -> Result<()> {
    let safe = |version: &str| {
        let mut release = TestRelease::standard(version);
        release
            .head
            .push_str("safe_paths = [\"/s/etc/nginx\", \"/s/code/console/sub\", \"/s/etc/*.conf\"]\n");
        release
    };
    let site = Site::with(&[TestRelease::standard("1.0.0"), safe("2.0.0")]).await?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    // One that was changed here, one that was not, one that the release does not know, one that was deleted.
    site.node.put("s/etc/app.conf", "changed here")?;
    site.node.put("s/etc/nginx/own.conf", "only here")?;
    site.node.put("s/code/console/sub/own.html", "only here")?;
    fs::remove_file(site.node.path("s/etc/nginx/site.conf"))?;
    site.node.upgrade_ends(0, &[])?;
    for (path, expected) in [
        ("s/etc/app.conf", Some("changed here")),
        ("s/etc/nginx/own.conf", Some("only here")),
        ("s/etc/nginx/site.conf", None),
        ("s/code/console/sub/own.html", Some("only here")),
        ("s/code/console/index.html", Some("version 2.0.0\n")),
    ] {
        assert_eq!(site.node.text(path).as_deref(), expected, "{path}");
    }
    assert_eq!(site.node.saved()?, Vec::<PathBuf>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r36_a_forced_run_refuses_an_altered_download_like_any_other() -> Result<()> {
    let site = Site::at_one().await?;
    let before = site.node.product()?;
    for version in ["1.0.0", "2.0.0"] {
        let artifact = site.repository.target(&format!("console-{version}.tar.zst"))?;
        let mut bytes = fs::read(&artifact)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        kato_shared::durable::write(&artifact, &bytes, 0o644)?;
        let said = site.node.upgrade_ends(26, &["--version", version, "--force"])?;
        assert!(said.contains("digest mismatch"), "{said}");
        assert_eq!(site.node.product()?, before);
        assert_eq!(site.node.installed().as_deref(), Some("1.0.0"));
    }
    Ok(())
}
