//! A disk without room: refused by name and number before anything is changed.

use anyhow::Result;
use integration_tests::{command, releases::TestRelease};

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
