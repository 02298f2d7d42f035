//! What stands around the proxy: an origin with TLS under two names, and clients that go through CONNECT.

use std::{fs, path::Path, process::Output, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use integration_tests::{
    authority::Authority,
    command,
    origin::{Origin, Resource},
    proxy::{self, Proxy, Settings},
    tls_front::TlsFront,
};
use kato_shared::durable;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    task::spawn_blocking,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Long beside anything that loopback does.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The origin, the proxy, and where their certificates are.
pub(crate) struct Site {
    pub(crate) origin: Origin,
    pub(crate) proxy: Proxy,
    pub(crate) folder: TempDir,
    /// Where the origin speaks TLS.
    pub(crate) port: u16,
    _tls: TlsFront,
}

impl Site {
    /// `localhost` is opened and 127.0.0.1 tunnelled; `more` stands before the upstreams in the settings.
    pub(crate) async fn start(more: &str) -> Result<Self> {
        Self::start_with(more, &[]).await
    }

    /// The same with more arguments.
    pub(crate) async fn start_with(more: &str, arguments: &[&str]) -> Result<Self> {
        Self::start_opening([true, false], more, arguments).await
    }

    /// The same where `localhost` and 127.0.0.1 are `opened` or not.
    pub(crate) async fn start_opening(opened: [bool; 2], more: &str, arguments: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let origin = Origin::start().await?;
        let tls = serve_tls(&origin, folder.path()).await?;
        let port = tls.address.port();
        configure(folder.path(), port, more, opened)?;
        let proxy = serving(folder.path(), arguments).start().await?;
        Ok(Self {
            origin,
            proxy,
            folder,
            port,
            _tls: tls,
        })
    }

    /// Writes the settings anew; whether `localhost` and 127.0.0.1 are opened.
    pub(crate) fn configure(&self, more: &str, opened: [bool; 2]) -> Result<()> {
        configure(self.folder.path(), self.port, more, opened)
    }

    /// Another proxy in the place of this one, over the same store.
    pub(crate) async fn restart(&mut self, arguments: &[&str]) -> Result<()> {
        self.proxy.terminate()?;
        self.proxy.ended().await?;
        self.proxy = serving(self.folder.path(), arguments).start().await?;
        Ok(())
    }

    /// Serves `content` at `/a`, fresh for an hour.
    pub(crate) fn serve(&self, content: &[u8]) {
        self.origin.serve("/a", Resource::cacheable(content.to_vec()));
    }

    /// How often `/a` was asked of the origin.
    pub(crate) fn asked(&self) -> usize {
        self.origin.requests("/a").len()
    }

    /// A file of the site.
    pub(crate) fn file(&self, name: &str) -> Result<String> {
        text(&self.folder.path().join(name))
    }

    /// The certificate that clients trust, as a file: what the proxy gives to whoever asks for it.
    pub(crate) async fn ca(&self) -> Result<String> {
        let (answer, body) = self.proxy.client().fetch("/-/ca.crt").await?;
        ensure!(answer.status == 200, "no certificate: {answer:?}");
        let file = self.folder.path().join("trusted.pem");
        durable::write(&file, &body, 0o644)?;
        text(&file)
    }

    /// What curl prints for `/a` of `host` by CONNECT: content, the version of HTTP, the status code.
    pub(crate) async fn curl(&self, host: &str, more: &[&str]) -> Result<String> {
        let output = self.curl_to_end(host, more).await?;
        command::success("curl", output)
    }

    /// The same, whatever becomes of it.
    pub(crate) async fn curl_to_end(&self, host: &str, more: &[&str]) -> Result<Output> {
        let (proxy, port) = (format!("http://{}", self.proxy.data), self.port);
        let url = format!("https://{host}:{port}/a");
        let fixed = [
            "curl",
            "--silent",
            "--show-error",
            "--max-time",
            "30",
            "--write-out",
        ];
        let mut argv = fixed.to_vec();
        argv.extend([" %{http_version} %{http_code}", "--proxy", &proxy]);
        argv.extend(more);
        argv.push(&url);
        to_end(&argv).await
    }

    /// A connection to the proxy that was answered 200 to CONNECT to `localhost`.
    pub(crate) async fn connect(&self) -> Result<TcpStream> {
        let mut stream = TcpStream::connect(self.proxy.data).await?;
        let head = format!(
            "CONNECT localhost:{0} HTTP/1.1\r\nHost: localhost:{0}\r\n\r\n",
            self.port
        );
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(timeout(SOON, stream.read_u8()).await??);
        }
        let answer = String::from_utf8(answer)?;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        Ok(stream)
    }

    /// Inside that, with TLS, trusting the local authority.
    pub(crate) async fn inside(&self) -> Result<TlsStream<TcpStream>> {
        self.tls_over(self.connect().await?).await
    }

    /// TLS over `stream`, which goes to `localhost`, trusting the local authority.
    pub(crate) async fn tls_over<S>(&self, stream: S) -> Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&fs::read(self.ca().await?)?)?)?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("localhost")?;
        Ok(connector.connect(name, stream).await?)
    }

    /// `kato-proxy` with `words` and the settings of the site; stdout.
    pub(crate) async fn ca_command(&self, words: &[&str]) -> Result<String> {
        let output = ca_to_end(self.folder.path(), words).await?;
        command::success("kato-proxy", output)
    }
}

