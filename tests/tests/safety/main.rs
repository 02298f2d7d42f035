//! Attacks, as tables of bytes: what is sent, what is answered, what the origin hears of it, and what is stored afterwards.
//!
//! | Module | Who attacks, and how |
//! |---|---|
//! | `doors` | a client: what is closed to it, and what only the operator may do |
//! | `http2` | a client: the same in frames, where a line has no end |
//! | `smuggling` | a client: requests inside requests, broken framing, broken heads |
//! | `poisoning` | a client: an answer of its own making, stored for everybody |
//! | `upstream` | an origin: lies about framing, splits responses, answers what was not asked |
//! | `secrets` | nobody: what is secret stands in no log, metric, listing or file |
//! | `admin` | a web page, a neighbour without the token |
//! | `metrics` | a client: labels without bound |

use anyhow::Result;
use integration_tests::proxy::{Proxy, Settings};
use tempfile::TempDir;

mod admin;
mod doors;
mod http2;
mod metrics;
mod poisoning;
mod raw;
mod secrets;
mod smuggling;
mod upstream;

use raw::{Answer, RawOrigin, exchange};

/// One origin, known to one proxy as the upstream `files`.
struct Setup {
    origin: RawOrigin,
    proxy: Proxy,
    /// The store's folder, which lives as long as this.
    cache: TempDir,
}

impl Setup {
    /// The folder that holds the store, and what the proxy may have left beside it.
    fn folder(&self) -> &std::path::Path {
        self.cache.path()
    }

    async fn start() -> Result<Self> {
        Self::with(|settings| settings).await
    }

    async fn with(more: impl FnOnce(Settings) -> Settings) -> Result<Self> {
        let cache = tempfile::tempdir()?;
        let origin = RawOrigin::start().await?;
        let url = format!("http://{}/", origin.address);
        let settings = Settings::new(cache.path()).upstream("files", &url);
        let proxy = more(settings).start().await?;
        Ok(Self { origin, proxy, cache })
    }

    /// The bytes of a table with `HOST` as the origin's address, sent on a connection of their own.
    async fn send(&self, bytes: impl AsRef<[u8]>) -> Result<Vec<Answer>> {
        exchange(self.proxy.data, &self.filled(bytes.as_ref())).await
    }

    /// `bytes` with `HOST` replaced by the origin's address.
    fn filled(&self, bytes: &[u8]) -> Vec<u8> {
        let address = self.origin.address.to_string();
        let mut out = Vec::with_capacity(bytes.len());
        let mut rest = bytes;
        while let Some(at) = rest.windows(4).position(|window| window == b"HOST") {
            out.extend_from_slice(&rest[..at]);
            out.extend_from_slice(address.as_bytes());
            rest = &rest[at + 4..];
        }
        out.extend_from_slice(rest);
        out
    }

    /// The one answer to an honest request.
    async fn get(&self, target: &str) -> Result<Answer> {
        let request = format!("GET {target} HTTP/1.1\r\nHost: cache.example\r\nConnection: close\r\n\r\n");
        let mut answers = self.send(request).await?;
        answers.retain(|answer| !(100..200).contains(&answer.status));
        anyhow::ensure!(answers.len() <= 1, "{target}: {answers:?}");
        // A connection that breaks before the head was sent is an answer, too.
        Ok(answers.pop().unwrap_or_default())
    }

    /// The URLs of all stored responses, below the origin's address, once nothing is being stored any more.
    async fn stored(&self) -> Result<Vec<String>> {
        let (_, listing) = self.proxy.admin_client().fetch("/-/api/entries").await?;
        let listing: serde_json::Value = serde_json::from_slice(&listing)?;
        let base = format!("http://{}", self.origin.address);
        let entries = listing["entries"].as_array().into_iter().flatten();
        Ok(entries
            .filter_map(|entry| Some(entry["url"].as_str()?.replace(&base, "")))
            .collect())
    }
}
