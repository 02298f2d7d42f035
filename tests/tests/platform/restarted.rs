//! The machine restarts in the middle of an upgrade, and the platform is up later than kato.

use std::process::Stdio;

use anyhow::{Context as _, Result};
use integration_tests::{command, releases::TestRelease, wait};

use crate::{
    LONG,
    fakes::{Fake, allocation, pod},
    retiring::Site,
};

const BOOT: &str = "proc/sys/kernel/random/boot_id";

/// An adapter with its fake: the lines of its settings, its work before the upgrade, and what says then that it is in service again.
struct Case {
    adapter: &'static str,
    fake: Fake,
    more: &'static str,
    /// How the call begins that takes the node out of service.
    retires: &'static str,
}

/// Those of `adapters`.
fn cases(adapters: &[&str]) -> Result<Vec<Case>> {
    let nomad = Fake::nomad()?;
    nomad.put("allocations/a1", &allocation("a1", "running", "service"))?;
    let kubectl = Fake::kubectl()?;
    kubectl.put("pods/web-1", &pod("web-1", "ReplicaSet", "Running", ""))?;
    let docker = Fake::docker()?;
    docker.put("containers/web", "running healthy")?;
    let systemctl = Fake::systemctl()?;
    systemctl.put("units/web.service", "loaded active running 0\n")?;
    let case = |adapter, fake, more, retires| Case {
        adapter,
        fake,
        more,
        retires,
    };
    let mut all = vec![
        case("nomad", nomad, "timeout = \"30s\"", "node drain -enable"),
        case("kubernetes", kubectl, "timeout = \"30s\"", "drain "),
        case("docker", docker, "timeout = \"30s\"", "stop "),
        case(
            "systemd",
            systemctl,
            "units = { dea = [\"web.service\"] }, settle = \"0s\"",
            "stop ",
        ),
    ];
    all.retain(|case| adapters.contains(&case.adapter));
    Ok(all)
}

impl Case {
    fn times_retired(&self) -> usize {
        let calls = self.fake.calls();
        calls.iter().filter(|call| call.starts_with(self.retires)).count()
    }

    fn is_in_service(&self) -> bool {
        match self.adapter {
            "nomad" => !self.fake.state("ineligible").exists(),
            "kubernetes" => !self.fake.state("cordoned").exists(),
            "docker" => self.fake.text("containers/web").trim() == "running healthy",
            _systemd => self.fake.text("units/web.service") == "loaded active running 0\n",
        }
    }
}

/// A node that waits for its restart.
async fn waiting(case: &Case, settle: &str) -> Result<Site> {
    let mut two = TestRelease::standard("2.0.0");
    two.head = "restart = \"reboot\"\n".into();
    let mut site = Site::before(&two).await?;
    let lines = case.fake.lines(case.adapter, case.more);
    site.node
        .platform_is(&format!("{lines}reboot = {{ argv = [\"true\"] }}\n"))?;
    site.node
        .add_settings(&format!("[upgrade]\nsettle = \"{settle}\"\n"))?;
    site.node.put(BOOT, "the first boot")?;
    site.node.upgrade_ends(75, &[])?;
    assert!(!case.is_in_service(), "{}", case.adapter);
    Ok(site)
}

/// Goes on, has the platform come up when it is waited for, and gives what was said.
fn goes_on(site: &Site, case: &Case) -> Result<String> {
    let mut kato = site.node.kato(&["node", "upgrade", "--resume"])?;
    let kato = kato.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let events = || std::fs::read_to_string(site.node.state("state/events.jsonl")).unwrap_or_default();
    wait::until("the platform is waited for", LONG, || {
        events()
            .contains("waits for the platform to answer after the restart: ")
            .then_some(())
    })?;
    case.fake.remove("away")?;
    let ended = kato.wait_with_output()?;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    anyhow::ensure!(ended.status.success(), "{}: {said}", case.adapter);
    Ok(said)
}

