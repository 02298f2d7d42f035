//! The programs that pull: each with its own storage in a folder of the test, pointed at the cache as an operator would point it.
//!
//! A program that is not installed is said to be missing, on stderr, and its test ends there.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use integration_tests::{command, lab::Background, wait};
use kato_shared::durable;

/// A pull of a few megabytes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// The start of a daemon takes two seconds.
const START: Duration = Duration::from_secs(60);

/// Where containerd's hosts are on a machine of its own.
const CERTS_D: &str = "/etc/containerd/certs.d/";

/// Variables that a program sees beside the usual ones.
pub(crate) type Environment<'a> = &'a [(&'a str, &'a str)];

/// Says what was not tested, and why.
#[expect(clippy::print_stderr, reason = "what was not tested is said out loud")]
pub(crate) fn untested(why: &str) {
    eprintln!("NOT TESTED: {why}");
}

/// Whether `program` is installed; where it is not, that is said.
pub(crate) fn is_there(program: &str) -> bool {
    let is_there = command::PATH
        .split(':')
        .any(|folder| Path::new(folder).join(program).exists());
    if !is_there {
        untested(&format!("{program} is not installed"));
    }
    is_there
}

/// The files in a text of `client-config`, by their paths on the client: word for word what stands there.
pub(crate) fn files_of(text: &str) -> Vec<(&str, &str)> {
    let parts = text.split("# file: ").skip(1);
    parts.filter_map(|part| part.split_once('\n')).collect()
}

/// Copies an image, every architecture, into a folder; without TLS.
pub(crate) fn skopeo(reference: &str, to: &Path) -> Result<()> {
    skopeo_with(&["--src-tls-verify=false"], reference, to)
}

/// The same with these arguments about the source.
pub(crate) fn skopeo_with(more: &[&str], reference: &str, to: &Path) -> Result<()> {
    skopeo_in(&[], &[], more, reference, to)
}

/// The same with this environment, and `general` arguments for skopeo itself.
pub(crate) fn skopeo_in(
    environment: Environment<'_>,
    general: &[&str],
    more: &[&str],
    reference: &str,
    to: &Path,
) -> Result<()> {
    let (from, to) = (format!("docker://{reference}"), format!("dir:{}", to.display()));
    let mut skopeo = command::new("skopeo");
    skopeo.envs(environment.iter().copied()).arg("--insecure-policy");
    skopeo.args(general).args(["copy", "--quiet", "--all"]);
    skopeo.args(more).args([&from, &to]);
    said(skopeo).map(drop)
}

/// Pulls `reference` with podman, set up by the text of `client-config`; `more` are arguments of `podman pull`.
pub(crate) fn podman(text: &str, folder: &Path, reference: &str, more: &[&str]) -> Result<()> {
    podman_in(&[], text, folder, reference, more).map(drop)
}

/// The same with this environment; the ID of the image.
pub(crate) fn podman_in(
    environment: Environment<'_>,
    text: &str,
    folder: &Path,
    reference: &str,
    more: &[&str],
) -> Result<String> {
    let registries = folder.join("registries.conf");
    let files = files_of(text);
    let (_, table) = files.first().context("no file for podman")?;
    durable::write(&registries, table.as_bytes(), 0o644)?;
    let policy = folder.join("policy.json");
    durable::write(
        &policy,
        br#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
        0o644,
    )?;
    let mut podman = command::new("podman");
    podman
        .envs(environment.iter().copied())
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
        .args(more)
        .arg(reference);
    said(podman)
}

/// Pulls `reference` with buildah, set up as podman is.
pub(crate) fn buildah(text: &str, folder: &Path, reference: &str) -> Result<()> {
    let (registries, policy) = (folder.join("registries.conf"), folder.join("policy.json"));
    let files = files_of(text);
    let (_, table) = files.first().context("no file for buildah")?;
    durable::write(&registries, table.as_bytes(), 0o644)?;
    let accept = br#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
    durable::write(&policy, accept, 0o644)?;
    let mut buildah = command::new("buildah");
    buildah
        .env("CONTAINERS_REGISTRIES_CONF", &registries)
        .arg("--root")
        .arg(folder.join("root"))
        .arg("--runroot")
        .arg(folder.join("run"))
        .args(["--storage-driver", "vfs", "pull", "--quiet", "--signature-policy"])
        .arg(&policy)
        .arg(reference);
    said(buildah).map(drop)
}

