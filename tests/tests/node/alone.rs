//! Core by itself, and which releases are found.

use std::time::Duration;

use anyhow::Result;
use integration_tests::{
    command,
    node::TestNode,
    releases::{Repository, TestRelease},
    static_server::StaticServer,
};
use kato_shared::durable;

use crate::setup::Site;

/// A Core with 1.0.0, and another node of its cluster with 1.0.0.
async fn cluster(folder: &std::path::Path) -> Result<(StaticServer, TestNode, TestNode)> {
    let repository = Repository::with_two_releases(folder).await?;
    let host = StaticServer::start(&repository.dir()).await?;
    let node =
        |name: &str, role: &str| TestNode::new(&folder.join(name), &[role], &host.url(), &repository.root());
    let (core, other) = (node("core", "primary")?, node("other", "controller")?);
    let inventory = format!(
        "[ssh]\nsudo = false\n\
         [[node]]\nid = \"n1\"\naddress = \"127.0.0.1\"\nroles = [\"primary\"]\ntransport = \"local\"\nconfig = {:?}\n\
         [[node]]\nid = \"n2\"\naddress = \"127.0.0.2\"\nroles = [\"controller\"]\ntransport = \"local\"\nconfig = {:?}\n",
        core.config().display().to_string(),
        other.config().display().to_string()
    );
    for node in [&core, &other] {
        node.upgrade_ends(0, &["--version", "1.0.0"])?;
    }
    durable::write(
        &core.config().with_file_name("cluster.toml"),
        inventory.as_bytes(),
        0o644,
    )?;
    Ok((host, core, other))
}

#[tokio::test(flavor = "multi_thread")]
async fn r31_core_alone_is_refused_while_other_nodes_are_behind_unless_forced() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (_host, core, other) = cluster(folder.path()).await?;
    let before = core.product()?;
    let said = core.upgrade_ends(20, &[])?;
    assert!(
        said.contains("1 of 1 other nodes are behind 2.0.0: n2 (1.0.0)"),
        "{said}"
    );
    assert!(said.contains("--cluster") && said.contains("--force"), "{said}");
    assert_eq!(core.product()?, before);
    // A node that gives no answer may be behind.
    durable::rename(&other.config(), &other.config().with_extension("away"))?;
    let said = core.upgrade_ends(20, &[])?;
    assert!(said.contains("n2 (no answer"), "{said}");
    durable::rename(&other.config().with_extension("away"), &other.config())?;
    // Looking and downloading is allowed.
    let plan = command::run(
        core.kato(&["node", "upgrade", "--plan"])?,
        Duration::from_secs(60),
        &[],
    )?;
    assert_eq!(plan.status.code(), Some(20));
    assert!(String::from_utf8_lossy(&plan.stdout).contains("refused    "));
    assert!(String::from_utf8_lossy(&plan.stderr).contains("other nodes are behind"));
    core.upgrade_ends(0, &["--download-only"])?;
    core.upgrade_ends(0, &["--force"])?;
    assert_eq!(core.installed().as_deref(), Some("2.0.0"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r31_other_nodes_are_upgraded_by_themselves_and_then_core_is() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (_host, core, other) = cluster(folder.path()).await?;
    other.upgrade_ends(0, &[])?;
    core.upgrade_ends(0, &[])?;
    assert_eq!(core.installed().as_deref(), Some("2.0.0"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r69_development_releases_are_found_only_when_they_are_asked_for() -> Result<()> {
    let mut development = TestRelease::standard("3.0.0");
    development.head.push_str("channel = \"development\"\n");
    let site = Site::with(&[
        TestRelease::standard("1.0.0"),
        TestRelease::standard("2.0.0"),
        development,
    ])
    .await?;
    // The first installation as well takes the newest stable one.
    site.node.upgrade_ends(0, &[])?;
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    let said = site.node.upgrade_ends(0, &[])?;
    assert!(said.contains("already at 2.0.0"), "{said}");
    let plan = command::run(
        site.node.kato(&["node", "upgrade", "--plan", "--development"])?,
        Duration::from_secs(60),
        &[],
    )?;
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(
        plan.contains("2.0.0 → 3.0.0") && plan.contains("development"),
        "{plan}"
    );
    site.node.upgrade_ends(0, &["--development"])?;
    assert_eq!(site.node.installed().as_deref(), Some("3.0.0"));
    // Back among the stable releases there is nothing newer, and nothing goes back.
    let said = site.node.upgrade_ends(0, &[])?;
    assert!(said.contains("already at 3.0.0"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r62_what_users_must_know_is_said_with_the_plan_and_after_success() -> Result<()> {
    let mut two = TestRelease::standard("2.0.0");
    two.tail = "[[notice]]\nwhen = \"plan\"\ntext = \"The console is away for a minute.\"\n\
                [[notice]]\nwhen = \"success\"\ntext = \"Users may need a hard reload (Ctrl+Shift+F5) of the console.\"\n"
        .into();
    let site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    let plan = command::run(
        site.node.kato(&["node", "upgrade", "--plan"])?,
        Duration::from_secs(60),
        &[],
    )?;
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(
        plan.contains("note       The console is away for a minute."),
        "{plan}"
    );
    assert!(!plan.contains("hard reload"), "{plan}");
    // Not before the new version was read back.
    let said = site.node.upgrade_ends(0, &[])?;
    let at = said.find("note: Users may need a hard reload (Ctrl+Shift+F5) of the console.");
    assert!(at.is_some() && at > said.find("  verify"), "{said}");
    Ok(())
}
