//! Plain HTTP and upgrade hosts: release downloads behind signed redirects, sidecars of digests, TUF repositories, with curl where a client
//! of that kind asks.
//!
//! | Module | What is held against the program |
//! |---|---|
//! | `odd` | odd answers take nothing away, and are asked for once |
//! | `presets` | the presets for such hosts, as they are delivered |
//! | `redirects` | content is bound to the URL that was asked, and redirects to the hosts that are listed |
//! | `sidecars` | what a list of digests names is verified by it |
//! | `tuf` | what the names of metadata say about how long they last |

mod odd;
mod presets;
mod redirects;
mod sidecars;
mod tuf;

use anyhow::Result;
use integration_tests::{
    command,
    origin::Origin,
    proxy::{Proxy, Settings},
};
use kato_shared::durable;
use tempfile::TempDir;
use tokio::task::spawn_blocking;

/// An upgrade host, where its files really lie, and the proxy.
struct Site {
    host: Origin,
    objects: Origin,
    proxy: Proxy,
    folder: TempDir,
}

impl Site {
    /// `rules` are more keys of the upstream `files`.
    async fn start(rules: &str) -> Result<Self> {
        Self::start_with(|_| rules.to_owned()).await
    }

    /// The same with rules that name the host of the objects.
    async fn start_with(rules: impl Fn(&Origin) -> String) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (host, objects) = (Origin::start().await?, Origin::start().await?);
        // The second one is named so that its address is not guarded: loopback is, unless the settings name it.
        let settings = format!(
            "[[upstream]]\nname = \"files\"\nurls = [\"{}\"]\n{}\n[[upstream]]\nname = \"objects\"\nurls = [\"{}\"]\n",
            host.url("/"),
            rules(&objects),
            objects.url("/")
        );
        let file = folder.path().join("proxy.toml");
        durable::write(&file, settings.as_bytes(), 0o644)?;
        let proxy = Settings::new(&folder.path().join("cache"))
            .arguments(&["--config", &file.display().to_string()])
            .start()
            .await?;
        Ok(Self {
            host,
            objects,
            proxy,
            folder,
        })
    }

    /// Runs `argv` in the folder of the site; stdout.
    async fn run(&self, argv: &[&str]) -> Result<String> {
        let folder = self.folder.path().display().to_string();
        let mut words = vec!["env".to_owned(), "-C".to_owned(), folder];
        words.extend(argv.iter().map(|&word| word.to_owned()));
        spawn_blocking(move || command::ok(&words)).await?
    }

    /// `path` of the upstream `files`: its status code, `Cache-Status` and body.
    async fn get(&self, path: &str) -> Result<(u16, String, Vec<u8>)> {
        let (answer, body) = self.proxy.client().fetch(&format!("/files{path}")).await?;
        Ok((answer.status, answer.cache_status().to_owned(), body))
    }
}
