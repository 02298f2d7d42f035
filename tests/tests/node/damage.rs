//! Files of kato's own state that are torn, empty, garbage or gone: each is an error of its own with what to do, or harmless;
//! none is ever taken for "nothing was here".

use std::fs;

use anyhow::Result;
use kato_shared::durable;

use crate::setup::Site;

/// What a torn write, a power cut, and a disk or somebody's editor leave.
const DAMAGES: [(&str, &[u8]); 3] = [
    ("torn", b"{\"schema\":1,\"vers"),
    ("empty", b""),
    ("garbage", b"\x7fELF\0\xff\xfe no document"),
];

const STATE: &str = "var/stackato/upgrade/state";

#[tokio::test(flavor = "multi_thread")]
async fn c14_every_document_that_is_damaged_has_its_own_exit_code_name_and_remedy() -> Result<()> {
    let site = Site::at_one().await?;
    let before = site.node.product()?;
    for (document, remedy) in [
        ("installed.json", "every backup has a copy"),
        (
            "upgrade.json",
            "move it away, then run the same command again: it goes on by what the upgrade has left",
        ),
        (
            "out-of-service.json",
            "`kato node rejoin` puts the node into service",
        ),
        ("quarantine.json", "rolled back here is then tried once more"),
        ("restore.json", "restore the same backup again"),
        ("patches/record.json", "every backup has a copy"),
        (
            "trust/high-water.json",
            "compare with the publisher which release is current",
        ),
    ] {
        let path = site.node.path(STATE).join(document);
        let whole = fs::read(&path).ok();
        for (damage, bytes) in DAMAGES {
            durable::create_folder(path.parent().unwrap())?;
            durable::write(&path, bytes, 0o644)?;
            let said = site.node.upgrade_ends(27, &[])?;
            let what = format!("{document}, {damage}: {said}");
            assert!(said.contains(&path.display().to_string()), "{what}");
            assert!(said.contains("is damaged") || said.contains("is empty"), "{what}");
            assert!(
                said.contains(&format!("hint: {remedy}")) || said.contains(remedy),
                "{what}"
            );
            assert_eq!(fs::read(&path)?, bytes, "it is left for whoever looks: {what}");
            assert_eq!(site.node.product()?, before, "{what}");
        }
        match whole {
            Some(whole) => durable::write(&path, &whole, 0o644)?,
            None => durable::remove(&path)?,
        }
    }
    site.node.upgrade_ends(0, &[])?;
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c14_a_line_in_the_middle_that_is_damaged_is_named_and_a_last_one_is_cut_off() -> Result<()> {
    let site = Site::at_one().await?;
    for log in ["journal.jsonl", "events.jsonl"] {
        let path = site.node.path(STATE).join(log);
        let whole = fs::read(&path)?;
        durable::write(&path, &[b"{\"schema\":1,\"se\n", &whole[..]].concat(), 0o644)?;
        let said = site.node.upgrade_ends(27, &[])?;
        assert!(said.contains(&format!("{log}` line 1 is damaged")), "{said}");
        assert!(said.contains("hint: look at the line"), "{said}");
        durable::write(&path, &[&whole[..], b"{\"schema\":1,\"se"].concat(), 0o644)?;
    }
    site.node.upgrade_ends(0, &[])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c14_what_only_people_or_the_next_run_read_holds_nobody_up_when_it_is_damaged() -> Result<()> {
    for (damage, bytes) in DAMAGES {
        let site = Site::at_one().await?;
        durable::write(&site.node.state("state/lock"), bytes, 0o644)?;
        durable::write(&site.node.state("audit/head.json"), bytes, 0o644)?;
        durable::write(&site.node.state("state/held.json"), bytes, 0o644)?;
        durable::write(&site.node.state("tmp/upgrade-failed"), bytes, 0o644)?;
        let latches = site.node.state("tmp/module-latches");
        durable::create_folder(&latches)?;
        if damage != "empty" {
            // An empty one was made by hand, and says that the module is installed.
            durable::write(&latches.join("web"), bytes, 0o644)?;
        }
        site.node.upgrade_ends(0, &[])?;
        assert_eq!(site.node.installed().as_deref(), Some("2.0.0"), "{damage}");
        assert!(!site.node.state("tmp/upgrade-failed").exists(), "{damage}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c14_a_node_that_lost_the_record_of_its_release_is_no_new_node() -> Result<()> {
    let site = Site::at_one().await?;
    let record = site.node.state("state/installed.json");
    durable::rename(&record, &site.folder.path().join("installed.json"))?;
    let before = site.node.product()?;
    let said = site.node.upgrade_ends(27, &[])?;
    assert!(
        said.contains(
            "installed.json` is missing, and this is no new node: its audit log says that the upgrade"
        ),
        "{said}"
    );
    assert!(said.contains("hint: every backup has a copy"), "{said}");
    // Without the log, by what else is there.
    fs::remove_dir_all(site.node.state("audit"))?;
    let said = site.node.upgrade_ends(27, &[])?;
    assert!(
        said.contains("pristine has archives of an installed release"),
        "{said}"
    );
    assert_eq!(site.node.product()?, before);
    // The copy of the record, or the operator's word.
    durable::rename(&site.folder.path().join("installed.json"), &record)?;
    site.node.upgrade_ends(0, &["--plan"])?;
    fs::remove_file(&record)?;
    site.node.upgrade_ends(0, &["--force"])?;
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r55_a_staged_file_that_was_altered_while_the_host_is_away_says_what_to_do() -> Result<()> {
    let mut site = Site::at_one().await?;
    site.node.upgrade_ends(0, &["--download-only"])?;
    let staged = fs::read_dir(site.node.state("staging"))?.flatten().next();
    let staged = staged.map(|item| item.path()).unwrap();
    let whole = fs::read(&staged)?;
    durable::write(&staged, b"other bytes", 0o644)?;
    let host = site.host.url();
    site.node.take_from(&"http://127.0.0.1:1/".parse()?)?;
    let said = site.node.upgrade_ends(26, &[])?;
    assert!(
        said.contains("is not what the release lists: expected sha256:"),
        "{said}"
    );
    assert!(said.contains("hint: it was changed on this node"), "{said}");
    fs::remove_file(&staged)?;
    let said = site.node.upgrade_ends(75, &[])?;
    assert!(said.contains("was not downloaded before"), "{said}");
    durable::write(&staged, &whole, 0o644)?;
    site.node.take_from(&host)?;
    site.node.upgrade_ends(0, &[])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c13_a_folder_of_katos_that_is_a_link_is_refused_and_nothing_behind_it_is_deleted() -> Result<()> {
    let site = Site::at_one().await?;
    let elsewhere = site.folder.path().join("elsewhere");
    let stranger = elsewhere.join("notes/of a person");
    durable::create_folder(stranger.parent().unwrap())?;
    durable::write(&stranger, b"mine", 0o644)?;
    durable::write(&elsewhere.join("file"), b"mine", 0o644)?;
    let before = site.node.product()?;
    for name in ["staging", "pristine", "state/work", "tmp/module-latches"] {
        let place = site.node.state(name);
        let aside = site.folder.path().join("aside");
        let was_there = place.exists();
        if was_there {
            durable::rename(&place, &aside)?;
        }
        durable::symlink(&elsewhere, &place)?;
        let said = site.node.upgrade_ends(20, &[])?;
        assert!(
            said.contains(&place.display().to_string()) && said.contains("is a symbolic link"),
            "{said}"
        );
        assert_eq!(fs::read(&stranger)?, b"mine", "{name}");
        assert_eq!(
            integration_tests::node::names(&elsewhere),
            ["file", "notes"],
            "{name}"
        );
        assert_eq!(site.node.product()?, before, "{name}");
        fs::remove_file(&place)?;
        if was_there {
            durable::rename(&aside, &place)?;
        }
    }
    site.node.upgrade_ends(0, &[])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c13_of_the_staging_folder_only_what_kato_names_is_removed() -> Result<()> {
    let site = Site::at_one().await?;
    let staging = site.node.state("staging");
    let (over, folder) = ("0".repeat(64), "1".repeat(64));
    for path in [
        "README",
        "notes/of a person",
        ".tmpABCDEF/file",
        &format!("{folder}/file"),
    ] {
        let path = staging.join(path);
        durable::create_folder(path.parent().unwrap())?;
        durable::write(&path, b"mine", 0o644)?;
    }
    for end in ["", ".part", ".part.json"] {
        durable::write(
            &staging.join(format!("{over}{end}")),
            b"of an upgrade that was given up",
            0o644,
        )?;
    }
    site.node.upgrade_ends(0, &[])?;
    let left = integration_tests::node::names(&staging);
    assert_eq!(left, [".tmpABCDEF", &folder, "README", "notes"]);
    assert_eq!(fs::read(staging.join("notes/of a person"))?, b"mine");
    assert_eq!(fs::read(staging.join(".tmpABCDEF/file"))?, b"mine");
    Ok(())
}
