//! A disk with I/O errors: no answer that looks whole has a wrong byte, and what is damaged is fetched anew.

/// Needs root and FUSE.
mod as_root {
    use anyhow::{Result, ensure};
    use integration_tests::{
        faulty::{Act, Faulty},
        origin::Resource,
        proxy::Proxy,
    };

    use crate::{MIB, Site, assert_same, content};

    /// Long beside the second in which the store looks at what a client's body broke off at.
    const SOON: std::time::Duration = std::time::Duration::from_secs(20);

    /// A site with a store on a disk that can fail; nothing, said aloud, where FUSE is missing.
    #[expect(clippy::print_stderr, reason = "a test that could not test has to say so")]
    async fn site() -> Result<Option<(Site, Faulty, Proxy)>> {
        let disk = match Faulty::mount() {
            Ok(disk) => disk,
            Err(missing) => {
                eprintln!("NOT TESTED: {missing:#}; damage of files is tested in `damage` all the same");
                return Ok(None);
            }
        };
        let site = Site::new().await?;
        // Without a memory tier, so that the disk is asked.
        let proxy = site.start_on(disk.path(), "memory = \"0B\"").await?;
        Ok(Some((site, disk, proxy)))
    }

    /// Asks until the body comes whole; whatever comes before that is right as far as it goes.
    async fn whole_at_last(proxy: &Proxy, path: &str, body: &[u8]) -> Result<()> {
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < SOON {
            let Ok(mut response) = proxy.client().get(path).send().await else {
                continue;
            };
            let got = response.finish().await?;
            if got.looks_whole {
                assert_same(&got.bytes, body, path);
                return Ok(());
            }
            assert_same(&got.bytes, &body[..got.bytes.len()], path);
        }
        anyhow::bail!("{path} never came whole")
    }

    #[tokio::test]
    async fn a_disk_that_cannot_read_breaks_an_answer_or_fetches_anew_but_never_lies() -> Result<()> {
        let Some((site, disk, mut proxy)) = site().await? else {
            return Ok(());
        };
        let bodies = [("/small", content(20_000, 1)), ("/large", content(4 * MIB, 2))];
        for (path, body) in &bodies {
            site.origin.serve(path, Resource::cacheable(body.clone()));
            let request = proxy.client().get(&format!("/files{path}"));
            request.fetch().await?;
            proxy.wait_until_stored(&request, body).await?;
        }
        // A new process, so that nothing is in the page cache of an open file.
        proxy.kill().await?;
        let proxy = site.start_on(disk.path(), "memory = \"0B\"").await?;
        // The large one breaks in its middle, the small one at once.
        disk.fail(Act::Read, "content-v2", 8);
        for (path, body) in &bodies {
            whole_at_last(&proxy, &format!("/files{path}"), body).await?;
        }
        disk.heal();
        for (path, body) in &bodies {
            whole_at_last(&proxy, &format!("/files{path}"), body).await?;
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_disk_that_cannot_write_or_flush_costs_no_client_its_body() -> Result<()> {
        let Some((site, disk, proxy)) = site().await? else {
            return Ok(());
        };
        let mut nth = 0;
        for (act, part) in [
            (Act::Write, ".part"),
            (Act::Flush, ".part"),
            (Act::Write, "content-v2"),
            (Act::Flush, "content-v2"),
            (Act::Write, "index.redb"),
            (Act::Flush, "index.redb"),
            (Act::Read, "index.redb"),
        ] {
            for spared in [0, 2] {
                disk.fail(act, part, spared);
                for size in [3000, 2 * MIB] {
                    nth += 1;
                    let (path, body) = (format!("/{nth}"), content(size, nth));
                    site.origin.serve(&path, Resource::cacheable(body.clone()));
                    for _ in 0..2 {
                        let (response, got) = proxy.client().fetch(&format!("/files{path}")).await?;
                        ensure!(response.status == 200, "{act:?} {part}: {}", response.status);
                        assert_same(&got, &body, &path);
                    }
                }
                disk.heal();
            }
        }
        // It recovers by itself, and nothing wrong was kept.
        site.origin.serve("/after", Resource::cacheable("after"));
        let request = proxy.client().get("/files/after");
        let stored = async {
            loop {
                let (response, _) = request.fetch().await?;
                if response.cache_status().contains("hit") {
                    return Ok::<_, anyhow::Error>(());
                }
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), stored).await??;
        let (_, report) = proxy
            .admin_client()
            .request("POST", "/-/api/verify")
            .header("kato-admin", "1")
            .fetch()
            .await?;
        let report: serde_json::Value = serde_json::from_slice(&report)?;
        ensure!(
            report["damaged"].as_array().is_some_and(Vec::is_empty),
            "{report}"
        );
        for seed in 1..=nth {
            let (_, got) = proxy.client().fetch(&format!("/files/{seed}")).await?;
            assert_same(&got, &content(got.len(), seed), "afterwards");
        }
        Ok(())
    }
}
