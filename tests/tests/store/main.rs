//! The store held against bad days: kills, full and failing disks, damage. The real program, real file systems, a scripted origin.
//!
//! | Module | What is held against the program |
//! |---|---|
//! | `behind` | small bodies: hits at once, durable soon, coherent in between |
//! | `trouble` | disks that are full to the last byte, or cannot be written |
//! | `damage` | content that is no longer what it was |
//! | `faults` | a disk with I/O errors |
//! | `partial` | an origin that dies in the middle of a body |
//! | `kills` | SIGKILL at random moments under mixed load |
//! | `verdict` | SIGKILL at each moment between the first byte of a body and the verdict about it |
//!
//! `KATO_KILLS=200 cargo xtask test -- store` kills two hundred times instead of forty.

use std::{fs, path::Path};

use anyhow::Result;
use integration_tests::{
    origin::Origin,
    proxy::{Proxy, Settings},
};
use tempfile::TempDir;

mod behind;
mod damage;
mod faults;
mod kills;
mod partial;
mod trouble;
mod verdict;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// An origin, and a store for a proxy that knows it as the upstream `files`.
struct Site {
    origin: Origin,
    cache: TempDir,
    config: TempDir,
}

impl Site {
    async fn new() -> Result<Self> {
        Ok(Self {
            origin: Origin::start().await?,
            cache: tempfile::tempdir()?,
            config: tempfile::tempdir()?,
        })
    }

    /// Starts a proxy whose settings file has these lines in its section `[cache]`.
    async fn start(&self, cache: &str) -> Result<Proxy> {
        self.start_on(self.cache.path(), cache).await
    }

    /// The same with the store in `dir`.
    async fn start_on(&self, dir: &Path, cache: &str) -> Result<Proxy> {
        self.settings(dir, cache)?.start().await
    }

    /// How such a proxy is started.
    #[expect(clippy::disallowed_methods, reason = "a settings file for one test")]
    fn settings(&self, dir: &Path, cache: &str) -> Result<Settings> {
        let config = self.config.path().join("proxy.toml");
        // A disk that others have filled must not decide a test.
        let lines = format!("[cache]\nmin_free = \"0B\"\n{cache}\n");
        fs::write(&config, lines)?;
        Ok(Settings::new(dir)
            .arguments(&["--config", &config.display().to_string()])
            .upstream("files", &self.origin.url("/")))
    }
}

/// Bytes that do not repeat and do not compress, the same for the same seed.
fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let words = std::iter::repeat_with(|| random.next().to_le_bytes());
    words.flatten().take(length).collect()
}

/// Numbers by a seed.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or(0) % limit
    }
}

/// Compares long bodies without printing them.
fn assert_same(got: &[u8], expected: &[u8], whose: &str) {
    assert_eq!(got.len(), expected.len(), "{whose}: length");
    let first = got.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(first, None, "{whose}: first wrong byte");
}

/// All files below `folder`.
fn files(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}
