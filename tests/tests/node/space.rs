//! A disk without room: refused by name and number before anything is changed.

use anyhow::Result;
use integration_tests::{
    command,
    releases::{TestModule, TestRelease},
};

use crate::setup::Site;

/// Needs root: mounts a small file system.
mod as_root {
    use super::*;

    /// A mounted tmpfs; unmounted when dropped.
    struct SmallDisk(String);

    impl SmallDisk {
        fn mount(at: &std::path::Path, size: &str) -> Result<Self> {
            kato_shared::durable::create_folder(at)?;
            let at = at.display().to_string();
            command::ok(&[
                "mount",
                "-t",
                "tmpfs",
                "-o",
                &format!("size={size}"),
                "tmpfs",
                &at,
            ])?;
            Ok(Self(at))
        }
    }

    impl Drop for SmallDisk {
        fn drop(&mut self) {
            command::ok(&["umount", "-l", &self.0]).ok();
        }
    }

    /// The inodes in use on the file system of `path`.
    fn inodes(path: &std::path::Path) -> Result<u64> {
        let space = rustix::fs::statvfs(path)?;
        Ok(space.f_files - space.f_ffree)
    }

    /// A module with 5 folders of `files` files each.
    fn module(name: &str, policy: &str, files: usize) -> TestModule {
        let mut module = TestModule::new(name, &format!("policy = \"{policy}\"\ndest = \"/s/{name}\""), &[]);
        for at in 0..5 * files {
            module = module.with_file(&format!("{}/{at}", at % 5), vec![b'x'; 10], 0o644);
        }
        module
    }

