//! What stands behind the proxy: nginx with and without TLS, a slow mirror of it, and tinyproxy as the parent, all in the lab's network.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result};
use integration_tests::{
    binaries,
    lab::{Background, HOST, Lab},
    wait,
};
use kato_shared::durable;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// The parent's port. The network is the lab's own, so every port is free.
pub(crate) const PARENT_PORT: u16 = 8888;
/// An address of the lab's network that nobody has.
pub(crate) const DEAD: &str = "10.99.0.250";

const SOON: Duration = Duration::from_secs(20);
const LARGE: usize = 8 << 20;

/// Running servers.
#[derive(Debug)]
pub(crate) struct Site<'lab> {
    lab: &'lab Lab,
    _nginx: Background,
    _parent: Background,
}

impl<'lab> Site<'lab> {
    /// Starts nginx on 80 and 443 and the parent, and gives the node `core` what trusts and identifies them.
    ///
    /// # Errors
    /// When a program of `tests/packages.txt` is missing, or a server does not come up; its log is in the message.
    pub(crate) fn start(lab: &'lab Lab) -> Result<Self> {
        let folder = lab.folder();
        durable::create_folder(&folder.join("site"))?;
        durable::write(&folder.join("site/small"), b"small content", 0o644)?;
        let large: Vec<u8> = (0..=250_u8).cycle().take(LARGE).collect();
        durable::write(&folder.join("site/large"), &large, 0o644)?;
        certify(lab)?;
        // Each proxy on the way adds itself to Via; ours alone means that no parent was asked in absolute-form.
        let common = "log_format seen '$server_protocol $request_method $request_uri $status $from';\n\
             map $http_via $from { default 'by parent'; '~^[^,]*$' 'direct'; }\n";
        let site = folder.display();
        let servers = format!(
            "{common}server {{ listen {HOST}:80; listen {HOST}:443 ssl http2; root {site}/site;\n\
             ssl_certificate {site}/server.pem; ssl_certificate_key {site}/server.key;\n\
             access_log {site}/access.log seen; }}\n"
        );
        let nginx = nginx(lab, "nginx", &servers, 80)?;
        let config = folder.join("tinyproxy.conf");
        let text = format!(
            "Port {PARENT_PORT}\nListen {HOST}\nTimeout 60\nMaxClients 20\nBasicAuth user pass\nConnectPort 443\nViaProxyName \"parent\"\n"
        );
        durable::write(&config, text.as_bytes(), 0o644)?;
        let config = config.to_str().context("the temporary folder is not UTF-8")?;
        let parent = lab.spawn_on_host(&["tinyproxy", "-d", "-c", config])?;
        listens(lab, PARENT_PORT, &parent)?;
        let core = lab.node("core")?;
        core.put("/etc/kato/ca.pem", &fs::read(folder.join("ca.pem"))?, 0o644)?;
        core.put("/etc/kato/parent.credentials", b"user:pass\n", 0o600)?;
        Ok(Self {
            lab,
            _nginx: nginx,
            _parent: parent,
        })
    }

    /// The same content on port 8080, at 2 MiB/s.
    ///
    /// # Errors
    /// When nginx does not come up.
    pub(crate) fn slow_mirror(&self) -> Result<Background> {
        let site = self.lab.folder().display();
        let server =
            format!("server {{ listen {HOST}:8080; root {site}/site; limit_rate 2m; access_log off; }}\n");
        nginx(self.lab, "slow", &server, 8080)
    }

    /// Starts the proxy on `core` with `settings`, and waits until it listens.
    ///
    /// # Errors
    /// When it does not say that it listens.
    pub(crate) fn proxy(&self, settings: &str) -> Result<Background> {
        let core = self.lab.node("core")?;
        core.put("/etc/kato/proxy.toml", settings.as_bytes(), 0o644)?;
        let program = binaries::built("kato-proxy")?;
        let program = program.to_str().context("the target folder is not UTF-8")?;
        let proxy = core.spawn(&[
            program,
            "serve",
            "--config",
            "/etc/kato/proxy.toml",
            "--listen",
            "0.0.0.0:3180",
            "--cache-dir",
            "/var/cache/kato-proxy",
        ])?;
        proxy.line(SOON)?;
        Ok(proxy)
    }

