//! Whole upgrades of nodes that are retired: what is recorded, who puts the node back, and what a lie costs.

use std::fs;

use anyhow::Result;
use integration_tests::{
    node::TestNode,
    releases::{Repository, TestRelease},
    static_server::StaticServer,
};

use crate::fakes::{Fake, pod};

/// A node with the role `dea` at 1.0.0, and a repository with 2.0.0.
pub(crate) struct Site {
    _folder: tempfile::TempDir,
    _host: StaticServer,
    pub(crate) node: TestNode,
}

impl Site {
    pub(crate) async fn at_one() -> Result<Self> {
        Self::before(&TestRelease::standard("2.0.0")).await
    }

    /// The same with `two` as 2.0.0.
    pub(crate) async fn before(two: &TestRelease) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let repository = Repository::empty(folder.path()).await?;
        repository.publish(&TestRelease::standard("1.0.0")).await?;
        repository.publish(two).await?;
        let host = StaticServer::start(&repository.dir()).await?;
        let node = TestNode::new(
            &folder.path().join("node"),
            &["dea"],
            &host.url(),
            &repository.root(),
        )?;
        node.upgrade_ends(0, &["--version", "1.0.0"])?;
        fs::remove_file(node.path("platform/calls"))?;
        Ok(Self {
            _folder: folder,
            _host: host,
            node,
        })
    }

    fn events(&self) -> String {
        fs::read_to_string(self.node.state("state/events.jsonl")).unwrap_or_default()
    }

    fn journal(&self) -> String {
        fs::read_to_string(self.node.state("state/journal.jsonl")).unwrap_or_default()
    }
}

