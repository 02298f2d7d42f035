//! The origin: packages that apt downloads from the machine's own sources, made into a signed repository and served by nginx with a log.

use std::{env, fs, net::SocketAddr, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use integration_tests::{
    command,
    lab::{Background, HOST, Lab},
    wait,
};
use kato_shared::durable;
use serde::Deserialize;

/// What the repository holds: small packages that hardly any machine has installed, one depending on another.
const PACKAGES: [&str; 3] = ["fortune-mod", "hello", "librecode0"];

/// Downloads from a mirror far away.
const PATIENCE: Duration = Duration::from_secs(120);

/// nginx's port. The network is the lab's own, so every port is free.
const PORT: u16 = 80;

/// A running origin.
#[derive(Debug)]
pub(crate) struct Origin<'lab> {
    lab: &'lab Lab,
    /// The repository's address, as an operator would name the upstream.
    pub(crate) url: String,
    _nginx: Background,
}

/// One line of nginx's log.
#[derive(Debug, Deserialize)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) status: u16,
    /// `If-None-Match` and `If-Modified-Since`, whichever came.
    condition: String,
}

impl Request {
    /// Whether it is about a package, not about an index.
    pub(crate) fn is_package(&self) -> bool {
        self.path.rsplit('.').next() == Some("deb")
    }

    /// Whether it asked if something is still the same and it was: no content has crossed.
    pub(crate) fn is_validation(&self) -> bool {
        self.status == 304 && !self.condition.is_empty() && self.method == "GET"
    }
}

impl<'lab> Origin<'lab> {
    /// Builds the repository and serves it.
    ///
    /// # Errors
    /// When apt cannot reach the machine's sources, or a tool of `tests/packages.txt` is missing.
    pub(crate) fn start(lab: &'lab Lab) -> Result<Self> {
        let folder = lab.folder();
        let site = folder.join("site/debian");
        durable::create_folder(&site.join("pool"))?;
        download(&site.join("pool"))?;
        index(lab, &site)?;
        new_key(lab)?;
        sign(lab, &site.join("dists/stable"))?;
        let nginx = serve(lab)?;
        Ok(Self {
            lab,
            url: format!("http://{HOST}/debian/"),
            _nginx: nginx,
        })
    }

    /// The public key that signs the repository.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn public_key(&self) -> Result<Vec<u8>> {
        fs::read(self.lab.folder().join("signer.gpg")).context("no public key")
    }

    /// Every request so far, in order.
    ///
    /// # Errors
    /// When the log has a line that nginx did not finish.
    pub(crate) fn requests(&self) -> Result<Vec<Request>> {
        requests(self.lab)
    }
}

/// Starts nginx over the folder `site`.
pub(crate) fn serve(lab: &Lab) -> Result<Background> {
    let folder = lab.folder();
    let config = folder.join("nginx.conf");
    durable::write(&config, nginx(folder).as_bytes(), 0o644)?;
    let nginx = lab.spawn_on_host(&["nginx", "-c", text(&config)?, "-e", "stderr", "-g", "daemon off;"])?;
    let node = lab.node("n1")?;
    wait::until("nginx listens", Duration::from_secs(20), || {
        node.connect(SocketAddr::from((HOST, PORT))).ok()
    })
    .with_context(|| nginx.log())?;
    Ok(nginx)
}

/// Every request in nginx's log so far, in order.
pub(crate) fn requests(lab: &Lab) -> Result<Vec<Request>> {
    let log = fs::read_to_string(lab.folder().join("access.log")).context("nginx has no log")?;
    log.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("line of the log: {line}")))
        .collect()
}

/// Lets apt fetch the packages from wherever this machine gets its packages.
fn download(pool: &Path) -> Result<()> {
    let fetch = || {
        let mut argv = vec!["download"];
        argv.extend(PACKAGES);
        apt(&argv, pool)
    };
    if fetch().is_err() {
        // A machine whose package lists are gone, such as a slim image, does not know the names yet.
        apt(&["update"], pool)?;
        fetch()?;
    }
    let count = fs::read_dir(pool).context("no pool")?.count();
    ensure!(
        count == PACKAGES.len(),
        "{count} packages downloaded: expected {}",
        PACKAGES.len()
    );
    Ok(())
}

