//! A store without room (P15): the clients get whole bodies all the same.

/// Needs root: a small file system is mounted.
mod as_root {
    use std::path::Path;

    use anyhow::Result;
    use integration_tests::{
        command,
        origin::{Framing, Origin, Resource},
    };
    use tempfile::TempDir;

    use crate::{MIB, assert_same, content, settings};

    /// A file system of 16 MiB, unmounted when dropped.
    struct SmallDisk(TempDir);

    impl SmallDisk {
        fn mount() -> Result<Self> {
            let folder = tempfile::tempdir()?;
            let path = folder.path().display().to_string();
            command::ok(&["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", &path])?;
            Ok(Self(folder))
        }

        fn path(&self) -> &Path {
            self.0.path()
        }
    }

    impl Drop for SmallDisk {
        /// Lazily, since a proxy that was killed may hold it for a moment longer.
        fn drop(&mut self) {
            command::ok(&["umount", "--lazy", &self.path().display().to_string()]).ok();
        }
    }

    #[tokio::test]
    async fn p15_a_full_disk_costs_no_client_its_body_and_the_proxy_goes_on() -> Result<()> {
        let disk = SmallDisk::mount()?;
        bodies_are_whole(disk.path()).await
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
        // Each of the four met it; the log says it once, and its disk may be the same.
        let log = proxy.log();
        let said = |line: &str| log.matches(line).count();
        let counts = [
            said("the disk took no more of a download"),
            said("not stored; passed through"),
        ];
        assert!(
            counts.iter().all(|count| *count <= 1) && counts.contains(&1),
            "{log}"
        );
        // What fits is still stored.
        origin.serve("/small", Resource::cacheable("fits"));
        proxy.client().fetch("/files/small").await?;
        proxy
            .wait_until_stored(&proxy.client().get("/files/small"), b"fits")
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
