//! A store without room (P15): the clients get whole bodies all the same.

/// Needs root: a small file system is mounted.
mod as_root {
    use std::path::Path;

    use anyhow::{Result, ensure};
    use integration_tests::origin::{Framing, Origin, Resource};
    use tempfile::TempDir;
    use tokio::process::Command;

    use crate::{MIB, assert_same, content, settings};

    /// A folder of 16 MiB, unmounted when dropped.
    struct SmallDisk(TempDir);

    #[expect(clippy::disallowed_methods, reason = "mount and umount are this test's own")]
    async fn run(argv: &[&str]) -> Result<()> {
        let status = Command::new(argv[0]).args(&argv[1..]).status().await?;
        ensure!(status.success(), "{argv:?} ended with {status}");
        Ok(())
    }

    impl SmallDisk {
        async fn mount() -> Result<Self> {
            let folder = tempfile::tempdir()?;
            let path = folder.path().display().to_string();
            run(&["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", &path]).await?;
            Ok(Self(folder))
        }

        fn path(&self) -> &Path {
            self.0.path()
        }

        /// Lazily, since the proxy that is killed beside it may hold it for a moment longer.
        async fn unmount(self) -> Result<()> {
            run(&["umount", "--lazy", &self.path().display().to_string()]).await
        }
    }

    #[tokio::test]
    async fn p15_a_full_disk_costs_no_client_its_body_and_the_proxy_goes_on() -> Result<()> {
        let disk = SmallDisk::mount().await?;
        let outcome = bodies_are_whole(disk.path()).await;
        disk.unmount().await?;
        outcome
    }

    async fn bodies_are_whole(cache: &Path) -> Result<()> {
        let origin = Origin::start().await?;
        let proxy = settings(cache, &origin).start().await?;
        for (path, framing) in [("/announced", Framing::Length), ("/chunked", Framing::Chunked)] {
            let body = content(40 * MIB, 51);
            origin.serve(path, Resource::cacheable(body.clone()).framing(framing));
            for _ in 0..2 {
                let (response, got) = proxy.client().fetch(&format!("/files{path}")).await?;
                assert_eq!(response.status, 200, "{path}");
                assert_same(&got, &body, path);
            }
        }
        // What fits is still stored.
        origin.serve("/small", Resource::cacheable("fits"));
        proxy.client().fetch("/files/small").await?;
        proxy
            .wait_until_stored(&proxy.client().get("/files/small"))
            .await?;
        let (response, got) = proxy.client().fetch("/files/small").await?;
        assert_eq!(got, b"fits");
        assert!(
            response.cache_status().contains("hit"),
            "{}",
            response.cache_status()
        );
        Ok(())
    }
}