fn apt(argv: &[&str], folder: &Path) -> Result<()> {
    let mut command = command::new("apt-get");
    command
        .args(["-q", "-o", "Acquire::Retries=5", "-o", "APT::Sandbox::User=root"])
        .args(argv)
        .current_dir(folder);
    pass_proxies(&mut command);
    let output = command::run(command, PATIENCE, &[])?;
    command::success(&format!("apt-get {}", argv.join(" ")), output).map(drop)
}

/// The one command that leaves the machine needs what the machine needs for it.
fn pass_proxies(command: &mut Command) {
    for name in ["http_proxy", "https_proxy", "no_proxy"] {
        if let Some(value) = env::var_os(name) {
            command.env(name, value);
        }
    }
}

/// `Packages`, its compressed forms, `Release` and the signed `InRelease`.
pub(crate) fn index(lab: &Lab, site: &Path) -> Result<()> {
    let stable = site.join("dists/stable");
    let binary = stable.join("main/binary-amd64");
    durable::create_folder(&binary)?;
    let packages = said(
        lab,
        &["env", "-C", text(site)?, "apt-ftparchive", "packages", "pool"],
    )?;
    durable::write(&binary.join("Packages"), &packages, 0o644)?;
    for tool in [["gzip", "--keep"], ["xz", "--keep"]] {
        let file = binary.join("Packages");
        said(lab, &[tool[0], tool[1], text(&file)?])?;
    }
    let release = said(
        lab,
        &[
            "apt-ftparchive",
            "-o",
            "APT::FTPArchive::Release::Suite=stable",
            "-o",
            "APT::FTPArchive::Release::Codename=stable",
            "-o",
            "APT::FTPArchive::Release::Components=main",
            "-o",
            "APT::FTPArchive::Release::Architectures=amd64",
            "release",
            text(&stable)?,
        ],
    )?;
    durable::write(&stable.join("Release"), &release, 0o644)?;
    Ok(())
}

/// gpg runs inside the lab, where the agent that it leaves behind ends with everything else.
fn gpg(lab: &Lab, rest: &[&str]) -> Result<()> {
    let home = lab.folder().join("gnupg");
    let mut argv = vec!["gpg", "--batch", "--homedir", text(&home)?, "--passphrase", ""];
    argv.extend(rest);
    said(lab, &argv).map(drop)
}

/// Makes the key that signs, and exports its public part to `signer.gpg`.
pub(crate) fn new_key(lab: &Lab) -> Result<()> {
    let home = lab.folder().join("gnupg");
    durable::create_folder(&home)?;
    said(lab, &["chmod", "700", text(&home)?])?;
    let quick = [
        "--quick-gen-key",
        "repository@lab.example",
        "ed25519",
        "sign",
        "never",
    ];
    gpg(lab, &quick)?;
    let public = lab.folder().join("signer.gpg");
    gpg(lab, &["--output", text(&public)?, "--export"])
}

/// `InRelease` from `Release`.
pub(crate) fn sign(lab: &Lab, suite: &Path) -> Result<()> {
    let (from, to) = (suite.join("Release"), suite.join("InRelease"));
    gpg(lab, &["--output", text(&to)?, "--clear-sign", text(&from)?])
}

/// nginx with nothing from `/etc`: a log in JSON, validators as nginx makes them, and no word about freshness.
pub(crate) fn nginx(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"user root;
worker_processes 1;
pid {folder}/nginx.pid;
events {{ worker_connections 256; }}
http {{
  log_format requests escape=json
    '{{"method":"$request_method","path":"$request_uri","status":$status,"condition":"$http_if_none_match$http_if_modified_since"}}';
  access_log {folder}/access.log requests;
  client_body_temp_path {folder}/nginx-body;
  proxy_temp_path {folder}/nginx-proxy;
  fastcgi_temp_path {folder}/nginx-fastcgi;
  uwsgi_temp_path {folder}/nginx-uwsgi;
  scgi_temp_path {folder}/nginx-scgi;
  default_type application/octet-stream;
  server {{ listen {HOST}:{PORT}; root {folder}/site; }}
}}
"#
    )
}

pub(crate) fn said(lab: &Lab, argv: &[&str]) -> Result<Vec<u8>> {
    let output = lab.on_host(argv)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "`{}` ended with {}: {stderr}",
        argv.join(" "),
        output.status
    );
    Ok(output.stdout)
}

pub(crate) fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the temporary folder is not UTF-8")
}
