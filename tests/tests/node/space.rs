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
        assert_eq!(site.node.product()?, before);
        drop(disk);
        Ok(())
    }
}
