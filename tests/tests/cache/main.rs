//! The cache as its clients and its origins see it: the real program, real sockets, a scripted origin.
//!
//! | Module | What is held against the program |
//! |---|---|
//! | `collapse` | many clients, one download, nobody paces or breaks anybody (rows A, A2, B, C, C2, I) |
//! | `truth` | what did not arrive whole is never taken for whole (row E, lies, resets) |
//! | `freshness` | when the origin is asked again, and with what; origins that fail |
//! | `ranges` | parts of what is stored, and preconditions of clients |
//! | `status` | `Cache-Status` on every answer; both ways to ask share one stored response |
//! | `access` | deny by default |
//! | `durable` | kill, restart, shut down, read by a stock cacache |
//! | `refusals` | bad settings and bad surroundings end the program with a remedy |
//! | `full_disk` | a store without room costs a client nothing |
//!
//! Nothing here waits for time to pass: the origin holds a body at a gate, the test looks, the gate opens.

use std::path::Path;

use anyhow::Result;
use integration_tests::{
    client::Client,
    origin::{Origin, Resource},
    proxy::{Proxy, Settings},
};
use tempfile::TempDir;

mod access;
mod collapse;
mod durable;
mod freshness;
mod full_disk;
mod ranges;
mod refusals;
mod status;
mod truth;

const MIB: usize = 1 << 20;

/// One origin, and one proxy that knows it as the upstream `files`.
struct Setup {
    origin: Origin,
    proxy: Proxy,
    cache: TempDir,
}

impl Setup {
    async fn start() -> Result<Self> {
        let cache = tempfile::tempdir()?;
        let origin = Origin::start().await?;
        let proxy = settings(cache.path(), &origin).start().await?;
        Ok(Self { origin, proxy, cache })
    }

    /// The same store under a new process.
    async fn start_again(&mut self) -> Result<()> {
        self.proxy = settings(self.cache.path(), &self.origin).start().await?;
        Ok(())
    }

    fn client(&self) -> Client {
        self.proxy.client()
    }

    /// How many requests the origin had for `path`.
    fn asked(&self, path: &str) -> usize {
        self.origin.requests(path).len()
    }

    /// Serves `resource` at `/a`, fetches it once through the mirror path and waits until it is stored.
    async fn stored(&self, resource: Resource) -> Result<()> {
        let body = resource.body();
        self.origin.serve("/a", resource);
        self.client().fetch("/files/a").await?;
        self.proxy
            .wait_until_stored(&self.client().get("/files/a"), &body)
            .await?;
        assert_eq!(self.asked("/a"), 1);
        Ok(())
    }
}

fn settings(cache: &Path, origin: &Origin) -> Settings {
    Settings::new(cache).upstream("files", &origin.url("/"))
}

/// Bytes that do not repeat and do not compress, the same for the same seed.
fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}

/// Compares long bodies without printing them.
fn assert_same(got: &[u8], expected: &[u8], whose: &str) {
    assert_eq!(got.len(), expected.len(), "{whose}: length");
    let first = got.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(first, None, "{whose}: first wrong byte");
}