/// `kato-proxy ca` over the settings in `folder`.
pub(crate) async fn ca_to_end(folder: &Path, words: &[&str]) -> Result<Output> {
    let (program, settings) = (text(&proxy::program()?)?, text(&folder.join("proxy.toml"))?);
    let cache = text(&folder.join("cache"))?;
    let mut argv = vec![program.as_str()];
    argv.extend(words);
    argv.extend(["--config", &settings, "--cache-dir", &cache]);
    to_end(&argv).await
}

/// How the proxy of a site is started.
pub(crate) fn serving(folder: &Path, arguments: &[&str]) -> Settings {
    let settings = folder.join("proxy.toml").display().to_string();
    Settings::new(&folder.join("cache"))
        .arguments(&["--config", &settings])
        .arguments(arguments)
}

/// Settings with both upstreams.
pub(crate) fn configure(folder: &Path, port: u16, more: &str, opened: [bool; 2]) -> Result<()> {
    let ca = folder.join("origin-ca.pem");
    let ca = if ca.exists() {
        format!("ca_file = \"{}\"\n", text(&ca)?)
    } else {
        String::new()
    };
    let upstream = |name: &str, host: &str, opened: bool| {
        format!(
            "[[upstream]]\nname = \"{name}\"\nurls = [\"https://{host}:{port}/\"]\nintercept = {opened}\n{ca}"
        )
    };
    let settings = [
        more.to_owned(),
        upstream("opened", "localhost", opened[0]),
        upstream("tunnelled", "127.0.0.1", opened[1]),
    ];
    let file = folder.join("proxy.toml");
    Ok(durable::write(&file, settings.join("\n").as_bytes(), 0o644)?)
}

/// Runs a client to its end, beside the origin that runs on this thread.
pub(crate) async fn to_end(argv: &[&str]) -> Result<Output> {
    let (program, rest) = argv.split_first().context("an empty command")?;
    let mut command = command::new(program);
    command.args(rest);
    spawn_blocking(move || command::run(command, Duration::from_secs(60), &[])).await?
}

/// The same, which must succeed; stdout.
pub(crate) async fn run(argv: &[&str]) -> Result<String> {
    command::success(&argv.join(" "), to_end(argv).await?)
}

pub(crate) fn text(path: &Path) -> Result<String> {
    let path: &Path = path;
    Ok(path.to_str().context("a path that is not UTF-8")?.to_owned())
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Puts TLS before `origin`, by an authority of its own, whose certificate is left in `folder` as `origin-ca.pem`.
async fn serve_tls(origin: &Origin, folder: &Path) -> Result<TlsFront> {
    let below = folder.join("origin");
    durable::create_folder(&below)?;
    let authority = Authority::new(&below)?;
    fs::copy(&authority.certificate, folder.join("origin-ca.pem"))?;
    TlsFront::start(&authority.server("origin")?, origin.address()).await
}