/// A daemon of containerd's, and how it is pointed at the cache.
#[derive(Debug)]
pub(crate) struct Containerd {
    daemon: Background,
    socket: String,
    hosts: String,
}

impl Containerd {
    /// Started, with its hosts set up by the text of `client-config`; `None` where this machine lets no such daemon run, which is
    /// said.
    pub(crate) fn start(text: &str, folder: &Path) -> Result<Option<Self>> {
        let hosts = folder.join("hosts");
        let here = format!("{}/", hosts.display());
        for (path, table) in files_of(text) {
            // `config.toml` is for daemons that a cluster's agent speaks to; here `ctr` is told where the hosts are.
            let Some(path) = path.strip_prefix(CERTS_D) else {
                continue;
            };
            Self::put(folder, path, table.replace(CERTS_D, &here).as_bytes())?;
        }
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
        let answers = wait::until("containerd answers", START, || started.ctr(&["version"]).ok());
        if answers.is_err() {
            untested(&format!(
                "containerd does not start here:\n{}",
                started.daemon.log()
            ));
        }
        Ok(answers.is_ok().then_some(started))
    }

    /// Writes a file below what stands for `/etc/containerd/certs.d` in `folder`.
    pub(crate) fn put(folder: &Path, path: &str, content: &[u8]) -> Result<()> {
        let path = folder.join("hosts").join(path);
        std::fs::create_dir_all(path.parent().context("no folder")?)?;
        Ok(durable::write(&path, content, 0o644)?)
    }

    /// Pulls for both architectures.
    pub(crate) fn pull(&self, reference: &str) -> Result<()> {
        self.pull_with(&[], reference)
    }

    /// The same with more arguments of `ctr images pull`.
    pub(crate) fn pull_with(&self, more: &[&str], reference: &str) -> Result<()> {
        self.pull_in(&[], more, reference)
    }

    /// The same with this environment of `ctr`, which is who speaks to registries.
    pub(crate) fn pull_in(&self, environment: Environment<'_>, more: &[&str], reference: &str) -> Result<()> {
        let hosts = [
            "images",
            "pull",
            "--hosts-dir",
            &self.hosts,
            "--all-platforms",
            "--snapshotter",
            "native",
        ];
        self.ctr_in(environment, &[&hosts[..], more, &[reference]].concat())
            .with_context(|| self.daemon.log())
            .map(drop)
    }

    /// The digest that `reference` has here.
    pub(crate) fn digest(&self, reference: &str) -> Result<String> {
        let filter = format!("name=={reference}");
        let table = self.ctr(&["images", "list", &filter])?;
        let digest = table.split_whitespace().find(|word| word.starts_with("sha256:"));
        Ok(digest.with_context(|| table.clone())?.to_owned())
    }

    /// Removes all images and what they were made of.
    pub(crate) fn forget_all(&self) -> Result<()> {
        let names = self.ctr(&["images", "list", "--quiet"])?;
        let names: Vec<_> = names.split_whitespace().collect();
        if names.is_empty() {
            return Ok(());
        }
        self.ctr(&[&["images", "remove", "--sync"], &names[..]].concat())
            .map(drop)
    }

    fn ctr(&self, arguments: &[&str]) -> Result<String> {
        self.ctr_in(&[], arguments)
    }

    fn ctr_in(&self, environment: Environment<'_>, arguments: &[&str]) -> Result<String> {
        let mut ctr = command::new("ctr");
        ctr.envs(environment.iter().copied());
        ctr.args(["--address", &self.socket]).args(arguments);
        said(ctr)
    }
}

