//! The machine restarts in the middle of an upgrade, and goes on by itself.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use integration_tests::{command, releases::TestRelease};
use serde_json::Value;

use crate::setup::Site;

const UNIT: &str = "etc/systemd/system/kato-resume.service";
const WANTS: &str = "etc/systemd/system/multi-user.target.wants/kato-resume.service";

/// A node at 1.0.0 under systemd, with a 2.0.0 that restarts the machine.
async fn site(tail: &str) -> Result<Site> {
    let mut two = TestRelease::standard("2.0.0");
    two.head = "restart = \"reboot\"\n".into();
    two.tail.push_str(tail);
    let site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    site.node.with_systemd()?;
    site.node
        .put("proc/sys/kernel/random/boot_id", "the first boot")?;
    Ok(site)
}

/// What systemd does with the enabled unit when the machine starts; gives the exit code.
fn start_of_the_machine(site: &Site) -> Result<Option<i32>> {
    let unit = site.node.text(UNIT).context("the unit is there")?;
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key));
    let waits_for = value("ConditionPathExists=").context("a condition")?;
    ensure!(Path::new(waits_for).exists(), "systemd would not start the unit");
    let command = value("ExecStart=").context("a command")?.replace('"', "");
    let mut words = command.split(' ');
    let mut kato = command::new(words.next().context("a program")?);
    kato.args(words);
    let path = site.node.config();
    let programs = path.parent().context("a folder")?.join("bin");
    kato.env("PATH", format!("{}:{}", programs.display(), command::PATH));
    Ok(command::run(kato, Duration::from_secs(60), &[])?.status.code())
}