#[tokio::test(flavor = "multi_thread")]
async fn r41_a_platform_that_is_starting_is_waited_for_and_an_unchanged_node_is_not_emptied_again()
-> Result<()> {
    for case in cases(&["nomad", "kubernetes", "docker", "systemd"])? {
        let site = waiting(&case, "60s").await?;
        site.node.put(BOOT, "the second boot")?;
        case.fake.put("away", "")?;
        let said = goes_on(&site, &case)?;
        let adapter = case.adapter;
        assert!(
            said.contains("retire: skipped, the machine was restarted, and nothing is left"),
            "{adapter}: {said}"
        );
        assert!(!said.contains("warning"), "{adapter}: {said}");
        assert_eq!(case.times_retired(), 1, "{adapter}: {:?}", case.fake.calls());
        assert_eq!(site.node.installed().as_deref(), Some("2.0.0"), "{adapter}");
        assert!(case.is_in_service(), "{adapter}");
        assert_eq!(
            site.node.leftovers()?,
            Vec::<std::path::PathBuf>::new(),
            "{adapter}"
        );
    }
    Ok(())
}

/// Something is left to install: the node is out of service for it, whatever its start made of it.
#[tokio::test(flavor = "multi_thread")]
async fn r41_what_is_left_to_change_after_the_restart_is_changed_on_an_empty_node() -> Result<()> {
    for case in cases(&["kubernetes", "docker", "systemd"])? {
        let site = waiting(&case, "60s").await?;
        site.node.put(BOOT, "the second boot")?;
        let latch = site.node.latches().pop().context("a latch")?;
        std::fs::remove_file(site.node.state("tmp/module-latches").join(latch))?;
        if case.adapter == "systemd" {
            // Enabled units start with the machine.
            case.fake.put("units/web.service", "loaded active running 0\n")?;
        } else {
            case.fake.remove("ineligible")?;
            case.fake.remove("cordoned")?;
        }
        if case.adapter == "docker" {
            case.fake.put("containers/web", "running healthy")?;
        }
        case.fake.put("away", "")?;
        goes_on(&site, &case)?;
        assert_eq!(
            case.times_retired(),
            2,
            "{}: {:?}",
            case.adapter,
            case.fake.calls()
        );
        assert_eq!(
            site.node.installed().as_deref(),
            Some("2.0.0"),
            "{}",
            case.adapter
        );
        assert!(case.is_in_service(), "{}", case.adapter);
    }
    Ok(())
}

/// What is silent for too long is said, with how long was waited, and the same command goes on when it answers.
#[tokio::test(flavor = "multi_thread")]
async fn r41_a_platform_that_does_not_come_up_in_its_time_ends_the_run_and_not_the_upgrade() -> Result<()> {
    for case in cases(&["nomad", "systemd"])? {
        let site = waiting(&case, "1s").await?;
        site.node.put(BOOT, "the second boot")?;
        let latch = site.node.latches().pop().context("a latch")?;
        std::fs::remove_file(site.node.state("tmp/module-latches").join(latch))?;
        case.fake.put("away", "")?;
        let said = site.node.upgrade_ends(21, &["--resume"])?;
        assert!(
            said.contains("the platform did not answer within 1s after the restart of the machine")
                && said.contains("connection refused")
                && said.contains("`kato node upgrade --resume`"),
            "{}: {said}",
            case.adapter
        );
        assert!(site.node.state("state/upgrade.json").exists(), "{}", case.adapter);
        case.fake.remove("away")?;
        let ended = command::run(site.node.kato(&["node", "upgrade", "--resume"])?, LONG, &[])?;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        anyhow::ensure!(ended.status.success(), "{}: {said}", case.adapter);
        assert!(case.is_in_service(), "{}", case.adapter);
    }
    Ok(())
}