/// The command that takes somebody's work off the node is called in the run; the record is there before.
#[tokio::test(flavor = "multi_thread")]
async fn c04_on_timeout_decides_what_becomes_of_work_that_stays() -> Result<()> {
    let mut site = Site::at_one().await?;
    site.node.put("platform/units", "3")?;
    site.node
        .add_settings("[upgrade]\nretire_timeout = \"1s\"\nretire_on_timeout = \"proceed\"\n")?;
    let said = site.node.upgrade_ends(0, &[])?;
    assert!(said.contains("3 units of work are left after 1s"), "{said}");
    assert_eq!(site.node.calls("force"), 0);
    assert!(!site.node.path("platform/retired").exists());

    let mut site = Site::at_one().await?;
    site.node.put("platform/units", "3")?;
    site.node
        .add_settings("[upgrade]\nretire_timeout = \"1s\"\nretire_on_timeout = \"force\"\n")?;
    let said = site.node.upgrade_ends(0, &[])?;
    assert!(said.contains("had to be ended by force"), "{said}");
    assert_eq!((site.node.calls("force"), site.node.calls("rejoin")), (1, 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c04_skip_drain_is_recorded_and_the_platform_is_not_asked() -> Result<()> {
    let site = Site::at_one().await?;
    site.node.put("platform/units", "3")?;
    site.node.upgrade_ends(0, &["--skip-drain"])?;
    assert_eq!((site.node.calls("retire"), site.node.calls("rejoin")), (0, 0));
    assert!(
        site.journal()
            .contains(r#""act":"skipped","step":"retire","reason":"--skip-drain"#)
    );
    assert!(site.events().contains("--skip-drain was given"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c02_work_on_a_node_that_somebody_else_cordoned_is_moved_and_the_node_stays_out() -> Result<()> {
    let mut site = Site::at_one().await?;
    let fake = Fake::kubectl()?;
    fake.put("pods/web-1", &pod("web-1", "ReplicaSet", "Running", ""))?;
    fake.put("cordoned", "")?;
    site.node
        .platform_is(&fake.lines("kubernetes", "timeout = \"30s\""))?;
    let said = site.node.upgrade_ends(0, &[])?;
    assert!(
        said.contains("the work that is still on it is moved away"),
        "{said}"
    );
    assert!(!fake.state("pods/web-1").exists() && fake.state("cordoned").exists());
    assert!(!fake.calls().iter().any(|call| call.starts_with("uncordon")));
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c02_a_node_that_is_put_back_while_its_backup_is_taken_is_retired_once_more() -> Result<()> {
    let mut site = Site::at_one().await?;
    let fake = Fake::kubectl()?;
    fake.put("pods/web-1", &pod("web-1", "ReplicaSet", "Running", ""))?;
    // Another tool uncordons the node while the platform's own state is saved.
    let meddler = format!(
        "{}backup = {{ argv = [\"rm\", \"-f\", {:?}] }}\n",
        fake.lines("kubernetes", "timeout = \"30s\""),
        fake.state("cordoned").display().to_string()
    );
    site.node.platform_is(&meddler)?;
    let said = site.node.upgrade_ends(0, &[])?;
    assert!(said.contains("it is retired again"), "{said}");
    let drains = fake
        .calls()
        .iter()
        .filter(|call| call.starts_with("drain"))
        .count();
    assert_eq!(drains, 2);
    assert!(
        !fake.state("cordoned").exists(),
        "it is back in service at the end"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c01_c05_a_drain_that_lies_changes_nothing_and_the_node_is_put_back() -> Result<()> {
    let mut site = Site::at_one().await?;
    let fake = Fake::kubectl()?;
    fake.put("pods/web-1", &pod("web-1", "ReplicaSet", "Running", ""))?;
    fake.put("lies", "")?;
    site.node
        .platform_is(&fake.lines("kubernetes", "timeout = \"30s\""))?;
    site.node.add_settings("[upgrade]\nretire_timeout = \"1s\"\n")?;
    let before = site.node.product()?;
    let said = site.node.upgrade_ends(20, &[])?;
    assert!(said.contains("shop/web-1"), "{said}");
    assert_eq!(site.node.product()?, before);
    assert!(!fake.state("cordoned").exists());
    assert!(!site.node.state("state/out-of-service.json").exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_verb_can_be_a_command_and_a_platform_can_be_nobody() -> Result<()> {
    let mut site = Site::at_one().await?;
    let fake = Fake::kubectl()?;
    let lines = format!(
        "{}rejoin = {{ argv = [\"touch\", {:?}] }}\n",
        fake.lines("kubernetes", "timeout = \"30s\""),
        site.node.path("rejoined").display().to_string()
    );
    site.node.platform_is(&lines)?;
    site.node.upgrade_ends(0, &[])?;
    assert!(site.node.path("rejoined").exists() && fake.state("cordoned").exists());

    let mut site = Site::at_one().await?;
    let command = format!(
        "adapter = \"none\"\nretire = {{ argv = [\"touch\", {:?}] }}\n",
        site.node.path("asked").display().to_string()
    );
    site.node.platform_is(&command)?;
    site.node.upgrade_ends(0, &[])?;
    assert!(!site.node.path("asked").exists());
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    Ok(())
}

const UNITS: &str = "units = { dea = [\"front.service\", \"back.service\"] }, settle = \"0s\"";

fn with_units() -> Result<Fake> {
    let fake = Fake::systemctl()?;
    for unit in ["front", "back"] {
        fake.put(&format!("units/{unit}.service"), "loaded active running 0\n")?;
    }
    Ok(fake)
}

/// A release that restarts nothing, one whose module restarts one unit of two, and one that is rolled back: what the retirement has
/// stopped runs when the node has to show that it is well.
#[tokio::test(flavor = "multi_thread")]
async fn r41_what_was_stopped_to_retire_the_node_runs_before_it_is_judged() -> Result<()> {
    let nothing = TestRelease::standard("2.0.0");
    let mut one_unit = nothing.clone();
    one_unit.modules[0]
        .keys
        .push_str("restart = [\"front.service\"]\n");
    let mut sick = nothing.clone();
    sick.tail
        .push_str("[[check]]\nid = \"command\"\nargv = [\"false\"]\ndeadline = \"0s\"\n");
    for (release, code) in [(nothing, 0), (one_unit, 0), (sick, 22)] {
        let mut site = Site::before(&release).await?;
        let fake = with_units()?;
        site.node.platform_is(&fake.lines("systemd", UNITS))?;
        site.node.add_settings("[upgrade]\nsettle = \"5s\"\n")?;
        let said = site.node.upgrade_ends(code, &[])?;
        assert!(!said.contains("names nothing of it"), "{said}");
        let calls = fake.calls();
        assert!(calls.iter().any(|call| call.starts_with("stop -- ")), "{calls:?}");
        for unit in ["units/front.service", "units/back.service"] {
            assert_eq!(fake.text(unit), "loaded active running 0\n", "{unit}: {calls:?}");
        }

        let mut site = Site::before(&release).await?;
        let fake = Fake::docker()?;
        fake.put("containers/front.service", "running healthy")?;
        fake.put("containers/back.service", "running healthy")?;
        fake.put("containers/other", "exited")?;
        site.node
            .platform_is(&fake.lines("docker", "timeout = \"30s\""))?;
        site.node.add_settings("[upgrade]\nsettle = \"5s\"\n")?;
        site.node.upgrade_ends(code, &[])?;
        assert_eq!(fake.text("containers/back.service").trim(), "running healthy");
        assert_eq!(
            fake.text("containers/other").trim(),
            "exited",
            "nobody's but the operator's"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r38_a_role_that_is_to_be_retired_and_has_no_unit_is_told() -> Result<()> {
    let mut site = Site::at_one().await?;
    let fake = with_units()?;
    let units = "units = { daemon = [\"front.service\"] }, settle = \"0s\"";
    site.node.platform_is(&fake.lines("systemd", units))?;
    let said = site.node.upgrade_ends(0, &[])?;
    assert!(
        said.contains(
            "`upgrade.retire_roles` has the role `dea`, and `[platform.systemd].units` names nothing of it"
        ),
        "{said}"
    );
    Ok(())
}
