//! Out of service and back: retire, rejoin, restart, one run at a time, detached runs.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use integration_tests::{command, releases::TestRelease, static_server::StaticServer, wait};
use serde_json::Value;

use crate::setup::Site;

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn r38_c05_the_node_is_retired_until_the_count_says_empty_twice_and_put_back() -> Result<()> {
    let site = Site::at_one().await?;
    fs::remove_file(site.node.path("platform/calls"))?;
    site.node.upgrade_ends(0, &[])?;
    assert_eq!((site.node.calls("retire"), site.node.calls("rejoin")), (1, 1));
    // Once to see whether somebody else retired it, twice to see it empty, once more before the first change; besides, as often as the
    // platform takes time to move the work away.
    assert!(site.node.calls("resident") >= 4);
    assert!(!site.node.path("platform/retired").exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c01_c04_a_node_that_does_not_become_empty_is_put_back_at_once_and_nothing_is_changed() -> Result<()>
{
    let mut site = Site::at_one().await?;
    site.node.add_settings("[upgrade]\nretire_timeout = \"1s\"\n")?;
    site.node.put("platform/units", "3")?;
    let before = site.node.product()?;
    let said = site.node.upgrade_ends(20, &[])?;
    assert!(
        said.contains("3 units of work") && said.contains("the node is back in service"),
        "{said}"
    );
    assert!(!site.node.path("platform/retired").exists());
    assert!(!site.node.state("state/out-of-service.json").exists());
    assert_eq!(site.node.product()?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c02_a_node_that_somebody_else_took_out_of_service_stays_out() -> Result<()> {
    let site = Site::at_one().await?;
    site.node.put("platform/retired", "")?;
    fs::remove_file(site.node.path("platform/calls"))?;
    site.node.upgrade_ends(0, &[])?;
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    assert_eq!((site.node.calls("retire"), site.node.calls("rejoin")), (0, 0));
    assert!(site.node.path("platform/retired").exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r41_services_are_restarted_and_the_version_is_read_back() -> Result<()> {
    let mut two = TestRelease::standard("2.0.0");
    two.head = "restart = \"services\"\n".into();
    let site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    site.node.upgrade_ends(0, &[])?;
    assert_eq!(site.node.text("platform/running").as_deref(), Some("2.0.0\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r41_a_restart_of_the_machine_ends_the_run_and_resume_goes_on_after_it() -> Result<()> {
    let mut two = TestRelease::standard("2.0.0");
    two.head = "restart = \"reboot\"\n".into();
    let site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    site.node
        .put("proc/sys/kernel/random/boot_id", "the first boot")?;
    site.node.put("platform/reboot-fails", "")?;
    for _same_boot in 0..2 {
        let said = site.node.upgrade_ends(75, &[])?;
        assert!(said.contains("kato node upgrade --resume"), "{said}");
        assert_eq!(site.node.installed().as_deref(), Some("1.0.0"));
    }
    assert_eq!(site.node.calls("reboot"), 2);
    // Who only waits for it does not put it off.
    let said = site.node.upgrade_ends(75, &["--resume"])?;
    assert!(said.contains("has not come yet"), "{said}");
    assert_eq!(site.node.calls("reboot"), 2);
    fs::remove_file(site.node.path("platform/reboot-fails"))?;
    site.node.upgrade_ends(75, &[])?;
    assert!(
        site.node.path("platform/retired").exists(),
        "it is out of service until it is verified"
    );
    let said = site.node.upgrade_ends(0, &["--resume"])?;
    assert!(
        said.contains("restart: skipped, the machine was restarted"),
        "{said}"
    );
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    assert!(!site.node.path("platform/retired").exists());
    let said = site.node.upgrade_ends(0, &["--resume"])?;
    assert!(said.contains("no interrupted upgrade"), "{said}");
    Ok(())
}

/// A site whose 2.0.0 waits in its health check until the file `go-on` is there.
async fn waiting() -> Result<Site> {
    let mut two = TestRelease::standard("2.0.0");
    two.tail
        .push_str("[[check]]\nid = \"command\"\nargv = [\"test\", \"-e\", \"go-on\"]\n");
    let site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    Ok(site)
}

fn json(output: &Output) -> Result<Value> {
    serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))
}

fn run(site: &Site, arguments: &[&str]) -> Result<Output> {
    command::run(site.node.kato(arguments)?, LONG, &[])
}

/// Starts the run `id` detached, and gives the number after which its events begin.
fn detached(site: &Site, id: &str) -> Result<Output> {
    run(
        site,
        &["node", "upgrade", "--skip-confirmation", "--detach", "--run", id],
    )
}

/// Waits until the run is in its health check.
fn in_its_check(site: &Site) -> Result<()> {
    wait::until("the health check of the run", LONG, || {
        let events = fs::read_to_string(site.node.state("state/events.jsonl")).unwrap_or_default();
        events.contains("waiting for test -e go-on").then_some(())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn c21_a_detached_run_outlives_its_session_and_its_events_can_be_followed() -> Result<()> {
    let site = waiting().await?;
    let started = json(&detached(&site, "r-1")?)?;
    assert_eq!((&started["schema"], &started["run"]), (&1.into(), &"r-1".into()));
    let after = started["after_seq"].to_string();
    in_its_check(&site)?;
    let status = json(&run(&site, &["node", "upgrade", "--status", "--json"])?)?;
    assert_eq!(
        (&status["state"], &status["run"], &status["step"]),
        (&"running".into(), &"r-1".into(), &"verify".into())
    );
    assert_eq!(status["out_of_service"], true);

    site.node.put("go-on", "")?;
    let follow = run(&site, &["node", "events", "--after", &after, "--follow"])?;
    let text = String::from_utf8(follow.stdout)?;
    let events: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let names: Vec<_> = events
        .iter()
        .filter_map(|event| event["event"].as_str())
        .collect();
    assert_eq!(
        (names.first(), names.last()),
        (Some(&"run_started"), Some(&"run_finished"))
    );
    assert!(events.iter().all(|event| event["run"] == "r-1"));
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c03_a_second_run_is_refused_with_the_name_of_the_first() -> Result<()> {
    let site = waiting().await?;
    detached(&site, "r-1")?;
    in_its_check(&site)?;
    let said = site.node.upgrade_ends(25, &[])?;
    assert!(said.contains("run r-1, process "), "{said}");
    let refused = detached(&site, "r-2")?;
    assert_eq!(refused.status.code(), Some(25));
    assert_eq!(json(&refused)?["holder"]["run"], "r-1");
    site.node.put("go-on", "")?;
    run(&site, &["node", "events", "--follow"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_run_that_is_cut_off_is_seen_as_interrupted() -> Result<()> {
    let site = waiting().await?;
    detached(&site, "r-1")?;
    in_its_check(&site)?;
    let holder: Value = serde_json::from_slice(&fs::read(site.node.state("state/lock"))?)?;
    let pid = holder["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    let pid = pid
        .and_then(rustix::process::Pid::from_raw)
        .context("a process id")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    let follow = run(&site, &["node", "events", "--follow"])?;
    assert_eq!(follow.status.code(), Some(75));
    let status = json(&run(&site, &["node", "upgrade", "--status", "--json"])?)?;
    assert_eq!(
        (&status["state"], &status["out_of_service"]),
        (&"interrupted".into(), &true.into())
    );
    site.node.put("go-on", "")?;
    site.node.upgrade_ends(0, &[])?;
    assert!(!site.node.path("platform/retired").exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c01_a_run_that_is_stopped_puts_the_node_back_into_service() -> Result<()> {
    let site = waiting().await?;
    let mut kato = site.node.kato(&["node", "upgrade", "--skip-confirmation"])?;
    let mut child = kato.stderr(Stdio::null()).spawn()?;
    in_its_check(&site)?;
    assert!(site.node.path("platform/retired").exists());
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
    let status = command::end(&mut child, "kato node upgrade", LONG)?;
    assert_eq!(status.code(), Some(75));
    assert!(!site.node.path("platform/retired").exists());
    site.node.put("go-on", "")?;
    site.node.upgrade_ends(0, &[])?;
    assert_eq!(site.node.leftovers()?, Vec::<std::path::PathBuf>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c10_a_service_must_answer_and_go_on_answering() -> Result<()> {
    let service = tempfile::tempdir()?;
    let host = StaticServer::start(service.path()).await?;
    let mut two = TestRelease::standard("2.0.0");
    write!(
        two.tail,
        "[[check]]\nid = \"http\"\nurl = \"{}info\"\nmin_healthy = \"1s\"\ndeadline = \"2s\"\n",
        host.url()
    )?;
    let mut site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
    site.node.add_settings("[upgrade]\non_failure = \"stop\"\n")?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    let said = site.node.upgrade_ends(21, &[])?;
    assert!(said.contains("answers with status 404, expected 200"), "{said}");
    assert_eq!(site.node.installed().as_deref(), Some("1.0.0"));
    kato_shared::durable::write(&service.path().join("info"), b"fine", 0o644)?;
    host.reset();
    site.node.upgrade_ends(0, &[])?;
    // Good from the first moment to the end of its second: more than two looks.
    assert!(host.count("/info") > 2, "{}", host.count("/info"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c10_checks_that_are_never_good_together_show_nothing() -> Result<()> {
    let mut two = TestRelease::standard("2.0.0");
    for argv in ["\"test\", \"!\", \"-e\", \"asked\"", "\"touch\", \"asked\""] {
        write!(
            two.tail,
            "[[check]]\nid = \"command\"\nargv = [{argv}]\nmin_healthy = \"1s\"\ndeadline = \"2s\"\n"
        )?;
    }
    let mut site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
    site.node.add_settings("[upgrade]\non_failure = \"stop\"\n")?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    let said = site.node.upgrade_ends(21, &[])?;
    assert!(
        said.contains("the check `test ! -e asked` was not good within 2s"),
        "{said}"
    );
    assert_eq!(site.node.installed().as_deref(), Some("1.0.0"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_version_is_waited_for_as_long_as_the_settings_say() -> Result<()> {
    let mut site = Site::at_one().await?;
    site.node
        .add_settings("[upgrade]\non_failure = \"stop\"\nsettle = \"1s\"\n")?;
    site.node.put("platform/version-is", "0.5.0")?;
    let said = site.node.upgrade_ends(21, &[])?;
    assert!(
        said.contains("the check `version-readback` was not good within 1s") && said.contains("0.5.0"),
        "{said}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_installed_is_open_to_services_however_closed_the_callers_shell_is() -> Result<()> {
    let site = Site::at_one().await?;
    let kato = site.node.kato(&["node", "upgrade", "--skip-confirmation"])?;
    let mut closed = command::new("sh");
    closed.args(["-c", "umask 077; exec \"$0\" \"$@\""]);
    closed.arg(kato.get_program()).args(kato.get_args());
    closed.envs(kato.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command::run(closed, LONG, &[])?;
    assert!(output.status.success(), "{output:?}");
    for folder in ["s/code/console", "s/code/app/current/"] {
        let mode = fs::metadata(site.node.path(folder))?.permissions().mode();
        assert_eq!(mode & 0o777, 0o755, "{folder}");
    }
    Ok(())
}