/// One that says nothing at all says nothing about the release: no way back, no second restart, and the same command goes on.
#[tokio::test(flavor = "multi_thread")]
async fn r41_c23_a_platform_that_is_silent_after_the_restart_ends_the_run_and_the_upgrade_stays() -> Result<()>
{
    for case in cases(&["nomad", "kubernetes", "docker", "systemd"])? {
        let adapter = case.adapter;
        let site = waiting(&case, "1s").await?;
        site.node.put(BOOT, "the second boot")?;
        case.fake.put("away", "")?;
        for _try in 0..2 {
            let said = site.node.upgrade_ends(21, &["--resume"])?;
            assert!(
                said.contains("the platform did not answer within 1s after the restart of the machine")
                    && said.contains("connection refused")
                    && said.contains("`kato node upgrade --resume`")
                    && said.contains("--skip-drain` gives it up and brings 1.0.0 back")
                    && !said.contains("going back"),
                "{adapter}: {said}"
            );
        }
        assert_eq!(case.times_retired(), 1, "{adapter}: {:?}", case.fake.calls());
        assert_eq!(site.node.installed().as_deref(), Some("1.0.0"), "{adapter}");
        assert!(!site.node.state("state/quarantine.json").exists(), "{adapter}");
        case.fake.remove("away")?;
        site.node.upgrade_ends(0, &["--resume"])?;
        assert_eq!(site.node.installed().as_deref(), Some("2.0.0"), "{adapter}");
        assert!(case.is_in_service(), "{adapter}");
        assert_eq!(
            site.node.leftovers()?,
            Vec::<std::path::PathBuf>::new(),
            "{adapter}"
        );
    }
    Ok(())
}

/// The hint's way back, for a release that keeps the platform from answering.
#[tokio::test(flavor = "multi_thread")]
async fn r41_c23_a_release_that_silences_its_platform_is_given_up_by_its_backup() -> Result<()> {
    for case in cases(&["nomad", "systemd"])? {
        let adapter = case.adapter;
        let site = waiting(&case, "1s").await?;
        site.node.put(BOOT, "the second boot")?;
        case.fake.put("away", "")?;
        let said = site.node.upgrade_ends(21, &["--resume"])?;
        let (_, command) = said.split_once("`kato node restore ").context(said.clone())?;
        let (id, _) = command.split_once(" --skip-drain`").context(said.clone())?;
        // The old release's answers again.
        case.fake.remove("away")?;
        let words = ["node", "restore", id, "--skip-drain", "--skip-confirmation"];
        let ended = command::run(site.node.kato(&words)?, LONG, &[])?;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        anyhow::ensure!(ended.status.success(), "{adapter}: {said}");
        assert_eq!(site.node.installed().as_deref(), Some("1.0.0"), "{adapter}");
        assert!(!site.node.state("state/upgrade.json").exists(), "{adapter}");
        assert!(case.is_in_service(), "{adapter}");
    }
    Ok(())
}

/// The node's own command for its health is its word, however the platform is: the node is not well, and goes back.
#[tokio::test(flavor = "multi_thread")]
async fn r41_c23_a_node_that_is_said_to_be_unwell_after_the_restart_goes_back() -> Result<()> {
    let case = cases(&["docker"])?.pop().context("docker")?;
    let mut site = waiting(&case, "1s").await?;
    let lines = format!(
        "{}reboot = {{ argv = [\"true\"] }}\n",
        case.fake.lines("docker", case.more)
    );
    site.node
        .platform_is(&format!("{lines}health = {{ argv = [\"false\"] }}\n"))?;
    site.node.put(BOOT, "the second boot")?;
    let said = site.node.upgrade_ends(75, &["--resume"])?;
    assert!(said.contains("going back to 1.0.0"), "{said}");
    // On the way back silence decides nothing.
    case.fake.put("away", "")?;
    site.node.put(BOOT, "the third boot")?;
    let said = site.node.upgrade_ends(21, &["--resume"])?;
    assert!(
        said.contains("did not answer within 1s after the restart of the machine")
            && !said.contains("kato node restore"),
        "{said}"
    );
    case.fake.remove("away")?;
    site.node.platform_is(&lines)?;
    site.node.upgrade_ends(22, &["--resume"])?;
    assert_eq!(site.node.installed().as_deref(), Some("1.0.0"));
    assert!(case.is_in_service());
    Ok(())
}
