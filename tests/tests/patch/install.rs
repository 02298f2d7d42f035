//! Patches on one node: listed, installed in their order, marked by hand.

use std::{fs, path::PathBuf};

use anyhow::Result;
use integration_tests::{command, releases::TestRelease};
use kato_shared::durable;
use serde_json::Value;

use crate::site::{LONG, Site, TestPatch};

fn two() -> [TestPatch; 2] {
    [
        TestPatch::of_etc(1, "one", &[("app.conf", "one\n")]),
        TestPatch::of_etc(2, "two", &[("other.conf", "two\n")]).with("requires = [\"one\"]\n"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn r70_patches_are_listed_and_installed_in_their_order_with_a_restart() -> Result<()> {
    let others = TestPatch::of_etc(3, "router-only", &[("r", "r")]).with("roles = [\"router\"]\n");
    let [one, two] = two();
    let site = Site::with(&[], &[one, two, others]).await?;
    let said = String::from_utf8(site.patch(&["status", "-l"])?.stdout)?;
    assert!(said.starts_with("2 updates available to be installed."), "{said}");
    assert!(
        said.contains("Known updates for demo 1.0.0:")
            && said.contains("  one: mends one\n    id: 1\n    severity: required\n    roles affected: all"),
        "{said}"
    );
    let all = String::from_utf8(site.patch(&["status", "-l", "-a"])?.stdout)?;
    assert!(
        !said.contains("router-only") && all.contains("for other roles"),
        "{all}"
    );

    let asked = |verb: &str| site.node.calls(verb);
    let before = ["restart", "retire", "rejoin"].map(asked);
    let said = site.ends(0, &["install"])?;
    assert!(
        said.contains("patches one, two on 1.0.0")
            && said.contains("  patch:one\n")
            && said.contains("  patch:two\n"),
        "{said}"
    );
    assert_eq!(site.states()?, "one=installed two=installed");
    assert_eq!(
        (
            site.conf().as_str(),
            site.node.text("s/etc/other.conf").as_deref()
        ),
        ("one\n", Some("two\n"))
    );
    // Each is shown to run before the next begins, and the work of the node moves away and back once.
    assert_eq!(
        ["restart", "retire", "rejoin"].map(asked),
        [before[0] + 2, before[1] + 1, before[2] + 1]
    );
    assert!(!site.node.path("platform/retired").exists());
    assert_eq!(site.node.installed().as_deref(), Some("1.0.0"));
    assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());
    let status = site.status()?;
    let first = &status["patches"][0];
    assert_eq!(
        (&first["by"], &first["can_be_reverted"]),
        (&"run".into(), &true.into())
    );
    assert_eq!(
        first["sha256"]
            .as_str()
            .map(|digest| digest.starts_with("sha256:")),
        Some(true)
    );
    let said = site.ends(0, &["install"])?;
    assert!(said.contains("no patch is outstanding"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r70_one_up_to_a_number_and_none_without_what_it_requires() -> Result<()> {
    let site = Site::with(&[], &two()).await?;
    let said = site.ends(20, &["install", "--single", "two"])?;
    assert!(
        said.contains("needs one first") && said.contains("kato patch install one"),
        "{said}"
    );
    assert!(
        site.ends(20, &["install", "ghost"])?
            .contains("no patch is named `ghost`")
    );
    let said = site.ends(20, &["install", "--to-patch-id", "99"])?;
    assert!(
        said.contains("no patch has the number 99; known are 1 (one), 2 (two)"),
        "{said}"
    );
    let plan = String::from_utf8(site.patch(&["install", "--plan", "--local"])?.stdout)?;
    assert!(
        plan.contains("2 patches, one after the other: 1.0.0 → patch one → patch two"),
        "{plan}"
    );
    site.ends(0, &["install", "--to-patch-id", "1"])?;
    assert_eq!(site.states()?, "one=installed two=outstanding");
    let plan = String::from_utf8(site.patch(&["install", "--plan", "--local"])?.stdout)?;
    assert!(
        plan.contains("patch two") && plan.contains("kato patch revert"),
        "{plan}"
    );
    assert_eq!(site.node.text("s/etc/other.conf"), None);
    // By name it brings with it what it requires; here that is installed.
    site.ends(0, &["install", "two", "-q"])?;
    assert_eq!(site.states()?, "one=installed two=installed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r70_the_node_is_retired_around_a_patch_unless_nothing_is_restarted() -> Result<()> {
    let [one, mut other] = two();
    other.release.head.push_str("restart = \"none\"\n");
    let mut site = Site::with(&[], &[one, other]).await?;
    let node = site.node.clone();
    let asked = || (node.calls("retire"), node.calls("rejoin"));
    let (retired, rejoined) = asked();
    site.ends(0, &["install", "one"])?;
    assert_eq!(asked(), (retired + 1, rejoined + 1));
    assert!(!site.node.path("platform/retired").exists());
    site.ends(0, &["revert", "one"])?;
    assert_eq!(asked(), (retired + 2, rejoined + 2));
    site.ends(0, &["install", "one", "--no-restart", "--skip-confirmation"])?;
    site.ends(0, &["install", "two"])?;
    assert_eq!(asked(), (retired + 2, rejoined + 2));

    // Work that does not move: nothing is changed, and the node is in service.
    site.node.add_settings("[upgrade]\nretire_timeout = \"1s\"\n")?;
    site.node.put("platform/units", "3")?;
    let before = site.node.product()?;
    let said = site.ends(20, &["reinstall", "one"])?;
    assert!(said.contains("still has 3 units of work"), "{said}");
    assert_eq!(site.node.product()?, before);
    assert!(!site.node.path("platform/retired").exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r70_killed_between_two_patches_the_same_command_installs_the_rest_and_puts_the_node_back()
-> Result<()> {
    let site = Site::with(&[], &two()).await?;
    for place in ["patch.settled:1", "record.attempt:1", "backup.committed:2"] {
        let node = site.node.copy_to(&site.folder.path().join(place))?;
        let mut kato = node.kato(&["patch", "install", "--local"])?;
        kato.env("KATO_KILL_AT", place);
        let output = command::run(kato, LONG, &[])?;
        assert_eq!(output.status.code(), None, "killed at {place}");
        assert!(
            node.path("platform/retired").exists(),
            "it is not in service between the two: {place}"
        );
        let rejoined = node.calls("rejoin");
        crate::site::ends(&node, 0, &["install"])?;
        assert_eq!(node.calls("rejoin"), rejoined + 1, "{place}");
        assert!(!node.path("platform/retired").exists(), "{place}");
        assert_eq!(node.text("s/etc/other.conf").as_deref(), Some("two\n"), "{place}");
        assert_eq!(node.leftovers()?, Vec::<PathBuf>::new(), "{place}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r70_a_patch_that_fails_after_another_puts_the_node_back_into_service() -> Result<()> {
    let check = "[[check]]\nid = \"command\"\nargv = [\"test\", \"-e\", \"healthy\"]\ndeadline = \"0s\"\n";
    let [one, two] = two();
    let site = Site::with(&[], &[one, two.with_tail(check)]).await?;
    let rejoined = site.node.calls("rejoin");
    site.ends(22, &["install"])?;
    assert_eq!(site.states()?, "one=installed two=rolled-back");
    assert_eq!(site.node.calls("rejoin"), rejoined + 1);
    assert!(!site.node.path("platform/retired").exists());
    assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r70_what_a_patch_replaced_is_in_the_backup_of_the_next() -> Result<()> {
    let site = Site::with(&[], &two()).await?;
    site.ends(0, &["install"])?;
    let backups = site.node.state("backup");
    let newest = integration_tests::node::names(&backups)
        .into_iter()
        .find(|name| name.contains("-two-"));
    let manifest = fs::read_to_string(backups.join(newest.expect("a backup")).join("manifest.json"))?;
    assert!(
        manifest.contains("state/patches/kept/one/etc-fix.json")
            && manifest.contains("state/patches/kept/one/etc-fix/0"),
        "{manifest}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r70_no_restart_is_remembered_until_somebody_restarts() -> Result<()> {
    let site = Site::with(&[], &two()).await?;
    let before = site.node.calls("restart");
    let said = site.ends(0, &["install", "--no-restart", "one"])?;
    assert!(said.contains("restart: skipped, `--no-restart`"), "{said}");
    assert_eq!(site.node.calls("restart"), before);
    let text = || -> Result<String> { Ok(String::from_utf8(site.patch(&["status", "-l"])?.stdout)?) };
    assert!(
        text()?.contains("restart pending: all services of the node"),
        "{}",
        text()?
    );
    site.ends(0, &["mark", "-i", "one"])?;
    assert!(!text()?.contains("restart pending"));
    // Another boot restarts everything.
    site.ends(0, &["reinstall", "one", "-r"])?;
    assert!(text()?.contains("restart pending"));
    site.node.put("proc/sys/kernel/random/boot_id", "another boot")?;
    assert!(!text()?.contains("restart pending"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r70_the_list_is_kept_renewed_and_forgotten() -> Result<()> {
    let [one, two] = two();
    let site = Site::with(&[], &[one]).await?;
    assert_eq!(site.states()?, "one=outstanding");
    site.publish(&two).await?;
    // What the node saw is what it shows, with its time, until it is told to look again.
    assert_eq!(site.states()?, "one=outstanding");
    site.host.reset();
    assert_eq!(
        (site.states()?, site.host.count("")),
        ("one=outstanding".into(), 0)
    );
    site.ends(0, &["update"])?;
    assert_eq!(site.states()?, "one=outstanding two=outstanding");
    site.ends(0, &["reset"])?;
    assert!(!site.node.state("state/patches/list.json").exists());
    site.ends(0, &["install", "one"])?;
    site.ends(0, &["reset"])?;
    // Installed patches stay installed; the list comes back by itself.
    assert_eq!(site.states()?, "one=installed two=outstanding");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r70_marked_by_hand_and_installed_once_more() -> Result<()> {
    let site = Site::with(&[], &two()).await?;
    site.ends(0, &["mark", "--installed", "one"])?;
    assert_eq!(site.states()?, "one=installed two=outstanding");
    assert_eq!(
        (&site.status()?["patches"][0]["by"], site.conf().as_str()),
        (&"hand".into(), "version 1.0.0\n")
    );
    // Nothing was kept, so there is no way back; but it can be installed over the mark.
    let said = site.ends(20, &["revert", "one"])?;
    assert!(
        said.contains("marked by hand") && said.contains("--notinstalled one"),
        "{said}"
    );
    site.ends(0, &["reinstall", "one"])?;
    assert_eq!(site.conf(), "one\n");
    site.node.put("s/etc/app.conf", "damaged\n")?;
    site.ends(0, &["reinstall", "one"])?;
    assert_eq!(site.conf(), "one\n");
    // Its way back still leads to before the first installation.
    site.ends(0, &["revert", "one"])?;
    assert_eq!(site.conf(), "version 1.0.0\n");
    assert!(
        site.ends(20, &["mark", "-d", "one"])?
            .contains("not installed here")
    );
    assert!(
        site.ends(20, &["reinstall", "one"])?
            .contains("not installed here")
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r70_marked_as_missing_and_installed_over_its_own_files_it_still_goes_back() -> Result<()> {
    let site = Site::with(&[], &two()).await?;
    site.ends(0, &["install", "one"])?;
    site.ends(0, &["mark", "--notinstalled", "one"])?;
    assert_eq!(site.states()?, "one=outstanding two=outstanding");
    assert_eq!(site.conf(), "one\n", "no file is touched");
    site.ends(0, &["install"])?;
    assert_eq!(site.states()?, "one=installed two=installed");
    site.ends(0, &["revert", "two"])?;
    site.ends(0, &["revert", "one"])?;
    assert_eq!(site.conf(), "version 1.0.0\n");
    assert_eq!(site.node.text("s/etc/other.conf"), None);
    assert_eq!(site.states()?, "one=outstanding two=outstanding");
    assert!(
        !site.node.state("state/patches/kept/one").exists(),
        "nothing stays"
    );

    // Taken back by hand meanwhile: what is there now is the original.
    site.ends(0, &["install", "one"])?;
    site.node.put("s/etc/app.conf", "by hand\n")?;
    site.ends(0, &["mark", "--notinstalled", "one"])?;
    site.ends(0, &["install", "one"])?;
    site.ends(0, &["revert", "one"])?;
    assert_eq!(site.conf(), "by hand\n");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r70_a_manifest_of_ones_own_selects_and_adds_nothing() -> Result<()> {
    let site = Site::with(&[], &two()).await?;
    let manifest = site.folder.path().join("approved.json");
    durable::write(&manifest, b"{\"patches\": [\"one\"]}", 0o644)?;
    let path = manifest.display().to_string();
    site.ends(0, &["install", "-m", &path])?;
    assert_eq!(site.states()?, "one=installed two=outstanding");
    durable::write(&manifest, b"{\"patches\": [{\"name\": \"ghost\"}]}", 0o644)?;
    assert!(site.ends(20, &["install", "-m", &path])?.contains("`ghost`"));
    durable::write(&manifest, b"[]", 0o644)?;
    assert!(site.ends(2, &["install", "-m", &path])?.contains("approved.json"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r70_elsewhere_than_on_core_the_whole_cluster_is_refused() -> Result<()> {
    let site = Site::with(&[], &two()).await?;
    let output = site.patch(&["install"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(20), "{said}");
    assert!(
        said.contains("hint: add `--local` for this node alone, or run the command on Core"),
        "{said}"
    );
    assert_eq!(site.conf(), "version 1.0.0\n");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r70_a_patch_that_is_altered_or_unsigned_changes_nothing() -> Result<()> {
    let site = Site::with(&[], &two()).await?;
    let before = site.node.product()?;
    let archive = site.repository.target("etc-fix-1.0.0-one.tar.zst")?;
    let mut bytes = fs::read(&archive)?;
    if let Some(byte) = bytes.last_mut() {
        *byte ^= 1;
    }
    durable::write(&archive, &bytes, 0o644)?;
    let said = site.ends(26, &["install", "one"])?;
    assert!(said.contains("etc-fix-1.0.0-one"), "{said}");
    assert_eq!(site.node.product()?, before);
    let document = site.repository.target("patches/2.json")?;
    let changed = fs::read_to_string(&document)?.replace("\"required\"", "\"optional\"");
    durable::write(&document, changed.as_bytes(), 0o644)?;
    site.ends(0, &["mark", "-i", "one"])?;
    site.ends(26, &["install", "two"])?;
    assert_eq!(site.node.product()?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r70_what_was_downloaded_for_an_upgrade_is_still_there_after_a_patch() -> Result<()> {
    let mut newer = TestRelease::standard("2.0.0");
    newer.head = "restart = \"services\"\n".into();
    let site = Site::with(&[newer], &two()).await?;
    site.node.upgrade_ends(0, &["--download-only"])?;
    site.ends(0, &["install"])?;
    let mut kato = site.node.kato(&["node", "upgrade", "--status", "--json"])?;
    kato.env("LANG", "C");
    let status: Value = serde_json::from_slice(&command::run(kato, LONG, &[])?.stdout)?;
    assert_eq!(status["state"], "idle", "{status}");
    site.node.upgrade_ends(0, &["--offline"])?;
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    Ok(())
}

/// Units that are called otherwise than the role; `restart` fails while there is a file `fails`.
const SYSTEMCTL: &str = r#"#!/bin/sh
folder=${0%/*}
echo "$*" >> "$folder/calls"
verb=$1; shift
if [ $verb = restart ] && [ -e "$folder/fails" ]; then echo "it does not work today" >&2; exit 1; fi
if [ $verb != show ]; then exit 0; fi
for unit in "$@"; do
    case $unit in -*) continue ;; esac
    printf 'Id=%s\nLoadState=loaded\nActiveState=active\nSubState=running\nResult=success\nNRestarts=0\n\n' "$unit"
done
"#;

#[tokio::test(flavor = "multi_thread")]
async fn r70_the_units_of_the_roles_affected_are_restarted_and_a_restart_that_fails_holds_nobody()
-> Result<()> {
    let patch = TestPatch::of_etc(1, "dea-fix", &[("app.conf", "fixed\n")]).with("roles = [\"dea\"]\n");
    let mut site = Site::with(&[], &[patch]).await?;
    let folder = site.folder.path().join("systemd");
    durable::create_folder(&folder)?;
    let program = folder.join("systemctl");
    durable::write(&program, SYSTEMCTL.as_bytes(), 0o755)?;
    let units = "{ dea = [\"front.service\", \"back.service\"], controller = [\"api.service\"] }";
    site.node.platform_is(&format!(
        "adapter = \"systemd\"\nsystemd = {{ program = {:?}, settle = \"0s\", units = {units} }}\n",
        program.display().to_string()
    ))?;
    site.node.add_settings("[upgrade]\nretire_roles = []\n")?;
    let calls = || fs::read_to_string(folder.join("calls")).unwrap_or_default();
    site.ends(0, &["install", "dea-fix"])?;
    assert!(
        calls().contains("restart -- front.service back.service\n"),
        "{}",
        calls()
    );
    site.ends(0, &["revert", "dea-fix"])?;
    site.ends(0, &["install", "dea-fix", "--no-restart"])?;
    let status = String::from_utf8(site.patch(&["status", "-l"])?.stdout)?;
    assert!(
        status.contains("restart pending: the services of dea;"),
        "{status}"
    );
    site.ends(0, &["revert", "dea-fix"])?;

    durable::write(&folder.join("fails"), b"", 0o644)?;
    let said = site.ends(23, &["install", "dea-fix"])?;
    assert!(said.contains("--no-restart` leaves the restart to you"), "{said}");
    site.ends(22, &["install", "dea-fix", "--no-restart"])?;
    assert_eq!(site.states()?, "dea-fix=rolled-back");
    site.ends(23, &["install", "dea-fix"])?;
    site.ends(22, &["revert", "dea-fix", "--no-restart"])?;
    assert_eq!(site.states()?, "dea-fix=rolled-back");
    assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());
    Ok(())
}