    /// A connection to the proxy that has asked for `path`.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn begin(&self, path: &str) -> Result<TcpStream> {
        let core = self.lab.node("core")?;
        let mut stream = core.connect(SocketAddr::from((core.address(), 3180)))?;
        stream.set_read_timeout(Some(SOON))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: core\r\nConnection: close\r\n\r\n"
        )?;
        Ok(stream)
    }

    /// At least `wanted` more bytes, or all until the end.
    ///
    /// # Errors
    /// When nothing comes for too long.
    #[expect(clippy::unused_self, reason = "reads what the site's proxy sends")]
    pub(crate) fn read(&self, stream: &mut TcpStream, wanted: usize) -> Result<Vec<u8>> {
        let mut received = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        while received.len() < wanted {
            match stream.read(&mut buffer)? {
                0 => break,
                count => received.extend_from_slice(&buffer[..count]),
            }
        }
        Ok(received)
    }

    /// The whole answer to `path`.
    ///
    /// # Errors
    /// When it does not come.
    pub(crate) fn answer(&self, path: &str) -> Result<Vec<u8>> {
        self.read(&mut self.begin(path)?, usize::MAX)
    }

    /// The content of the answer to `path`.
    ///
    /// # Errors
    /// When it does not come.
    pub(crate) fn get(&self, path: &str) -> Result<Vec<u8>> {
        let answer = self.answer(path)?;
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
        Ok(answer[head.context("no head")? + 4..].to_vec())
    }

    /// What nginx serves at `name`.
    ///
    /// # Errors
    /// When there is no such file.
    pub(crate) fn content(&self, name: &str) -> Result<Vec<u8>> {
        fs::read(self.lab.folder().join("site").join(name)).context("no such content")
    }

    /// What nginx was asked, line by line: version, method, path, status, and whether by the parent.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub(crate) fn requests(&self) -> Result<Vec<String>> {
        let log = fs::read_to_string(self.lab.folder().join("access.log")).context("nginx has no log")?;
        Ok(log.lines().map(str::to_owned).collect())
    }
}

/// nginx with `servers`, and nothing from `/etc`.
fn nginx(lab: &Lab, name: &str, servers: &str, port: u16) -> Result<Background> {
    let folder = lab.folder();
    let config = folder.join(format!("{name}.conf"));
    let text = format!(
        "worker_processes 1;\npid {site}/{name}.pid;\nuser root;\nevents {{ worker_connections 256; }}\n\
         http {{ sendfile on; add_header Cache-Control max-age=3600; client_body_temp_path {site}/{name}-body; proxy_temp_path {site}/{name}-proxy;\n\
         fastcgi_temp_path {site}/{name}-fcgi; uwsgi_temp_path {site}/{name}-uwsgi; scgi_temp_path {site}/{name}-scgi;\n{servers}}}\n",
        site = folder.display(),
    );
    durable::write(&config, text.as_bytes(), 0o644)?;
    let config = config.to_str().context("the temporary folder is not UTF-8")?;
    let nginx = lab.spawn_on_host(&[
        "nginx",
        "-c",
        config,
        "-e",
        "stderr",
        "-g",
        "daemon off; master_process off;",
    ])?;
    listens(lab, port, &nginx)?;
    Ok(nginx)
}

fn listens(lab: &Lab, port: u16, server: &Background) -> Result<()> {
    let node = lab.node("core")?;
    wait::until("a server listens", SOON, || {
        node.connect(SocketAddr::from((HOST, port))).ok()
    })
    .map(drop)
    .with_context(|| server.log())
}

/// An authority, and a certificate for the lab's host.
fn certify(lab: &Lab) -> Result<()> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    let authority = parameters.self_signed(&key)?;
    let issuer = Issuer::new(parameters, key);
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![HOST.to_string()])?.signed_by(&key, &issuer)?;
    for (name, text) in [
        ("ca.pem", authority.pem()),
        ("server.pem", certificate.pem()),
        ("server.key", key.serialize_pem()),
    ] {
        durable::write(&lab.folder().join(name), text.as_bytes(), 0o600)?;
    }
    Ok(())
}