fn asked(site: &Site) -> String {
    site.node.text("platform/systemctl").unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn r41_under_systemd_the_machine_goes_on_by_itself_after_its_restart() -> Result<()> {
    let site = site("").await?;
    let said = site.node.upgrade_ends(75, &["--skip-cache", "1"])?;
    assert!(said.contains("kato-resume.service goes on"), "{said}");
    assert!(site.node.path(WANTS).is_symlink());
    assert!(
        site.node
            .text(UNIT)
            .unwrap_or_default()
            .contains("--skip-cache=1")
    );
    assert_eq!(start_of_the_machine(&site)?, Some(0));
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    assert!(!site.node.path(UNIT).exists() && !site.node.path(WANTS).is_symlink());
    assert_eq!(
        asked(&site),
        "enable kato-resume.service\ndisable kato-resume.service\n"
    );
    assert_eq!(site.node.leftovers()?, Vec::<std::path::PathBuf>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r41_a_restart_that_did_not_happen_is_asked_for_again_and_never_taken_for_done() -> Result<()> {
    let site = site("").await?;
    site.node.put("platform/reboot-fails", "")?;
    site.node.upgrade_ends(75, &[])?;
    // The same boot: the unit, which systemd calls again and again, puts nothing off; an operator asks again.
    assert_eq!(start_of_the_machine(&site)?, Some(75));
    assert_eq!(site.node.calls("reboot"), 1);
    assert!(site.node.path("platform/retired").exists());
    site.node.upgrade_ends(75, &[])?;
    assert_eq!(site.node.calls("reboot"), 2);
    assert_eq!(site.node.installed().as_deref(), Some("1.0.0"));
    fs::remove_file(site.node.path("platform/reboot-fails"))?;
    site.node.upgrade_ends(75, &[])?;
    assert_eq!(start_of_the_machine(&site)?, Some(0));
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    Ok(())
}

/// The platform is silent when the unit begins, and again when the node is to be put back.
#[tokio::test(flavor = "multi_thread")]
async fn r41_the_unit_waits_for_a_platform_of_commands_and_stays_when_it_waits_in_vain() -> Result<()> {
    let mut site = site("").await?;
    site.node.add_settings("[upgrade]\nsettle = \"1s\"\n")?;
    site.node.upgrade_ends(75, &[])?;
    let (retired, rejoined) = (site.node.calls("retire"), site.node.calls("rejoin"));
    site.node.put("platform/fail-rejoin", "")?;
    assert_eq!(start_of_the_machine(&site)?, Some(21));
    assert!(
        site.node.calls("rejoin") > rejoined + 2,
        "it is asked again and again"
    );
    assert!(site.node.path(WANTS).is_symlink(), "systemd tries again");
    let events = fs::read_to_string(site.node.state("state/events.jsonl"))?;
    for words in [
        "waits for the platform to answer after the restart: ",
        "the platform did not answer within 1s after the restart of the machine",
    ] {
        assert!(events.contains(words), "{events}");
    }
    fs::remove_file(site.node.path("platform/fail-rejoin"))?;
    assert_eq!(start_of_the_machine(&site)?, Some(0));
    assert_eq!(
        site.node.calls("retire"),
        retired,
        "nothing was left that needs an empty node"
    );
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    assert!(!site.node.path("platform/retired").exists());
    assert!(!site.node.path(UNIT).exists() && !site.node.path(WANTS).is_symlink());
    Ok(())
}

/// Commands that are given beside an upgrade, and how they end.
const BESIDE: [(&[&str], Option<i32>); 11] = [
    (&["node", "upgrade", "--plan"], Some(0)),
    (&["node", "upgrade", "--plan", "--resume"], Some(0)),
    (&["node", "upgrade", "--download-only"], Some(0)),
    (
        &["node", "upgrade", "--update-kato", "--skip-confirmation"],
        Some(0),
    ),
    (&["patch", "install", "--local", "--plan"], Some(20)),
    (&["node", "upgrade", "--status"], Some(0)),
    (&["node", "version"], Some(0)),
    // Nobody can be asked.
    (&["node", "upgrade"], Some(2)),
    (&["node", "rejoin"], Some(20)),
    // What there is to say of a node that is half new.
    (&["customizations", "scan"], None),
    (&["node", "backup", "list"], Some(0)),
];

fn run(site: &Site, words: &[&str]) -> Result<(Option<i32>, String)> {
    let ended = command::run(site.node.kato(words)?, Duration::from_secs(60), &[])?;
    let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    Ok((ended.status.code(), said))
}

fn status(site: &Site) -> Result<Value> {
    let (_, said) = run(site, &["node", "upgrade", "--status", "--json"])?;
    serde_json::from_str(&said).with_context(|| said)
}

/// Whoever looks at a node that waits for its restart takes nothing from it, and it never says that it is idle.
#[tokio::test(flavor = "multi_thread")]
async fn r41_r67_what_is_asked_meanwhile_leaves_the_unit_and_the_node_says_what_it_waits_for() -> Result<()> {
    let site = site("").await?;
    site.node.put("platform/reboot-fails", "")?;
    site.node.upgrade_ends(75, &[])?;
    for came in [false, true] {
        if came {
            site.node
                .put("proc/sys/kernel/random/boot_id", "the second boot")?;
        }
        for (words, code) in BESIDE {
            let (ended, said) = run(&site, words)?;
            ensure!(
                code.is_none() || ended == code,
                "{words:?} ended with {ended:?}: {said}"
            );
            assert!(
                site.node.path(UNIT).exists() && site.node.path(WANTS).is_symlink(),
                "{words:?}"
            );
            assert!(site.node.path("platform/retired").exists(), "{words:?}");
            let status = status(&site)?;
            assert_eq!(
                (
                    &status["state"],
                    &status["restarting"],
                    &status["to"],
                    &status["restart"]["came"]
                ),
                (&"interrupted".into(), &true.into(), &"2.0.0".into(), &came.into()),
                "{words:?}: {status}"
            );
            assert_eq!(status["restart"]["by_itself"], true, "{status}");
        }
        let (_, said) = run(&site, &["node", "upgrade", "--status"])?;
        let words = if came {
            "the machine was restarted and the upgrade waits, asked for at "
        } else {
            "waits for the restart of the machine, asked for at "
        };
        assert!(
            said.contains(words)
                && said.contains("kato-resume.service goes on, or `kato node upgrade --resume`"),
            "{said}"
        );
    }
    assert_eq!(start_of_the_machine(&site)?, Some(0));
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    assert!(!site.node.path(UNIT).exists() && !site.node.path(WANTS).is_symlink());
    let status = status(&site)?;
    assert_eq!(
        (&status["state"], &status["restart"]),
        (&"idle".into(), &Value::Null)
    );
    Ok(())
}

/// In an emergency an operator has the last word; and of a run that failed, the node is the operator's.
#[tokio::test(flavor = "multi_thread")]
async fn c02_a_node_that_waits_for_its_restart_is_put_back_by_hand_only_when_that_is_meant() -> Result<()> {
    let mut site = site("").await?;
    site.node
        .add_settings("[upgrade]\non_failure = \"stop\"\nsettle = \"1s\"\n")?;
    site.node.upgrade_ends(75, &[])?;
    let (code, said) = run(&site, &["node", "rejoin"])?;
    assert_eq!(code, Some(20), "{said}");
    assert!(
        said.contains("the upgrade to 2.0.0 stands at the restart of the machine")
            && said.contains("`kato node rejoin --force`"),
        "{said}"
    );
    assert!(site.node.path("platform/retired").exists());
    let (code, said) = run(&site, &["node", "rejoin", "--force"])?;
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("the upgrade to 2.0.0 is not finished on this node"),
        "{said}"
    );
    assert!(!site.node.path("platform/retired").exists());
    assert_eq!(status(&site)?["restarting"], true);

    // The way on is open.
    site.node.put("platform/fail-health", "")?;
    assert_eq!(start_of_the_machine(&site)?, Some(21));
    assert_eq!(status(&site)?["state"], "failed");
    let (code, said) = run(&site, &["node", "rejoin"])?;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("is not finished on this node"), "{said}");
    fs::remove_file(site.node.path("platform/fail-health"))?;
    assert_eq!(start_of_the_machine(&site)?, Some(0));
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r41_c23_a_node_that_is_not_healthy_after_its_restart_goes_back_by_itself() -> Result<()> {
    let check = "[[check]]\nid = \"command\"\nargv = [\"test\", \"-e\", \"healthy\"]\ndeadline = \"0s\"\n";
    let site = site(check).await?;
    site.node.upgrade_ends(75, &[])?;
    assert_eq!(start_of_the_machine(&site)?, Some(75), "restarts on the way back");
    assert_eq!(start_of_the_machine(&site)?, Some(22));
    assert_eq!(site.node.installed().as_deref(), Some("1.0.0"));
    assert!(!site.node.path(UNIT).exists() && !site.node.path(WANTS).is_symlink());
    assert!(!site.node.path("platform/retired").exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r41_a_release_that_restarts_the_machine_needs_the_command_for_it() -> Result<()> {
    let site = site("").await?;
    let settings = fs::read_to_string(site.node.config())?;
    let lines: Vec<&str> = settings
        .lines()
        .filter(|line| !line.starts_with("reboot = "))
        .collect();
    kato_shared::durable::write(&site.node.config(), lines.join("\n").as_bytes(), 0o644)?;
    let before = site.node.product()?;
    let said = site.node.upgrade_ends(20, &[])?;
    assert!(said.contains("`[platform].reboot` is not set"), "{said}");
    assert_eq!(site.node.product()?, before);
    Ok(())
}
