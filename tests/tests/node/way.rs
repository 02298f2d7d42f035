//! What stands in the way of a release is refused before anything is changed: by name, with what to do.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::Result;
use integration_tests::{
    command,
    releases::{TestModule, TestRelease},
};

use crate::setup::Site;

/// A release with an overlay that refuses local changes.
fn strict(version: &str) -> TestRelease {
    let mut release = TestRelease::standard(version);
    let text = format!("version {version}\n");
    release.modules.push(TestModule::new(
        "strict",
        "policy = \"overlay\"\ndest = \"/s/strict\"\nconflict = \"fail\"",
        &[("one", &text), ("two", &text), ("sub/three", &text)],
    ));
    release
}

/// The upgrade is refused, nothing of the node is touched, and it was never taken out of service. A look at the plan says so too.
fn refused(site: &Site, arguments: &[&str]) -> Result<String> {
    let (before, retired) = (site.node.product()?, site.node.calls("retire"));
    let plan = site.node.upgrade(&[arguments, &["--plan"]].concat())?;
    let shown = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert_eq!(plan.status.code(), Some(20), "{shown}");
    assert!(
        shown.contains("  module     ")
            && shown.contains("\n  refused    ")
            && shown.contains("\n             remedy: nothing was changed; "),
        "{shown}"
    );
    let said = site.node.upgrade_ends(20, arguments)?;
    let problem = said.lines().find_map(|line| line.strip_prefix("error: "));
    assert!(shown.contains(problem.unwrap_or("no error")), "{shown}, {said}");
    assert_eq!(site.node.product()?, before);
    assert_eq!(site.node.calls("retire"), retired);
    assert!(!site.node.state("tmp/upgrade-failed").exists());
    assert!(said.contains("hint: nothing was changed; "), "{said}");
    Ok(said)
}

