//! A signal ends a run at once while nothing of the node was changed, also in the middle of a command of the platform; later on
//! it ends every wait for the platform, and a node that was taken out of service is put back first.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::Result;
use integration_tests::{command, node::TestNode, releases::TestRelease, wait};
use kato_upgrader::run::stop::PATIENCE;
use rustix::process::{Pid, Signal};

use crate::setup::Site;

const LONG: Duration = Duration::from_secs(60);

/// Far less than the command would take.
const SOON: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn c20_a_signal_ends_preflight_in_the_middle_of_a_command() -> Result<()> {
    for signal in [Signal::TERM, Signal::INT] {
        let mut site = Site::at_one().await?;
        let noted = site.node.path("platform/sleeper");
        // A child of the command as well: it must not be left behind.
        site.node.platform_is(&format!(
            "health = {{ argv = [\"sh\", \"-c\", \"sleep 600 & echo $! > {0}.new; mv {0}.new {0}; wait\"], timeout = \"10m\" }}\n",
            noted.display()
        ))?;
        let before = site.node.product()?;
        let mut kato = site.node.kato(&["node", "upgrade", "--skip-confirmation"])?;
        let mut kato = kato.stderr(Stdio::piped()).spawn()?;
        let sleeper = wait::until("the platform is asked", LONG, || {
            site.node.text("platform/sleeper")
        })?;
        let process = Path::new("/proc").join(sleeper.trim());
        assert!(process.exists());
        if let Some(pid) = Pid::from_raw(i32::try_from(kato.id())?) {
            rustix::process::kill_process(pid, signal)?;
        }
        let status = command::end(&mut kato, "kato node upgrade", SOON)?;
        assert_eq!(status.code(), Some(75), "{signal:?}");
        wait::until("what it had started is gone", SOON, || {
            (!process.exists()).then_some(())
        })?;
        assert_eq!(site.node.product()?, before);
        // The lock is free, and the same command goes on.
        site.node.platform_is("")?;
        site.node.upgrade_ends(0, &[])?;
    }
    Ok(())
}

/// `kato <arguments>`, whose platform hangs when it is asked for `verb`: the child, and what the platform had started.
fn hanging(node: &TestNode, arguments: &[&str], verb: &str) -> Result<(Child, PathBuf)> {
    node.put(&format!("platform/hang-{verb}"), "")?;
    let kato = node.kato(arguments)?.stderr(Stdio::piped()).spawn()?;
    let sleeper = wait::until("the platform hangs", LONG, || node.text("platform/sleeper"))?;
    fs::remove_file(node.path("platform/sleeper"))?;
    Ok((kato, Path::new("/proc").join(sleeper.trim())))
}

fn send(kato: &Child, signal: Signal) -> Result<()> {
    if let Some(pid) = Pid::from_raw(i32::try_from(kato.id())?) {
        rustix::process::kill_process(pid, signal)?;
    }
    Ok(())
}

fn is_gone(process: &Path) -> Result<()> {
    wait::until("what the platform had started is gone", SOON, || {
        (!process.exists()).then_some(())
    })
}

const UPGRADE: [&str; 3] = ["node", "upgrade", "--skip-confirmation"];

#[tokio::test(flavor = "multi_thread")]
async fn c01_c20_a_signal_ends_the_wait_for_a_platform_that_hangs_and_the_node_is_put_back() -> Result<()> {
    for (verb, signal) in [("restart", Signal::TERM), ("version", Signal::INT)] {
        let mut two = TestRelease::standard("2.0.0");
        two.head = "restart = \"services\"\n".into();
        let site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
        site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
        let (mut kato, process) = hanging(&site.node, &UPGRADE, verb)?;
        assert!(site.node.path("platform/retired").exists(), "{verb}");
        send(&kato, signal)?;
        let status = command::end(&mut kato, "kato node upgrade", SOON)?;
        assert_eq!(status.code(), Some(75), "{verb}");
        is_gone(&process)?;
        // In service, no failure to be tolerant about, and the journal says how far it came.
        assert!(!site.node.path("platform/retired").exists(), "{verb}");
        assert!(!site.node.state("tmp/upgrade-failed").exists(), "{verb}");
        let journal = site
            .node
            .text("var/stackato/upgrade/state/journal.jsonl")
            .unwrap_or_default();
        assert!(
            journal.contains("the run was stopped by a signal"),
            "{verb}: {journal}"
        );
        let calls = site.node.calls("restart");
        fs::remove_file(site.node.path(&format!("platform/hang-{verb}")))?;
        site.node.upgrade_ends(0, &[])?;
        assert_eq!(site.node.installed().as_deref(), Some("2.0.0"), "{verb}");
        assert!(site.node.calls("restart") > calls, "{verb}: asked once more");
        assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new(), "{verb}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c01_a_rejoin_that_hangs_after_a_signal_has_a_bound_and_is_owed_by_the_next_command() -> Result<()> {
    let site = Site::at_one().await?;
    let (mut kato, process) = hanging(&site.node, &UPGRADE, "rejoin")?;
    send(&kato, Signal::TERM)?;
    let said = kato.stderr.take();
    let status = command::end(&mut kato, "kato node upgrade", PATIENCE + SOON)?;
    let said = said.map(std::io::read_to_string).transpose()?.unwrap_or_default();
    assert_eq!(status.code(), Some(75), "{said}");
    is_gone(&process)?;
    assert!(
        said.contains("hint: the node is out of service; put it back with `kato node rejoin`"),
        "{said}"
    );
    assert!(site.node.state("state/out-of-service.json").exists());
    // The command that puts it back may be stopped as well, at once.
    let (mut kato, process) = hanging(&site.node, &["node", "rejoin"], "rejoin")?;
    send(&kato, Signal::INT)?;
    let status = command::end(&mut kato, "kato node rejoin", SOON)?;
    assert_eq!(status.code(), Some(75));
    is_gone(&process)?;
    fs::remove_file(site.node.path("platform/hang-rejoin"))?;
    site.node.upgrade_ends(0, &[])?;
    assert!(!site.node.path("platform/retired").exists());
    assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());
    Ok(())
}
