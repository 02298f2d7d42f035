//! A cluster whose release came on a medium: the one command upgrades every node, and nobody outside is asked.

/// Needs root and namespaces.
mod as_root {
    use std::fs;

    use anyhow::{Context as _, Result, ensure};
    use integration_tests::{binaries, command, releases::TestRelease};

    use crate::site::{PATIENCE, Site, text};

    const STORE: &str = "/var/cache/kato-proxy";

    /// The release as a bundle, packed into a tar, and the public key: what is made where the upgrade host is reached.
    fn carried(site: &Site) -> Result<(Vec<u8>, Vec<u8>)> {
        let folder = site.lab.folder();
        let at = |name: &str| folder.join(name).display().to_string();
        let program = binaries::built("kato-proxy")?.display().to_string();
        let (store, secret, public, out) = (at("store"), at("bundle.key"), at("bundle.pub"), at("out"));
        let (url, root) = (site.host.url(), site.repository.root().display().to_string());
        let upstream = format!("release={url}");
        for words in [
            &[
                "prefetch",
                "--cache-dir",
                &store,
                "--upstream",
                &upstream,
                "--release",
                url.as_str(),
                "--release-root",
                &root,
                "--release-version",
                "2.0.0",
                "--release-from",
                "1.0.0",
            ][..],
            &["bundle", "keygen", "--secret", &secret, "--public", &public],
            &[
                "bundle",
                "export",
                "--cache-dir",
                &store,
                "--series",
                "lab",
                "--key",
                &secret,
                "--out",
                &out,
                "--waive",
                "a test",
            ],
        ] {
            let said = site.lab.on_host(&[&[program.as_str()], words].concat())?;
            command::success(&words.join(" "), said)?;
        }
        let tar = at("medium.tar");
        command::ok(&["tar", "-C", &out, "-cf", &tar, "lab-000001"])?;
        Ok((fs::read(&tar)?, fs::read(&public)?))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_cluster_is_upgraded_from_a_bundle_and_nobody_outside_is_asked() -> Result<()> {
        let site = Site::at_one(&[TestRelease::standard("2.0.0").with_payload(2 << 20)]).await?;
        let (medium, public) = tokio::task::block_in_place(|| carried(&site))?;
        site.host.reset();
        for name in ["core", "c1", "w1"] {
            site.node(name)?.lead_out_to_host()?;
        }
        let core = site.node("core")?;
        let program = binaries::built("kato-proxy")?.display().to_string();
        core.put("/etc/lab/bundle.pub", &public, 0o644)?;
        core.ok(&["mkdir", "-p", "/mnt/medium"])?;
        let unpacked = core.exec_within(PATIENCE, &["tar", "-C", "/mnt/medium", "-xf", "-"], &medium)?;
        command::success("tar", unpacked)?;
        let bundle = "/mnt/medium/lab-000001";
        core.ok(&[
            &program,
            "bundle",
            "import",
            bundle,
            "--cache-dir",
            STORE,
            "--trust",
            "/etc/lab/bundle.pub",
        ])?;

        let before = site.lab.arrived_at_host()?;
        let done = site.upgrade(&["--offline"])?;
        ensure!(done.status.code() == Some(0), "{}", text(&done));
        ensure!(site.versions()? == ["2.0.0", "2.0.0", "2.0.0"], "{}", text(&done));
        let left = site.lab.arrived_at_host()? - before;
        ensure!(left == 0, "{left} packets left the cluster\n{}", text(&done));
        ensure!(
            site.host.total() == 0,
            "the upgrade host was asked: {:?}",
            site.host.requests()
        );
        let missed = core.exec(&["cat", &format!("{STORE}/misses.jsonl")])?;
        let missed = String::from_utf8(missed.stdout).context("UTF-8")?;
        ensure!(missed.is_empty(), "missed:\n{missed}");
        Ok(())
    }
}