#[tokio::test(flavor = "multi_thread")]
async fn c19_local_changes_that_a_module_refuses_are_all_named_before_anything_is_changed() -> Result<()> {
    let site = Site::with(&[strict("1.0.0"), strict("2.0.0")]).await?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    site.node.put("s/strict/two", "changed here")?;
    fs::remove_dir_all(site.node.path("s/strict/sub"))?;
    site.node.put("s/strict/sub", "a file here")?;
    let said = refused(&site, &[])?;
    for expected in [
        "s/strict/two (changed here and in the release)",
        "s/strict/sub (a folder in the release, not one here)",
        "kato customizations save",
        "kato customizations reapply",
    ] {
        assert!(said.contains(expected), "{expected} in {said}");
    }
    // Again and again: it was never tried, so nothing is taken back and nothing is put in quarantine.
    refused(&site, &[])?;

    fs::remove_file(site.node.path("s/strict/two"))?;
    fs::remove_file(site.node.path("s/strict/sub"))?;
    site.node.upgrade_ends(0, &[])?;
    assert_eq!(site.node.text("s/strict/two").as_deref(), Some("version 2.0.0\n"));
    assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c18_c19_what_a_later_release_on_the_way_refuses_is_named_before_the_first_begins() -> Result<()> {
    // 2.0.0 leaves the file as it was in 1.0.0; 3.0.0 changes it.
    let mut two = strict("2.0.0");
    two.modules.last_mut().expect("strict").files = strict("1.0.0").modules.pop().expect("strict").files;
    let mut three = strict("3.0.0");
    three.head.push_str("[from]\nmin = \"2.0.0\"\n");
    let site = Site::with(&[strict("1.0.0"), two, three]).await?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    site.node.put("s/strict/two", "changed here")?;
    site.node.put("s/code/console/mine.html", "mine")?;
    let said = refused(&site, &[])?;
    assert!(
        said.contains("s/strict/two (changed here and in 3.0.0)") && said.contains("in the way of 3.0.0"),
        "{said}"
    );
    // The plan of each release says what it meets: the folder is exchanged by the first, and nothing is left for the second.
    let plan = command::run(
        site.node.kato(&["node", "upgrade", "--plan", "--json"])?,
        Duration::from_secs(60),
        &[],
    )?;
    let plan: serde_json::Value = serde_json::from_slice(&plan.stdout)?;
    let modules = |plan: &serde_json::Value| -> Vec<String> {
        let of = plan["local_changes"].as_array().cloned().unwrap_or_default();
        of.iter()
            .map(|module| format!("{} {}", module["module"], module["counts"]))
            .collect()
    };
    assert_eq!(
        (modules(&plan), modules(&plan["then"][0])),
        (
            vec![
                "\"console\" {\"lost\":1}".to_owned(),
                "\"strict\" {\"kept\":1}".to_owned()
            ],
            vec!["\"strict\" {\"refused\":1}".to_owned()]
        ),
    );
    // Only as far as the first: there is nothing in the way.
    site.node.upgrade_ends(0, &["--version", "2.0.0"])?;
    assert_eq!(site.node.text("s/strict/two").as_deref(), Some("changed here"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c19_a_folder_in_the_place_of_a_versions_link_is_in_the_plan_saved_and_put_back() -> Result<()> {
    let site = Site::at_one().await?;
    let link = site.node.path("s/code/app/current");
    let version = fs::canonicalize(&link)?;
    fs::remove_file(&link)?;
    command::ok(&[
        "cp",
        "-a",
        "--",
        &version.display().to_string(),
        &link.display().to_string(),
    ])?;
    site.node.put("s/code/app/current/mine/notes", "mine")?;
    let plan = command::run(
        site.node.kato(&["node", "upgrade", "--plan"])?,
        Duration::from_secs(60),
        &[],
    )?;
    let plan = String::from_utf8(plan.stdout)?;
    assert!(
        plan.contains("/s/code/app/current/mine/notes (added): replaced by the release's; saved"),
        "{plan}"
    );
    let said = site.node.upgrade_ends(0, &[])?;
    assert!(
        said.contains("3 local changes that the upgrade takes away are saved as"),
        "{said}"
    );
    assert!(site.node.path("s/code/app/current").is_symlink());
    assert_eq!(site.node.text("s/code/app/current/mine/notes"), None);
    let mut reapply = site.node.kato(&["customizations", "reapply"])?;
    reapply.arg("/s/code/app/current/mine");
    let output = command::run(reapply, Duration::from_secs(60), &[])?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(
        site.node.text("s/code/app/current/mine/notes").as_deref(),
        Some("mine")
    );
    assert_eq!(
        site.node.text("s/code/app/current/VERSION").as_deref(),
        Some("version 2.0.0\n")
    );
    let audit = site
        .node
        .text("var/stackato/upgrade/audit/audit.jsonl")
        .unwrap_or_default();
    assert!(audit.contains("\"what\":\"customizations\""), "{audit}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c19_a_pipe_in_an_exchanged_folder_is_said_to_be_neither_carried_over_nor_saved() -> Result<()> {
    let site = Site::at_one().await?;
    let pipe = site.node.path("s/code/console/pipe");
    command::ok(&["mkfifo", "--", &pipe.display().to_string()])?;
    let plan = command::run(
        site.node.kato(&["node", "upgrade", "--plan"])?,
        Duration::from_secs(60),
        &[],
    )?;
    let plan = String::from_utf8(plan.stdout)?;
    assert!(
        plan.contains("console/pipe (added): a pipe, socket or device: neither carried over nor saved"),
        "{plan}"
    );
    let said = site.node.upgrade_ends(0, &[])?;
    assert!(!said.contains("are saved as"), "{said}");
    assert!(!pipe.exists());
    Ok(())
}

/// Needs root: mounts file systems.
mod as_root {
    use super::*;

    /// A mounted file system; unmounted when dropped.
    struct Mounted(String);

    impl Mounted {
        fn new(what: &str, arguments: &[&str], at: &std::path::Path) -> Result<Self> {
            kato_shared::durable::create_folder(at)?;
            let at = at.display().to_string();
            let mut argv = vec!["mount"];
            argv.extend(arguments);
            argv.extend([what, &at]);
            command::ok(&argv)?;
            Ok(Self(at))
        }
    }

    impl Drop for Mounted {
        fn drop(&mut self) {
            command::ok(&["umount", "-l", &self.0]).ok();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c08_a_mount_point_that_would_be_exchanged_is_refused_also_below_the_folder() -> Result<()> {
        let site = Site::at_one().await?;
        let console = site.node.path("s/code/console");
        let aside = site.folder.path().join("aside");
        kato_shared::durable::create_folder(&aside)?;
        kato_shared::durable::write(&aside.join("precious"), b"x", 0o644)?;
        let source = aside.display().to_string();
        // The same file system at a second place: no device number tells.
        let below = Mounted::new(&source, &["--bind"], &console.join("uploads"))?;
        let said = refused(&site, &[])?;
        let uploads = console.join("uploads").display().to_string();
        assert!(said.contains(&format!("`{uploads}` is mounted below")), "{said}");
        drop(below);
        fs::remove_dir(console.join("uploads"))?;

        let itself = Mounted::new("tmpfs", &["-t", "tmpfs"], &console)?;
        let said = refused(&site, &[])?;
        assert!(
            said.contains("is a mount point, and the module `console` exchanges it"),
            "{said}"
        );
        drop(itself);
        site.node.upgrade_ends(0, &[])?;
        assert!(aside.join("precious").exists());
        Ok(())
    }

    /// A file or folder that `chattr` has sealed; as before when dropped.
    struct Sealed {
        flag: &'static str,
        path: String,
    }

    impl Sealed {
        /// `None` where the file system knows no such flags.
        #[expect(clippy::print_stderr, reason = "a test that tests nothing says so")]
        fn new(flag: &'static str, path: &std::path::Path) -> Option<Self> {
            let path = path.display().to_string();
            let sealed = command::ok(&["chattr", &format!("+{flag}"), &path]);
            if let Err(error) = &sealed {
                eprintln!("NOT TESTED: the file system of {path} knows no `chattr`: {error}");
            }
            sealed.is_ok().then_some(Self { flag, path })
        }
    }

    impl Drop for Sealed {
        fn drop(&mut self) {
            command::ok(&["chattr", &format!("-{}", self.flag), &self.path]).ok();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c08_what_chattr_has_sealed_below_a_module_is_refused_with_the_command_that_opens_it()
    -> Result<()> {
        let site = Site::at_one().await?;
        site.node.put("s/code/console/theme.css", "a theme")?;
        for (flag, word, path, module) in [
            ("i", "immutable", "s/code/console/theme.css", "console"),
            ("i", "immutable", "s/etc/app.conf", "etc"),
            ("a", "append-only", "s/etc/app.conf", "etc"),
            ("a", "append-only", "s/code/console", "console"),
            ("i", "immutable", "s/code", "console"),
        ] {
            let path = site.node.path(path);
            let Some(sealed) = Sealed::new(flag, &path) else {
                return Ok(());
            };
            let said = refused(&site, &[])?;
            let path = path.display();
            assert!(
                said.contains(&format!("{path} ({word}, module `{module}`)"))
                    && said.contains(&format!("`chattr -{flag} {path}`")),
                "{said}"
            );
            drop(sealed);
        }
        site.node.upgrade_ends(0, &[])?;
        assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c23_a_file_that_is_sealed_in_the_middle_is_as_it_was_and_the_others_go_back() -> Result<()> {
        let two = {
            let mut two = TestRelease::standard("2.0.0");
            two.modules.push(TestModule::failing_until("late", "allowed"));
            two
        };
        let mut site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
        site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
        site.node.add_settings("[upgrade]\nmodule_attempts = 2\n")?;
        let before = site.node.product()?;
        site.node.upgrade_ends(21, &[])?;
        // One of the new release's files can no longer be taken away.
        let conf = site.node.path("s/etc/app.conf");
        let Some(sealed) = Sealed::new("i", &conf) else {
            return Ok(());
        };
        let said = site.node.upgrade_ends(23, &[])?;
        assert!(
            said.contains("failed in undo:etc")
                && said.contains("modules that are back: ")
                && said.contains("console"),
            "{said}"
        );
        let (back, not) = said
            .split_once("modules that are back: ")
            .and_then(|(_, rest)| rest.split_once("; that are not: "))
            .expect("both lists");
        assert!(
            ["app", "console", "runner"]
                .iter()
                .all(|name| back.contains(name))
                && !back.contains("etc"),
            "{said}"
        );
        assert!(not.starts_with("etc;"), "{said}");
        assert_eq!(
            site.node.text("s/code/console/index.html").as_deref(),
            Some("version 1.0.0\n")
        );
        drop(sealed);
        site.node.upgrade_ends(22, &[])?;
        assert_eq!(site.node.product()?, before);
        assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c13_a_file_system_that_can_only_be_read_is_refused() -> Result<()> {
        let site = Site::at_one().await?;
        let etc = site.node.path("s/etc");
        let source = etc.display().to_string();
        let mounted = Mounted::new(&source, &["--bind"], &etc)?;
        command::ok(&["mount", "-o", "remount,bind,ro", &source])?;
        let said = refused(&site, &[])?;
        assert!(said.contains("is read-only"), "{said}");
        drop(mounted);
        site.node.upgrade_ends(0, &[])?;
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c13_a_file_system_without_enough_inodes_is_refused_with_need_have_and_shortfall() -> Result<()> {
        let mut two = TestRelease::standard("2.0.0");
        let mut many = TestModule::new("many", "policy = \"replace\"\ndest = \"/s/many\"", &[]);
        for at in 0..100 {
            many = many.with_file(&format!("{}/{at}", at % 10), b"x".to_vec(), 0o644);
        }
        two.modules.push(many);
        let site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
        let disk = Mounted::new(
            "tmpfs",
            &["-t", "tmpfs", "-o", "nr_inodes=60"],
            &site.node.path("s"),
        )?;
        site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
        let said = refused(&site, &[])?;
        let mount = site.node.path("s").display().to_string();
        assert!(
            said.contains(&format!("not enough inodes on `{mount}`: need 1")),
            "{said}"
        );
        assert!(
            said.contains("unpacked modules") && said.contains(" short"),
            "{said}"
        );
        assert!(!said.contains(" 0 short"), "{said}");
        drop(disk);
        Ok(())
    }
}
