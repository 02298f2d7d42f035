//! Bundles made by the real program from a store that real requests filled: killed at places spread over the whole run, read by programs that
//! others wrote, and served on the other side without an origin.

mod abandoned;
mod as_apt;
mod beside;
mod carried;
mod clients;
mod failing;
mod full;
mod interop;
mod kills;
mod large;
mod locks;
mod lost;
mod packages;
mod proven;
mod served;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use integration_tests::{
    command,
    origin::{Origin, Resource},
    proxy::{Proxy, Settings, program},
};
use kato_shared::Digest;
use tempfile::TempDir;

/// Long beside any run of the program on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// A store that was filled through the proxy, a pair of keys, and room for others.
struct Site {
    folder: TempDir,
    /// Where it came from; it goes on listening, so that a connection that must not be made would be counted.
    origin: Origin,
    /// What was asked for, by path at the origin.
    contents: Vec<(String, Vec<u8>)>,
    /// The name of the image in the store.
    image: String,
}

impl Site {
    /// Fills a store with `files` files, one of them large, and an image.
    async fn new(files: usize) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let origin = Origin::start().await?;
        let mut proxy = Settings::new(&folder.path().join("here"))
            .upstream("pkg", &origin.url("/"))
            .start()
            .await?;
        let mut paths = Vec::new();
        for number in 0..files {
            let length = if number == 2 { 700_000 } else { 2000 + number };
            let body: Vec<u8> = format!("{number} ").bytes().cycle().take(length).collect();
            let path = format!("/pool/{number}.deb");
            origin.serve(&path, Resource::cacheable(body.clone()));
            paths.push((path, body));
        }
        paths.extend(serve_image(&origin));
        for (path, body) in &paths {
            record(&proxy, path, body).await?;
        }
        proxy.terminate()?;
        proxy.ended().await?;
        let site = Self {
            image: format!("{}/app:1.0", origin.address()),
            contents: paths,
            folder,
            origin,
        };
        site.ok(
            &[
                "bundle",
                "keygen",
                "--secret",
                &site.at("key"),
                "--public",
                &site.at("key.pub"),
            ],
            &[],
        )?;
        Ok(site)
    }

    /// The store comes to hold one more file.
    async fn grow(&mut self, name: &str, length: usize) -> Result<()> {
        let body: Vec<u8> = name.bytes().cycle().take(length).collect();
        let path = format!("/pool/{name}");
        self.origin.serve(&path, Resource::cacheable(body.clone()));
        let settings = Settings::new(&self.path("here")).upstream("pkg", &self.origin.url("/"));
        let mut proxy = settings.start().await?;
        record(&proxy, &path, &body).await?;
        proxy.terminate()?;
        proxy.ended().await?;
        self.contents.push((path, body));
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn at(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Runs the program to its end.
    fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Output> {
        let mut program = command::new(program()?);
        program.args(arguments).current_dir(self.folder.path());
        for (name, value) in variables {
            program.env(name, value);
        }
        command::run(program, SOON, &[])
    }

    fn ok(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Result<String> {
        command::success(&arguments.join(" "), self.run(arguments, variables)?)
    }

    /// The arguments of an import of `bundle` into the store `there`, by the key `public`.
    const fn import<'a>(bundle: &'a str, there: &'a str, public: &'a str) -> [&'a str; 7] {
        [
            "bundle",
            "import",
            bundle,
            "--cache-dir",
            there,
            "--trust",
            public,
        ]
    }

    /// The arguments of an export into `out`.
    fn export<'a>(store: &'a str, key: &'a str, out: &'a str) -> Vec<&'a str> {
        vec![
            "bundle",
            "export",
            "--cache-dir",
            store,
            "--series",
            "test",
            "--key",
            key,
            "--out",
            out,
            "--waive",
            "a test",
        ]
    }
}

/// Asks `proxy` for `path`, and waits until it is stored.
async fn record(proxy: &Proxy, path: &str, body: &[u8]) -> Result<()> {
    let request = proxy.client().get(&format!("/pkg{path}"));
    let (_, found) = request.fetch().await?;
    ensure!(found == body, "{path} is another");
    proxy.wait_until_stored(&request, body).await
}

/// An image of one layer, as a registry serves it.
fn serve_image(origin: &Origin) -> Vec<(String, Vec<u8>)> {
    let layer = b"a layer, which nobody unpacks here".to_vec();
    let config =
        br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#.to_vec();
    let describe = |kind: &str, bytes: &[u8]| serde_json::json!({ "mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len() });
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": kind,
        "config": describe("application/vnd.oci.image.config.v1+json", &config),
        "layers": [describe("application/vnd.oci.image.layer.v1.tar", &layer)],
    })
    .to_string()
    .into_bytes();
    let mut paths = Vec::new();
    for (path, body, kind) in [
        ("/v2/app/manifests/1.0".to_owned(), manifest, kind),
        (
            format!("/v2/app/blobs/{}", Digest::of(&config)),
            config,
            "application/octet-stream",
        ),
        (
            format!("/v2/app/blobs/{}", Digest::of(&layer)),
            layer,
            "application/octet-stream",
        ),
    ] {
        origin.serve(
            &path,
            Resource::cacheable(body.clone()).header("content-type", kind),
        );
        paths.push((path, body));
    }
    paths
}

/// The one folder in `folder`.
fn only(folder: &Path) -> Result<PathBuf> {
    let mut items = fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
    let item = items.pop().context("nothing was written")?;
    ensure!(items.is_empty(), "{} holds more than one thing", folder.display());
    Ok(item.path())
}