    /// The plan's inodes are enough for every shape of release, and hardly more than it takes.
    #[tokio::test(flavor = "multi_thread")]
    async fn c13_with_as_many_inodes_as_the_plan_counts_the_upgrade_ends_and_it_counts_few_too_many()
    -> Result<()> {
        for (policy, files) in [
            ("replace", 1),
            ("replace", 30),
            ("overlay", 2),
            ("overlay", 30),
            ("versioned", 30),
        ] {
            let mut two = TestRelease::standard("2.0.0");
            two.modules.push(module("more", policy, files));
            let site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
            let root = site.node.root();
            let at = root.display().to_string();
            let disk = SmallDisk::mount(&root, "64M,nr_inodes=100000")?;
            site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
            let plan = site.node.upgrade(&["--plan", "--json"])?;
            let plan: serde_json::Value = serde_json::from_slice(&plan.stdout)?;
            let inodes_of = |own: bool| -> u64 {
                let needs = plan["space"].as_array().into_iter().flatten();
                let is_own = |need: &&serde_json::Value| need["purpose"] == "kato's own records";
                let needs = needs.filter(|need| is_own(need) == own);
                needs.filter_map(|need| need["inodes"].as_u64()).sum()
            };
            let counted = inodes_of(false) + inodes_of(true);
            let before = inodes(&root)?;
            // The run's own documents are there before it looks.
            let limit = format!("remount,nr_inodes={}", before + counted + 4);
            command::ok(&["mount", "-o", &limit, &at])?;

            let mut kato = site.node.kato(&["node", "upgrade", "--skip-confirmation"])?;
            kato.env("KATO_KILL_AT", "record.installed");
            let output = command::run(kato, std::time::Duration::from_secs(60), &[])?;
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), None, "{policy} {files}: {said}");
            // Everything that is kept for the way back is there, and what an overlay was unpacked in is gone again.
            let taken = inodes(&root)? - before;
            let unpacked = if policy == "overlay" {
                5 * files as u64 + 5
            } else {
                0
            };
            assert!(
                // Its own records are an allowance; most of them are temporary or there already.
                inodes_of(false) <= (taken + unpacked) * 2,
                "{policy} {files}: {counted} are counted, {taken} were taken at the end"
            );
            site.node.upgrade_ends(0, &[])?;
            drop(disk);
        }
        Ok(())
    }

    /// 3001 files of 10 bytes are 30 KB by their lengths, and 12 MB by their blocks.
    #[tokio::test(flavor = "multi_thread")]
    async fn c13_many_small_files_are_counted_in_blocks_and_refused_before_the_node_is_retired() -> Result<()>
    {
        let mut two = TestRelease::standard("2.0.0");
        two.modules.push(module("more", "replace", 600));
        let site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
        let root = site.node.root();
        let disk = SmallDisk::mount(&root, "8M")?;
        site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
        let before = site.node.product()?;
        let said = site.node.upgrade_ends(20, &[])?;
        let mount = root.display();
        assert!(
            said.contains(&format!("not enough space on `{mount}`: need 1"))
                && said.contains(" MiB (")
                && said.contains("unpacked modules")
                && said.contains("hint: nothing was changed"),
            "{said}"
        );
        assert_eq!(site.node.product()?, before);
        command::ok(&["mount", "-o", "remount,size=32M", &root.display().to_string()])?;
        site.node.upgrade_ends(0, &[])?;
        drop(disk);
        Ok(())
    }

    /// Whatever is free: there is room for the whole upgrade, or nothing is changed.
    #[tokio::test(flavor = "multi_thread")]
    async fn c13_with_little_room_an_upgrade_of_small_modules_ends_or_is_refused() -> Result<()> {
        let site = Site::with(&[TestRelease::standard("1.0.0"), TestRelease::standard("2.0.0")]).await?;
        let root = site.node.root();
        let disk = SmallDisk::mount(&root, "4M")?;
        site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
        let before = site.node.product()?;
        let at = root.display().to_string();
        let space = rustix::fs::statvfs(&root)?;
        let mut ended = false;
        for free in (20..=800).step_by(20) {
            let used = rustix::fs::statvfs(&root)?;
            let used = (used.f_blocks - used.f_bfree) * space.f_frsize / 1024;
            let limit = format!("remount,size={}k", used + free);
            command::ok(&["mount", "-o", &limit, &at])?;
            let output = site.node.upgrade(&[])?;
            match output.status.code() {
                Some(20) => assert_eq!(site.node.product()?, before, "{free} KiB"),
                Some(0) => {
                    ended = true;
                    break;
                }
                other => anyhow::bail!(
                    "{free} KiB: {other:?}: {}",
                    String::from_utf8_lossy(&output.stderr)
                ),
            }
        }
        assert!(ended, "not even 800 KiB were enough");
        drop(disk);
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c23_what_is_kept_of_a_release_that_was_rolled_back_makes_way_for_another() -> Result<()> {
        let mut two = TestRelease::standard("2.0.0").with_payload(6 << 20);
        two.head = "restart = \"services\"\n".into();
        two.tail
            .push_str("[[check]]\nid = \"command\"\nargv = [\"false\"]\ndeadline = \"0s\"\n");
        let mut one = TestRelease::standard("1.0.0");
        one.head = "restart = \"services\"\n".into();
        let site = Site::with(&[one, two]).await?;
        let staging = site.node.state("staging");
        let disk = SmallDisk::mount(&staging, "9M")?;
        site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
        site.node.upgrade_ends(22, &[])?;
        let kept = site.node.kept()?;
        let largest = kept
            .iter()
            .find(|path| kato_upgrader::space::taken_by(path) > 6 << 20);
        let largest = largest.expect("the payload is kept").clone();
        // Beside it there is room for a small release, and none for another large one.
        let mut small = TestRelease::standard("2.0.1");
        small.head = "restart = \"services\"\n".into();
        let mut large = TestRelease::standard("2.0.2").with_payload(6 << 20);
        large.head = "restart = \"services\"\n".into();
        site.repository.publish(&small).await?;
        site.node.upgrade_ends(0, &["--download-only"])?;
        assert!(largest.exists());
        site.repository.publish(&large).await?;
        let plan = site.node.upgrade(&["--plan"])?;
        let plan = String::from_utf8_lossy(&plan.stdout) + String::from_utf8_lossy(&plan.stderr);
        assert!(plan.contains("they make way"), "{plan}");
        assert!(largest.exists());
        let said = site.node.upgrade_ends(0, &["--download-only"])?;
        assert!(said.contains("they make way"), "{said}");
        assert!(!largest.exists());
        site.node.upgrade_ends(0, &[])?;
        assert_eq!(site.node.installed().as_deref(), Some("2.0.2"));
        drop(disk);
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c13_a_disk_that_is_too_small_is_refused_with_mount_need_have_and_shortfall() -> Result<()> {
        let two = TestRelease::standard("2.0.0").with_payload(6 << 20);
        let site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
        let disk = SmallDisk::mount(&site.node.path("var"), "4M")?;
        site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
        let before = site.node.product()?;
        let said = site.node.upgrade_ends(20, &[])?;
        let mount = site.node.path("var").display().to_string();
        assert!(
            said.contains(&format!("not enough space on `{mount}`: need 6.")),
            "{said}"
        );
        assert!(
            said.contains("have ") && said.contains(" short") && said.contains("hint: nothing was changed"),
            "{said}"
        );
        // Who else is there is said as well.
        assert!(
            said.contains("the largest there: ") && said.contains("old backups"),
            "{said}"
        );
        assert_eq!(site.node.product()?, before);
        drop(disk);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c13_space_for_what_comes_later_is_held_until_it_comes() -> Result<()> {
    let two = TestRelease::standard("2.0.0").with_payload(3 << 20);
    let site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    let mut kato = site.node.kato(&["node", "upgrade", "--skip-confirmation"])?;
    kato.env("KATO_KILL_AT", "retire.owned");
    command::run(kato, std::time::Duration::from_secs(60), &[])?;
    let held: serde_json::Value =
        serde_json::from_slice(&std::fs::read(site.node.state("state/held.json"))?)?;
    let held: Vec<_> = held["held"].as_array().into_iter().flatten().collect();
    let steps: Vec<_> = held.iter().filter_map(|held| held["step"].as_str()).collect();
    assert!(
        steps.contains(&"backup") && steps.contains(&"module:app"),
        "{steps:?}"
    );
    for file in &held {
        let path = std::path::Path::new(file["file"].as_str().unwrap_or_default());
        assert!(
            kato_upgrader::space::taken_by(path) >= file["bytes"].as_u64().unwrap_or(u64::MAX),
            "{file}"
        );
    }
    // The next run needs the space of the killed one, and holds nothing when it is done.
    site.node.upgrade_ends(0, &[])?;
    assert!(!site.node.state("state/held.json").exists());
    assert_eq!(site.node.leftovers()?, Vec::<std::path::PathBuf>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c13_a_run_that_fails_holds_nothing_afterwards() -> Result<()> {
    let two = TestRelease::standard("2.0.0").with_payload(3 << 20);
    let site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    site.host.fail(
        "console-2.0.0.tar.zst",
        integration_tests::static_server::Fault::Status(404),
    );
    site.node.upgrade_ends(75, &[])?;
    assert!(!site.node.state("state/held.json").exists());
    for name in integration_tests::node::names(&site.node.state("staging")) {
        let path = site.node.state("staging").join(&name);
        let length = std::fs::metadata(&path)?.len();
        assert!(
            length > 0 && kato_upgrader::space::taken_by(&path) < length + (64 << 10),
            "{name}"
        );
    }
    Ok(())
}
