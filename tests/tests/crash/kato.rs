//! `kato` killed while it updates itself: there is always one that works, or the script that brings it back.

use std::{fs, os::unix::process::ExitStatusExt as _, path::PathBuf};

use anyhow::{Result, ensure};
use integration_tests::{
    binaries, command,
    node::{TestNode, is_program},
    releases::{Repository, TestRelease},
    static_server::{Fault, StaticServer},
};
use kato_shared::durable;
use kato_upgrader::module::tree;

use crate::{
    site::{Kind, Site},
    stage::{LONG, said},
};

fn link(node: &TestNode) -> PathBuf {
    node.path("home/stackato/bin/kato")
}

fn is_new(site: &Site) -> Result<bool> {
    let link = link(&site.node);
    Ok(is_program(&link) && tree::digest(&link)? == tree::digest(&site.place("kato-new"))?)
}

/// A run that is killed at the first visit of `place`.
pub(crate) fn killed(node: &TestNode, place: &str) -> Result<()> {
    killed_with(node, place, &[])
}

/// The same with more arguments.
fn killed_with(node: &TestNode, place: &str, arguments: &[&str]) -> Result<()> {
    let mut kato = node.kato(&["node", "upgrade", "--skip-confirmation"])?;
    kato.args(arguments);
    kato.env("KATO_KILL_AT", place);
    let output = command::run(kato, LONG, &[])?;
    ensure!(
        output.status.signal() == Some(9),
        "expected a kill, the run ended with {}: {}",
        output.status,
        said(&output)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r34_c22_kato_updates_itself_first_and_only_once() -> Result<()> {
    let site = Site::new(Kind::SelfUpdate).await?;
    let said = site.node.upgrade_ends(0, &[])?;
    ensure!(is_new(&site)?, "the link is not the release's program");
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    assert_eq!(said.matches("upgrading from 1.0.0 to 2.0.0").count(), 1, "{said}");
    assert!(
        said.contains("self-update: skipped, this is the release's kato"),
        "{said}"
    );
    assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r64_kato_alone_is_updated_and_the_release_stays() -> Result<()> {
    let site = Site::new(Kind::SelfUpdate).await?;
    site.node.upgrade_ends(0, &["--update-kato"])?;
    ensure!(is_new(&site)?, "the link is not the release's program");
    assert_eq!(site.node.installed().as_deref(), Some("1.0.0"));
    assert!(!site.node.state("fix-kato.sh").exists() && !site.node.state("state/upgrade.json").exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r61_the_script_brings_kato_back_without_network_and_without_kato() -> Result<()> {
    let site = Site::new(Kind::SelfUpdate).await?;
    killed(&site.node, "self_update.linked")?;
    // The worst case: link and slots are gone; all that is left is the staged copy.
    fs::remove_file(link(&site.node))?;
    fs::remove_dir_all(site.node.state("bin"))?;
    let script = site.node.state("fix-kato.sh");
    let fix = || command::run(command::new(&script), LONG, &[]);
    for _again in 0..2 {
        let output = fix()?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        ensure!(is_new(&site)?, "the link is not the release's program");
        let target = fs::read_link(link(&site.node))?;
        ensure!(
            target.is_relative(),
            "{}: it would not hold where the root is mounted elsewhere",
            target.display()
        );
    }
    // R60: the text that an operator searches for is in it.
    let text = fs::read_to_string(&script)?;
    assert!(text.contains("No such file or directory") && text.contains("kato: command not found"));

    // The program that the script brought back goes on.
    let mut kato = command::new(link(&site.node));
    kato.arg("--config")
        .arg(site.node.config())
        .args(["node", "upgrade", "--skip-confirmation"]);
    let output = command::run(kato, LONG, &[])?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());
    Ok(())
}

/// There was nothing on the node but `kato`, which was killed while it replaced itself; then the network is gone.
async fn cut_off_between_slot_and_link(kind: Kind) -> Result<()> {
    let Site { node, host, folder } = Site::new(kind).await?;
    killed_with(&node, "self_update.slot", &["--version", "2.0.0"])?;
    ensure!(!link(&node).exists(), "it was killed after the link was made");
    assert_eq!(node.installed().as_deref(), Some("1.0.0"));
    assert_eq!(node.calls("retire"), 1, "the installation of 1.0.0 alone");
    drop(host);

    let output = command::run(command::new(node.state("fix-kato.sh")), LONG, &[])?;
    ensure!(output.status.success(), "{}", said(&output));
    let mut kato = command::new(link(&node));
    kato.arg("--config").arg(node.config());
    kato.args(["node", "upgrade", "--skip-confirmation"]);
    let output = command::run(kato, LONG, &[])?;
    ensure!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("everything for 2.0.0 was downloaded and verified before"),
        "{}",
        said(&output)
    );
    assert_eq!(node.installed().as_deref(), Some("2.0.0"));
    assert_eq!(node.text("platform/running").as_deref(), Some("2.0.0\n"));
    assert_eq!(node.leftovers()?, Vec::<PathBuf>::new());
    drop(folder);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r61_killed_between_slot_and_link_the_script_and_the_upgrade_need_no_network() -> Result<()> {
    cut_off_between_slot_and_link(Kind::SelfUpdate).await
}

#[tokio::test(flavor = "multi_thread")]
async fn r61_so_it_is_where_the_upgrade_goes_by_several_releases() -> Result<()> {
    cut_off_between_slot_and_link(Kind::SelfUpdateHops).await
}

#[tokio::test(flavor = "multi_thread")]
async fn r34_c13_kato_is_not_replaced_before_the_download_is_whole() -> Result<()> {
    let site = Site::new(Kind::SelfUpdate).await?;
    site.host.fail("console-2.0.0.tar.zst", Fault::Status(404));
    site.node.upgrade_ends(75, &[])?;
    assert!(!link(&site.node).exists() && !site.node.state("fix-kato.sh").exists());
    site.host.heal();
    site.node.upgrade_ends(0, &[])?;
    ensure!(is_new(&site)?, "the link is not the release's program");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r61_the_script_refuses_a_copy_that_is_not_the_one_that_was_verified() -> Result<()> {
    let site = Site::new(Kind::SelfUpdate).await?;
    killed(&site.node, "recover.written")?;
    let staging = site.node.state("staging");
    for name in integration_tests::node::names(&staging) {
        durable::write(&staging.join(name), b"altered", 0o644)?;
    }
    let output = command::run(command::new(site.node.state("fix-kato.sh")), LONG, &[])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not the program that was verified"));
    assert!(!link(&site.node).exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r34_a_kato_that_does_not_work_here_is_not_taken() -> Result<()> {
    // What fails; what does nothing; what has the right name and version and has read nothing.
    let own = env!("CARGO_PKG_VERSION");
    let says = format!("echo kato {own}");
    for (script, expected) in [
        ("exit 1", "ended with exit status: 1"),
        ("exit 0", "`kato --version` printed \"\""),
        ("echo kato 0.0.1", "printed \"kato 0.0.1\""),
        (says.as_str(), "`kato node self-test` printed"),
    ] {
        not_taken(&format!("#!/bin/sh\n{script}\n"), expected).await?;
    }
    Ok(())
}

async fn not_taken(program: &str, expected: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let broken = folder.path().join("kato-broken");
    durable::write(&broken, program.as_bytes(), 0o755)?;
    let repository = Repository::empty(folder.path()).await?;
    let one = TestRelease::standard("1.0.0").with_upgrader(&broken, env!("CARGO_PKG_VERSION"));
    repository.publish(&one).await?;
    let host = StaticServer::start(&repository.dir()).await?;
    let node = TestNode::new(
        &folder.path().join("node"),
        &["dea"],
        &host.url(),
        &repository.root(),
    )?;
    let said = node.upgrade_ends(0, &[])?;
    assert!(
        said.contains("kato was not updated")
            && said.contains("does not work on this node")
            && said.contains(expected),
        "{said}"
    );
    assert_eq!(node.installed().as_deref(), Some("1.0.0"));
    assert!(!node.path("home/stackato/bin/kato").exists());
    assert_eq!(node.leftovers()?, Vec::<PathBuf>::new());
    Ok(())
}

/// A `kato` of the next release that takes the settings only without what `line` says; it is asked for them by name.
async fn with_settings(line: &str) -> Result<(tempfile::TempDir, TestNode, StaticServer)> {
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("kato-strict");
    let built = binaries::built("kato")?;
    let (built, own) = (built.display(), env!("CARGO_PKG_VERSION"));
    // The key that is unknown stands for one that only it refuses.
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && {{ echo kato {own}; exit; }}\n[ \"$1\" = --config ] && [ -f \"$2\" ] || exit 9\n\
         cp \"$2\" \"$2.as-it-was\"; echo '{line}' >> \"$2\"\n{built} \"$@\"; code=$?\nmv \"$2.as-it-was\" \"$2\"; exit $code\n"
    );
    durable::write(&program, script.as_bytes(), 0o755)?;
    let repository = Repository::empty(folder.path()).await?;
    repository.publish(&TestRelease::standard("1.0.0")).await?;
    repository
        .publish(&TestRelease::standard("2.0.0").with_upgrader(&program, own))
        .await?;
    let host = StaticServer::start(&repository.dir()).await?;
    let place = folder.path().join("node");
    let node = TestNode::new(&place, &["dea"], &host.url(), &repository.root())?;
    node.upgrade_ends(0, &["--version", "1.0.0"])?;
    Ok((folder, node, host))
}

#[tokio::test(flavor = "multi_thread")]
async fn r34_settings_that_the_new_kato_refuses_end_the_run_before_anything_moves() -> Result<()> {
    let (_folder, node, _host) = with_settings("[upgrade]\nkeep_bakups = 3").await?;
    // The folder of the link is made for the try.
    let product = || -> Result<Vec<_>> {
        let mut found = node.product()?;
        found.retain(|entry| !entry.path.starts_with("home"));
        Ok(found)
    };
    let before = product()?;
    let retired = node.calls("retire");
    let config = node.config().display().to_string();
    for arguments in [&[][..], &["--update-kato"]] {
        let said = node.upgrade_ends(20, arguments)?;
        assert!(
            said.contains(&format!(
                "the new kato does not take the settings of this node: {config}:"
            )) && said.contains("unknown key `keep_bakups`")
                && said.contains("hint: mend that line of the settings first"),
            "{said}"
        );
        assert!(!link(&node).exists() && !node.state("fix-kato.sh").exists());
        assert_eq!(node.installed().as_deref(), Some("1.0.0"));
        assert_eq!((product()?, node.calls("retire")), (before.clone(), retired));
    }
    Ok(())
}

/// Earlier programs ask without the settings: they are those that their own command names.
#[tokio::test(flavor = "multi_thread")]
async fn r34_a_new_kato_finds_the_settings_of_an_older_one_that_asks() -> Result<()> {
    let site = Site::new(Kind::Plain).await?;
    let kato = binaries::built("kato")?.display().to_string();
    let journal = site.node.state("state/journal.jsonl").display().to_string();
    let settings = site.folder.path().join("other.toml");
    let at = settings.display().to_string();
    // What the shell was called with is the command line of who asks.
    let asks = format!("\"{kato}\" node self-test --journal \"{journal}\"; exit $?");
    let both = |named: &[&str], variable: Option<&str>| {
        let mut shell = command::new("/bin/sh");
        shell.arg("-c").arg(&asks).arg("kato").args(named);
        shell.envs(variable.map(|file| ("KATO_CONFIG", file)));
        command::run(shell, LONG, &[])
    };
    let answers = format!(
        "kato {}: the journal ends with record ",
        env!("CARGO_PKG_VERSION")
    );
    for (text, code) in [
        ("[platform]\nretire = { argv = [] }\n", 20),
        // What it took is taken still.
        ("[upgrade]\nbackup_keep = 0\n", 0),
    ] {
        durable::write(&settings, text.as_bytes(), 0o644)?;
        for output in [both(&["--config", &at], None)?, both(&[], Some(&at))?] {
            assert_eq!(output.status.code(), Some(code), "{}", said(&output));
            if code == 0 {
                assert!(String::from_utf8_lossy(&output.stdout).starts_with(&answers));
            } else {
                assert!(said(&output).contains("other.toml:2: "), "{}", said(&output));
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r34_an_older_file_with_a_number_out_of_its_range_still_starts_the_program() -> Result<()> {
    let mut site = Site::new(Kind::Plain).await?;
    site.node
        .add_settings("[upgrade]\nbackup_keep = 0\n[customizations]\nkeep = 0\n")?;
    let status = command::run(site.node.kato(&["node", "upgrade", "--status"])?, LONG, &[])?;
    assert_eq!(status.status.code(), Some(0), "{}", said(&status));
    for words in [
        "`0` given, expected a number of backups from 1 to 1000; `1` is taken, and kato ",
        "`0` given, expected a number of archives from 1 to 1000; `1` is taken, and kato ",
    ] {
        assert_eq!(said(&status).matches(words).count(), 1, "{}", said(&status));
    }
    Ok(())
}
