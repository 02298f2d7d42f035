//! Disks that take nothing more: what is stored is served, what is new is passed through and says so, and it ends by itself.

/// Needs root: small file systems are mounted.
mod as_root {
    use std::{fs::File, io::Write, path::Path, time::Duration};

    use anyhow::{Context, Result, ensure};
    use integration_tests::{command, origin::Resource, proxy::Proxy};
    use tempfile::TempDir;
    use tokio::time::timeout;

    use crate::{MIB, Site, assert_same, content};

    const SOON: Duration = Duration::from_secs(30);

    /// A file system of 32 MiB, unmounted when dropped.
    struct SmallDisk(TempDir);

    impl SmallDisk {
        fn mount() -> Result<Self> {
            let disk = Self(tempfile::tempdir()?);
            let path = disk.path().display().to_string();
            command::ok(&["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", &path])?;
            Ok(disk)
        }

        fn path(&self) -> &Path {
            self.0.path()
        }

        fn remount(&self, how: &str) -> Result<()> {
            let path = self.path().display().to_string();
            command::ok(&["mount", "-o", &format!("remount,{how}"), &path]).map(drop)
        }

        /// Somebody else takes every byte that is left.
        fn fill(&self) -> Result<()> {
            let mut hog = File::options()
                .create(true)
                .append(true)
                .open(self.path().join("lost+found"))?;
            for size in [MIB, 4096, 1] {
                while hog.write_all(&vec![0; size]).is_ok() {}
            }
            let free = rustix::fs::statvfs(self.path())?.f_bavail;
            ensure!(free == 0, "{free} blocks are free");
            Ok(())
        }
    }

    impl Drop for SmallDisk {
        /// Lazily, since a proxy that was killed may hold it for a moment longer.
        fn drop(&mut self) {
            command::ok(&["umount", "--lazy", &self.path().display().to_string()]).ok();
        }
    }

    async fn health(proxy: &Proxy) -> Result<String> {
        let (_, body) = proxy.admin_client().fetch("/-/healthz").await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// Waits until health says so.
    async fn says(proxy: &Proxy, wanted: &str) -> Result<()> {
        let mut last = String::new();
        let said = async {
            while !last.contains(wanted) {
                last = health(proxy).await?;
            }
            Ok(())
        };
        timeout(SOON, said)
            .await
            .with_context(|| format!("health does not say {wanted}: {last}"))?
    }

    #[tokio::test]
    async fn p15_a_disk_without_a_single_byte_left_evicts_and_stores() -> Result<()> {
        let site = Site::new().await?;
        let disk = SmallDisk::mount()?;
        let proxy = site.start_on(disk.path(), "").await?;
        let old: Vec<_> = (0..5).map(|n| content(3 * MIB, n)).collect();
        for (n, body) in old.iter().enumerate() {
            site.origin
                .serve(&format!("/old{n}"), Resource::cacheable(body.clone()));
            proxy.client().fetch(&format!("/files/old{n}")).await?;
        }
        proxy.wait_for_stats(|stats| stats.stored_responses == 5).await?;
        disk.fill()?;
        // Large and small, announced by a length: room is made before they come.
        for (path, size) in [("/large", 2 * MIB), ("/small", 1000)] {
            let body = content(size, 99);
            site.origin.serve(path, Resource::cacheable(body.clone()));
            let target = format!("/files{path}");
            let (_, got) = proxy.client().fetch(&target).await?;
            assert_same(&got, &body, path);
            proxy
                .wait_until_stored(&proxy.client().get(&target), &body)
                .await?;
        }
        says(&proxy, "\"ok\"").await?;
        let stats = proxy.stats().await?;
        ensure!(stats.stored_responses < 7, "nothing was evicted: {stats:?}");
        Ok(())
    }

    #[tokio::test]
    async fn p15_where_nothing_can_go_everything_passes_and_says_so_until_there_is_space() -> Result<()> {
        let site = Site::new().await?;
        let disk = SmallDisk::mount()?;
        let proxy = site.start_on(disk.path(), "").await?;
        disk.fill()?;
        for (path, size) in [("/large", 3 * MIB), ("/small", 1000)] {
            let body = content(size, 5);
            site.origin.serve(path, Resource::cacheable(body.clone()));
            for _ in 0..3 {
                let (_, got) = proxy.client().fetch(&format!("/files{path}")).await?;
                assert_same(&got, &body, path);
            }
            let (response, got) = proxy.client().fetch(&format!("/files{path}")).await?;
            assert_same(&got, &body, path);
            let status = response.cache_status();
            ensure!(
                status.contains("fwd=bypass") && status.contains("detail=enospc"),
                "{status}"
            );
        }
        says(&proxy, "enospc").await?;
        let (_, metrics) = proxy.admin_client().fetch("/-/metrics").await?;
        let metrics = String::from_utf8_lossy(&metrics).into_owned();
        ensure!(
            !metrics.contains("kato_proxy_not_stored_total{reason=\"enospc\"} 0"),
            "{metrics}"
        );
        std::fs::remove_file(disk.path().join("lost+found"))?;
        says(&proxy, "\"ok\"").await?;
        let request = proxy.client().get("/files/large");
        let (_, body) = request.fetch().await?;
        proxy.wait_until_stored(&request, &body).await
    }

    #[tokio::test]
    async fn p09_a_store_that_can_only_be_read_serves_without_the_origin_and_recovers() -> Result<()> {
        let site = Site::new().await?;
        let disk = SmallDisk::mount()?;
        let mut proxy = site.start_on(disk.path(), "").await?;
        let bodies = [("/small", content(5000, 1)), ("/large", content(3 * MIB, 2))];
        for (path, body) in &bodies {
            site.origin.serve(path, Resource::cacheable(body.clone()));
            let request = proxy.client().get(&format!("/files{path}"));
            request.fetch().await?;
            proxy.wait_until_stored(&request, body).await?;
        }
        // Killed, so that the index has to be repaired before it can be read.
        proxy.kill().await?;
        disk.remount("ro")?;
        let proxy = site.start_on(disk.path(), "").await?;
        for (path, body) in &bodies {
            let (response, got) = proxy.client().fetch(&format!("/files{path}")).await?;
            assert_same(&got, body, path);
            ensure!(
                response.cache_status().contains("hit"),
                "{}",
                response.cache_status()
            );
        }
        site.origin.serve("/new", Resource::cacheable("new"));
        let (response, got) = proxy.client().fetch("/files/new").await?;
        assert_eq!(got, b"new");
        let status = response.cache_status();
        ensure!(
            status.contains("fwd=bypass") && status.contains("detail=read-only"),
            "{status}"
        );
        says(&proxy, "read-only").await?;
        // What is invalid now is not given any more, though the index cannot be told (RFC 9111 §4.4).
        let changed = Resource::new("changed").header("cache-control", "max-age=3600");
        site.origin.serve("/small", changed.header("etag", "\"v2\""));
        let change = proxy.client().request("PUT", "/files/small").body("x");
        assert_eq!(change.fetch().await?.0.status, 200);
        for _ in 0..2 {
            let (_, got) = proxy.client().fetch("/files/small").await?;
            assert_eq!(got, b"changed");
        }
        disk.remount("rw")?;
        says(&proxy, "\"ok\"").await?;
        let request = proxy.client().get("/files/small");
        request.fetch().await?;
        proxy.wait_until_stored(&request, b"changed").await?;
        let request = proxy.client().get("/files/new");
        request.fetch().await?;
        proxy.wait_until_stored(&request, b"new").await
    }
}
