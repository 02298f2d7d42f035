//! The policy `image` with real runtimes, a real registry and a real cache between them.
//!
//! A program that is not installed is said to be missing, on stderr, and its test ends there.

/// Needs root: runtimes unpack what they pull.
mod as_root {
    use std::{net::SocketAddr, path::Path, time::Duration};

    use anyhow::{Context, Result};
    use integration_tests::{
        command,
        image::Image,
        lab::Background,
        proxy::{Proxy, Settings},
        registry::Registry,
        releases::{TestModule, TestRelease},
        wait,
    };
    use kato_shared::durable;

    use crate::setup::Site;

    /// A start or a pull on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(120);

    #[expect(clippy::print_stderr, reason = "what was not tested is said out loud")]
    fn is_there(program: &str) -> bool {
        let is_there = command::PATH
            .split(':')
            .any(|folder| Path::new(folder).join(program).exists());
        if !is_there {
            eprintln!("NOT TESTED: {program} is not installed");
        }
        is_there
    }

    /// A node with a release that brings an image, and the cache through which it gets there.
    struct Pulling {
        site: Site,
        registry: Registry,
        image: Image,
        cache: Proxy,
        folder: tempfile::TempDir,
    }

    impl Pulling {
        async fn start() -> Result<Self> {
            let folder = tempfile::tempdir()?;
            let image = Image::build(folder.path(), "first")?;
            let registry = Registry::start(folder.path(), None)?;
            image.push(&format!("{}/lab/app:v1", registry.address))?;
            let install = format!(
                "policy = \"image\"\n[[module.install.images]]\nname = \"hub.example/lab/app\"\ndigest = \"{}\"\nsize = 1000000\nplatform = \"linux/amd64\"\ntag = \"live\"",
                image.digest()
            );
            let mut release = TestRelease::standard("1.0.0");
            release.modules.push(TestModule::new("images", &install, &[]));
            let site = Site::with(&[release]).await?;
            let config = folder.path().join("proxy.toml");
            let settings = format!(
                "[[upstream]]\nname = \"hub\"\nkind = \"registry\"\nurls = [\"http://{}/\"]\n[upstream.registry]\naliases = [\"hub.example\"]\n\
                 [[upstream]]\nname = \"host\"\nurls = [\"{}\"]\n",
                registry.address,
                site.host.url()
            );
            durable::write(&config, settings.as_bytes(), 0o600)?;
            let cache = Settings::new(&folder.path().join("cache"))
                .arguments(&["--config", &config.display().to_string()])
                .start()
                .await?;
            Ok(Self {
                site,
                registry,
                image,
                cache,
                folder,
            })
        }

        fn data(&self) -> SocketAddr {
            self.cache.data
        }

        /// Lets the node use the runtime, upgrades it, and gives how many blobs the registry sent.
        fn upgraded(&mut self, runtime: &str, command: &[String]) -> Result<usize> {
            self.site.node.add_settings(&format!(
                "[cache]\nurl = \"http://{}/\"\n[images]\nruntime = \"{runtime}\"\ncommand = {command:?}\n",
                self.cache.data
            ))?;
            tokio::task::block_in_place(|| self.site.node.upgrade_ends(0, &[]))?;
            Ok(self
                .registry
                .requests()
                .iter()
                .filter(|request| request.is_blob())
                .count())
        }

        fn path(&self, below: &str) -> String {
            self.folder.path().join(below).display().to_string()
        }
    }

    fn asked(command: &[String], arguments: &[&str]) -> Result<String> {
        let words: Vec<&str> = command
            .iter()
            .map(String::as_str)
            .chain(arguments.iter().copied())
            .collect();
        command::ok(&words)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c14_podman_pulls_through_the_cache_without_being_set_up_for_it() -> Result<()> {
        if !is_there("podman") {
            return Ok(());
        }
        let mut pulling = Pulling::start().await?;
        let command = [
            "podman",
            "--root",
            &pulling.path("root"),
            "--runroot",
            &pulling.path("run"),
            "--storage-driver",
            "vfs",
            "--cgroup-manager",
            "cgroupfs",
            "--events-backend",
            "none",
        ]
        .map(str::to_owned);
        let blobs = pulling.upgraded("podman", &command)?;
        assert!(blobs > 0);
        let by_digest = format!("hub.example/lab/app@{}", pulling.image.digest());
        for reference in ["hub.example/lab/app:live", &by_digest] {
            asked(&command, &["image", "inspect", reference]).context(by_digest.clone())?;
        }
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c14_containerd_pulls_through_the_cache_by_the_images_own_name() -> Result<()> {
        if !is_there("containerd") {
            return Ok(());
        }
        let mut pulling = Pulling::start().await?;
        let socket = pulling.path("containerd.sock");
        let config = pulling.folder.path().join("containerd.toml");
        durable::write(
            &config,
            b"version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n",
            0o644,
        )?;
        let mut daemon = command::new("containerd");
        daemon.args([
            "--config",
            &config.display().to_string(),
            "--root",
            &pulling.path("containers"),
            "--state",
            &pulling.path("state"),
            "--address",
            &socket,
        ]);
        let daemon = Background::start(daemon, pulling.folder.path())?;
        // The overlay of a container in which tests may run cannot lie on another one.
        let command = [
            "env",
            "CONTAINERD_SNAPSHOTTER=native",
            "ctr",
            "--address",
            &socket,
            "--namespace",
            "lab",
        ]
        .map(str::to_owned);
        wait::until("containerd answers", PATIENCE, || {
            asked(&command, &["version"]).ok()
        })
        .with_context(|| daemon.log())?;
        let blobs = pulling
            .upgraded("containerd", &command)
            .with_context(|| daemon.log())?;
        assert!(blobs > 0);
        let names = asked(&command, &["images", "list", "--quiet"])?;
        let by_digest = format!("hub.example/lab/app@{}", pulling.image.digest());
        assert!(
            names.contains("hub.example/lab/app:live") && names.contains(&by_digest),
            "{names}"
        );
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c14_docker_pulls_through_the_cache_by_its_prefix() -> Result<()> {
        if !is_there("dockerd") || !is_there("docker") {
            return Ok(());
        }
        let mut pulling = Pulling::start().await?;
        let host = format!("unix://{}", pulling.path("docker.sock"));
        let config = pulling.folder.path().join("daemon.json");
        durable::write(&config, b"{}", 0o644)?;
        let mut daemon = command::new("dockerd");
        daemon.args([
            "--config-file",
            &config.display().to_string(),
            "--data-root",
            &pulling.path("data"),
            "--exec-root",
            &pulling.path("exec"),
            "--pidfile",
            &pulling.path("pid"),
            "--host",
            &host,
            "--storage-driver",
            "vfs",
            "--bridge=none",
            "--iptables=false",
            "--insecure-registry",
            &pulling.data().to_string(),
        ]);
        let daemon = Background::start(daemon, pulling.folder.path())?;
        let command = ["docker", "--host", &host].map(str::to_owned);
        wait::until("dockerd answers", PATIENCE, || asked(&command, &["info"]).ok())
            .with_context(|| daemon.log())?;
        let blobs = pulling
            .upgraded("docker", &command)
            .with_context(|| daemon.log())?;
        assert!(blobs > 0);
        asked(&command, &["image", "inspect", "hub.example/lab/app:live"])?;
        Ok(())
    }
}
