//! The listeners as real clients see them: curl, nghttp, h2load and openssl against the real program.
//!
//! | Module | What is held against the program |
//! |---|---|
//! | `tls` | handshakes, protocols, certificates that change while serving |
//! | `http2` | over TLS and with prior knowledge, many streams |
//! | `reload` | settings replaced on SIGHUP without dropping a connection |
//! | `drain` | the end of a process, and what is answered until then |

use std::path::PathBuf;

use anyhow::{Context, Result};
use integration_tests::{
    command,
    origin::{Origin, Resource},
    proxy::{Proxy, Settings},
};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

mod drain;
mod http2;
mod reload;
mod tls;

/// Runs a client to its end, beside the origin that runs on this thread.
async fn run(argv: &[&str]) -> Result<String> {
    let argv: Vec<String> = argv.iter().map(|&word| word.to_owned()).collect();
    spawn_blocking(move || command::ok(&argv)).await?
}

/// A certificate for 127.0.0.1 and its key, as files.
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

impl Pair {
    /// A new one in `folder`, self-signed, for the common name `name`.
    async fn make(folder: &std::path::Path, name: &str) -> Result<Self> {
        let pair = Self {
            certificate: folder.join(format!("{name}.crt")),
            key: folder.join(format!("{name}.key")),
        };
        let subject = format!("/CN={name}");
        let (certificate, key) = (path(&pair.certificate)?, path(&pair.key)?);
        run(&[
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            &subject,
            "-addext",
            "subjectAltName=IP:127.0.0.1,IP:::1",
            "-keyout",
            key,
            "-out",
            certificate,
        ])
        .await?;
        Ok(pair)
    }
}

fn path(path: &std::path::Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}

/// One origin, and one proxy with TLS that knows it as the upstream `files`.
struct Setup {
    origin: Origin,
    proxy: Proxy,
    pair: Pair,
    folder: TempDir,
}

impl Setup {
    async fn start(more: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let origin = Origin::start().await?;
        let pair = Pair::make(folder.path(), "first").await?;
        let proxy = Settings::new(&folder.path().join("cache"))
            .upstream("files", &origin.url("/"))
            .arguments(&["--listen-tls", "127.0.0.1:0", "--tls-certificate"])
            .arguments(&[path(&pair.certificate)?, "--tls-key", path(&pair.key)?])
            .arguments(more)
            .start()
            .await?;
        Ok(Self {
            origin,
            proxy,
            pair,
            folder,
        })
    }

    /// Serves `content` at `/a`, fresh for an hour.
    fn serve(&self, content: &[u8]) {
        self.origin.serve("/a", Resource::cacheable(content.to_vec()));
    }

    /// The URL of `/a` with TLS.
    fn url(&self) -> Result<String> {
        Ok(format!("https://{}/files/a", self.proxy.tls.context("no TLS")?))
    }

    /// What curl prints for the URL of `/a` with TLS: content, then the version of HTTP and the status code.
    async fn curl(&self, more: &[&str]) -> Result<String> {
        let (url, certificate) = (self.url()?, path(&self.pair.certificate)?);
        let fixed = [
            "curl",
            "--silent",
            "--show-error",
            "--max-time",
            "30",
            "--write-out",
            " %{http_version} %{http_code}",
            "--cacert",
            certificate,
        ];
        run(&[&fixed[..], more, &[&url]].concat()).await
    }
}
