//! The question before an upgrade, on a terminal: `script` of util-linux makes one.

use std::{fs, io::Write as _, process::Stdio, time::Duration};

use anyhow::{Context as _, Result};
use integration_tests::{command, wait};

use crate::setup::Site;

const LONG: Duration = Duration::from_secs(60);

/// Runs `kato node upgrade` on a terminal, types `answer` when it asks, and gives its exit code and all that was to be read.
fn asked(site: &Site, answer: &[u8]) -> Result<(Option<i32>, String)> {
    let screen = site.folder.path().join("screen");
    let kato = site.node.kato(&["node", "upgrade"])?;
    let mut script = command::new("script");
    script
        .args([
            "--quiet",
            "--flush",
            "--return",
            "--command",
            &format!("exec {}", command::line(&kato)),
        ])
        .arg(&screen)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = script.spawn()?;
    let read = || fs::read(&screen).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let question = wait::until("the question", LONG, || {
        read().ok().filter(|text| text.contains("[y/N]")).map(|_| ())
    });
    let mut keyboard = child.stdin.take().context("a keyboard")?;
    keyboard.write_all(answer)?;
    let status = if answer.is_empty() {
        drop(keyboard);
        command::end(&mut child, "script", LONG)
    } else {
        let status = command::end(&mut child, "script", LONG);
        drop(keyboard);
        status
    }?;
    question?;
    Ok((status.code(), read()?))
}

#[tokio::test(flavor = "multi_thread")]
async fn r66_on_a_terminal_the_plan_is_shown_and_only_a_yes_begins() -> Result<()> {
    let site = Site::at_one().await?;
    site.node.put("s/code/console/theme.css", "theme")?;
    let before = site.node.product()?;
    for no in [&b"n\n"[..], b"\n", b"yess\n", b""] {
        let (code, screen) = asked(&site, no)?;
        assert_eq!(code, Some(3), "{screen}");
        assert!(screen.contains("nothing was changed"), "{screen}");
        assert_eq!(site.node.product()?, before);
        assert!(!site.node.state("state/upgrade.json").exists());
        assert!(!site.node.state("tmp/upgrade-failed").exists());
        assert_eq!(
            site.node.calls("retire"),
            1,
            "only the first installation retired the node"
        );
    }
    let (code, screen) = asked(&site, b"yes\n")?;
    assert_eq!(code, Some(0), "{screen}");
    // What is shown before the question: from where to where, how much, what is lost, and where the way back ends.
    for essential in [
        "n1: 1.0.0 → 2.0.0",
        "download",
        "theme.css (added): leaves the folder; saved",
        "way back",
    ] {
        let at = screen.find(essential);
        assert!(at.is_some() && at < screen.find("[y/N]"), "{essential}: {screen}");
    }
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r66_the_question_can_be_interrupted() -> Result<()> {
    let site = Site::at_one().await?;
    let before = site.node.product()?;
    let (code, screen) = asked(&site, b"\x03")?;
    assert_eq!(code, Some(75), "{screen}");
    assert_eq!(site.node.product()?, before);
    assert!(!site.node.state("state/upgrade.json").exists());
    site.node.upgrade_ends(0, &[])?;
    Ok(())
}
