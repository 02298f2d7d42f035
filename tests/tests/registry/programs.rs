//! The programs that pull: each with its own storage in a folder of the test, pointed at the cache as an operator would point it.
//!
//! A program that is not installed is said to be missing, on stderr, and its test ends there.

use std::{net::SocketAddr, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result};
use integration_tests::{command, lab::Background, wait};
use kato_shared::durable;

/// A pull of a few megabytes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Whether `program` is installed; where it is not, that is said.
#[expect(clippy::print_stderr, reason = "what was not tested is said out loud")]
pub(crate) fn is_there(program: &str) -> bool {
    let is_there = command::PATH
        .split(':')
        .any(|folder| Path::new(folder).join(program).exists());
    if !is_there {
        eprintln!("NOT TESTED: {program} is not installed");
    }
    is_there
}

/// Copies an image, every architecture, into a folder.
pub(crate) fn skopeo(reference: &str, to: &Path) -> Result<()> {
    let (from, to) = (format!("docker://{reference}"), format!("dir:{}", to.display()));
    let argv = [
        "skopeo",
        "--insecure-policy",
        "copy",
        "--quiet",
        "--all",
        "--src-tls-verify=false",
    ];
    command::ok(&[&argv[..], &[&from, &to]].concat()).map(drop)
}

/// Pulls `reference` with podman, by its mirror table for `hub.example`.
pub(crate) fn podman(cache: SocketAddr, folder: &Path, reference: &str) -> Result<()> {
    let registries = folder.join("registries.conf");
    let table = format!(
        "[[registry]]\nprefix = \"hub.example\"\nlocation = \"{cache}/hub.example\"\ninsecure = true\n"
    );
    durable::write(&registries, table.as_bytes(), 0o644)?;
    let policy = folder.join("policy.json");
    durable::write(
        &policy,
        br#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
        0o644,
    )?;
    let mut podman = command::new("podman");
    podman
        .env("CONTAINERS_REGISTRIES_CONF", &registries)
        .arg("--root")
        .arg(folder.join("root"))
        .arg("--runroot")
        .arg(folder.join("run"))
        .args([
            "--storage-driver",
            "vfs",
            "--cgroup-manager",
            "cgroupfs",
            "--events-backend",
            "none",
        ])
        .args(["pull", "--quiet", "--signature-policy"])
        .arg(&policy)
        .arg(reference);
    done(podman)
}

/// A daemon of containerd's, and how it is pointed at the cache.
#[derive(Debug)]
pub(crate) struct Containerd {
    daemon: Background,
    socket: String,
    hosts: String,
}

impl Containerd {
    pub(crate) fn start(cache: SocketAddr, folder: &Path) -> Result<Self> {
        let hosts = folder.join("hosts");
        let hub = hosts.join("hub.example");
        std::fs::create_dir_all(&hub)?;
        let table = format!(
            "server = \"http://{cache}\"\n[host.\"http://{cache}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
        );
        durable::write(&hub.join("hosts.toml"), table.as_bytes(), 0o644)?;
        let config = folder.join("containerd.toml");
        durable::write(
            &config,
            b"version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n",
            0o644,
        )?;
        let socket = folder.join("containerd.sock");
        let mut daemon = command::new("containerd");
        daemon
            .arg("--config")
            .arg(&config)
            .arg("--root")
            .arg(folder.join("root"))
            .arg("--state")
            .arg(folder.join("state"))
            .arg("--address")
            .arg(&socket);
        let daemon = Background::start(daemon, folder)?;
        let text = |path: &Path| path.to_str().map(str::to_owned).context("not UTF-8");
        let started = Self {
            daemon,
            socket: text(&socket)?,
            hosts: text(&hosts)?,
        };
        wait::until("containerd answers", PATIENCE, || started.ctr(&["version"]).ok())
            .with_context(|| started.daemon.log())?;
        Ok(started)
    }

    /// Pulls for both architectures.
    pub(crate) fn pull(&self, reference: &str) -> Result<()> {
        let hosts = [
            "images",
            "pull",
            "--hosts-dir",
            &self.hosts,
            "--all-platforms",
            "--snapshotter",
            "native",
        ];
        self.ctr(&[&hosts[..], &[reference]].concat())
            .with_context(|| self.daemon.log())
    }

    fn ctr(&self, arguments: &[&str]) -> Result<()> {
        let mut ctr = command::new("ctr");
        ctr.args(["--address", &self.socket]).args(arguments);
        done(ctr)
    }
}

/// A docker daemon with the cache as its mirror.
#[derive(Debug)]
pub(crate) struct Docker {
    daemon: Background,
    host: String,
}

impl Docker {
    pub(crate) fn start(cache: SocketAddr, folder: &Path) -> Result<Self> {
        let socket = folder.join("docker.sock");
        let host = format!("unix://{}", socket.display());
        let config = folder.join("daemon.json");
        durable::write(&config, b"{}", 0o644)?;
        let mut daemon = command::new("dockerd");
        daemon
            .arg("--config-file")
            .arg(&config)
            .arg("--data-root")
            .arg(folder.join("data"))
            .arg("--exec-root")
            .arg(folder.join("exec"))
            .arg("--pidfile")
            .arg(folder.join("pid"))
            .args([
                "--host",
                &host,
                "--storage-driver",
                "vfs",
                "--bridge=none",
                "--iptables=false",
            ])
            .args(["--registry-mirror", &format!("http://{cache}")])
            .args(["--insecure-registry", &cache.to_string()]);
        let started = Self {
            daemon: Background::start(daemon, folder)?,
            host,
        };
        wait::until("dockerd answers", PATIENCE, || started.docker(&["info"]).ok())
            .with_context(|| started.daemon.log())?;
        Ok(started)
    }

    pub(crate) fn pull(&self, reference: &str) -> Result<()> {
        self.docker(&["pull", "--quiet", reference])
            .with_context(|| self.daemon.log())
    }

    pub(crate) fn forget(&self, reference: &str) -> Result<()> {
        self.docker(&["rmi", "--force", reference])
    }

    fn docker(&self, arguments: &[&str]) -> Result<()> {
        let mut docker = command::new("docker");
        docker.args(["--host", &self.host]).args(arguments);
        done(docker)
    }
}

fn done(program: Command) -> Result<()> {
    let line = command::line(&program);
    command::success(&line, command::run(program, PATIENCE, &[])?).map(drop)
}