/// A docker daemon with the cache as its mirror.
#[derive(Debug)]
pub(crate) struct Docker {
    daemon: Background,
    host: String,
    /// Where the client keeps who it is.
    config: PathBuf,
    /// Where the daemon keeps everything.
    data: PathBuf,
}

impl Drop for Docker {
    /// The daemon mounts its own folder, and a kill leaves that behind: the folder of the test could not be removed.
    fn drop(&mut self) {
        let unmount: [&OsStr; 3] = ["umount".as_ref(), "--lazy".as_ref(), self.data.as_os_str()];
        drop(command::ok(&unmount));
    }
}

impl Docker {
    /// Started by the `daemon.json` in the text of `client-config`; `None` where this machine lets no such daemon run, which is said.
    pub(crate) fn start(text: &str, folder: &Path) -> Result<Option<Self>> {
        Self::start_in(&[], text, folder)
    }

    /// The same with this environment of the daemon.
    pub(crate) fn start_in(environment: Environment<'_>, text: &str, folder: &Path) -> Result<Option<Self>> {
        let socket = folder.join("docker.sock");
        let host = format!("unix://{}", socket.display());
        let config = folder.join("daemon.json");
        let files = files_of(text);
        let (_, settings) = files
            .iter()
            .find(|(path, _)| path.ends_with("/daemon.json"))
            .context("no daemon.json")?;
        durable::write(&config, settings.as_bytes(), 0o644)?;
        let mut daemon = command::new("dockerd");
        daemon
            .envs(environment.iter().copied())
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
                // What fails once is what a test wants to see.
                "--max-download-attempts=1",
            ]);
        let started = Self {
            daemon: Background::start(daemon, folder)?,
            host,
            config: folder.join("client"),
            data: folder.join("data"),
        };
        let answers = wait::until("dockerd answers", START, || started.docker(&["info"]).ok());
        if answers.is_err() {
            untested(&format!("dockerd does not start here:\n{}", started.daemon.log()));
        }
        Ok(answers.is_ok().then_some(started))
    }

    /// Logs in to `registry` with the password on stdin, into a folder of the test's.
    pub(crate) fn login(&self, registry: &str, (user, password): (&str, &str)) -> Result<()> {
        let mut docker = command::new("docker");
        docker.args(["--host", &self.host, "--config"]).arg(&self.config);
        docker.args(["login", "--username", user, "--password-stdin", registry]);
        let line = command::line(&docker);
        command::success(&line, command::run(docker, PATIENCE, password.as_bytes())?).map(drop)
    }

    pub(crate) fn pull(&self, reference: &str) -> Result<()> {
        self.pull_with(&[], reference)
    }

    /// The same with more arguments of `docker pull`.
    pub(crate) fn pull_with(&self, more: &[&str], reference: &str) -> Result<()> {
        self.docker(&[&["pull", "--quiet"], more, &[reference]].concat())
            .with_context(|| self.daemon.log())
            .map(drop)
    }

    pub(crate) fn forget(&self, reference: &str) -> Result<()> {
        self.docker(&["rmi", "--force", reference]).map(drop)
    }

    /// The ID of the image that `reference` is here.
    pub(crate) fn id(&self, reference: &str) -> Result<String> {
        self.docker(&["image", "inspect", "--format", "{{.Id}}", reference])
    }

    /// Removes all images.
    pub(crate) fn forget_all(&self) -> Result<()> {
        self.docker(&["image", "prune", "--force", "--all"]).map(drop)
    }

    fn docker(&self, arguments: &[&str]) -> Result<String> {
        let mut docker = command::new("docker");
        docker.args(["--host", &self.host, "--config"]).arg(&self.config);
        docker.args(arguments);
        said(docker)
    }
}

/// What it wrote to stdout, without the line's end.
fn said(program: Command) -> Result<String> {
    let line = command::line(&program);
    let said = command::success(&line, command::run(program, PATIENCE, &[])?)?;
    Ok(said.trim_end().to_owned())
}
