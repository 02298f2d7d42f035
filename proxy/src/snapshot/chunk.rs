//! The written form: a root that lists chunks, and chunks of entries.
//!
//! A chunk ends behind a key whose digest has its low [`BOUNDARY_BITS`] bits zero: some 512 keys, wherever others are added or
//! removed. Chunks are zstd over JSON lines. Reading is bounded before anything is allocated: by the sizes in the root, and by
//! [`LARGEST_CHUNK`] and [`LARGEST_ROOT`] above those.

use std::io::Read;

use kato_shared::{Digest, digest::Hasher};
use serde::{Deserialize, Serialize};

use super::{Entry, Snapshot};

/// What the `format` of a root is.
const FORMAT: &str = "kato/snapshot/1";

/// On the average 2^9 keys make a chunk: small beside a payload, few beside the keys.
const BOUNDARY_BITS: u32 = 9;

/// The most entries of a chunk, should no key end it: bounds what one line changed costs.
const MOST_ENTRIES: usize = 8192;

/// The most chunks of a root: half a thousand million entries.
pub const MOST_CHUNKS: usize = 1 << 20;

/// The largest chunk, unpacked, in bytes.
const LARGEST_CHUNK: u64 = 64 << 20;

/// The largest root in bytes.
const LARGEST_ROOT: usize = 256 << 20;

/// The largest window that a chunk may ask for, as a power of two: what zstd's level below uses, with room above.
const WINDOW_LOG: u32 = 23;

/// zstd's level: chunks are written once and read often.
const LEVEL: i32 = 9;

/// Why a snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The root is no root.
    #[error("the snapshot root {digest} cannot be read")]
    Root {
        /// The root.
        digest: Digest,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A newer program wrote it.
    #[error(
        "the snapshot root {digest} has the format `{found}`, expected `{FORMAT}`\nhint: use a newer kato-proxy"
    )]
    Format {
        /// The root.
        digest: Digest,
        /// Its format.
        found: String,
    },
    /// Something is larger than it may be.
    #[error("{what} {digest} has {found} bytes or more, allowed are {limit}")]
    TooLarge {
        /// `root` or `chunk`.
        what: &'static str,
        /// Which.
        digest: Digest,
        /// Its size.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// It is not there.
    #[error("{what} {digest} of the snapshot is missing")]
    Missing {
        /// `root` or `chunk`.
        what: &'static str,
        /// Which.
        digest: Digest,
    },
    /// Bytes that are other than their name.
    #[error("{what} {expected} of the snapshot has the digest {found}")]
    Digest {
        /// `root` or `chunk`.
        what: &'static str,
        /// Its name.
        expected: Digest,
        /// What its bytes are.
        found: Digest,
    },
    /// A chunk that zstd or JSON does not read.
    #[error("chunk {digest} of the snapshot cannot be read")]
    Chunk {
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A chunk that is not what the root says about it.
    #[error("chunk {digest} of the snapshot has {what}")]
    Contradicts {
        /// Which.
        digest: Digest,
        /// In what it differs.
        what: String,
    },
}

/// A chunk as the root names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkRef {
    /// Its first key.
    pub first: String,
    /// Its compressed bytes.
    pub digest: Digest,
    /// How many these are.
    pub size: u64,
    /// How many bytes they unpack to.
    pub unpacked: u64,
    /// How many entries these are.
    pub entries: u64,
}

/// The root of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    format: String,
    /// All entries.
    pub entries: u64,
    /// All distinct contents.
    pub contents: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The chunks in the order of their keys.
    pub chunks: Vec<ChunkRef>,
}

/// A snapshot in its written form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The digest of the root.
    pub root: Digest,
    /// The bytes of the root.
    pub root_bytes: Vec<u8>,
    /// The chunks, each with its digest.
    pub chunks: Vec<(Digest, Vec<u8>)>,
}

impl Root {
    /// Reads a root that has the digest `expected`.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn decode(expected: Digest, bytes: &[u8]) -> Result<Self, SnapshotError> {
        if bytes.len() > LARGEST_ROOT {
            return Err(too_large(
                "root",
                expected,
                bytes.len() as u64,
                LARGEST_ROOT as u64,
            ));
        }
        check("root", expected, bytes)?;
        let root: Self = serde_json::from_slice(bytes).map_err(|source| SnapshotError::Root {
            digest: expected,
            source,
        })?;
        if root.format != FORMAT {
            return Err(SnapshotError::Format {
                digest: expected,
                found: root.format,
            });
        }
        if root.chunks.len() > MOST_CHUNKS {
            return Err(too_large(
                "root",
                expected,
                root.chunks.len() as u64,
                MOST_CHUNKS as u64,
            ));
        }
        Ok(root)
    }
}

impl ChunkRef {
    /// The entries of this chunk, whose compressed bytes are `bytes`.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn decode(&self, bytes: &[u8]) -> Result<Vec<Entry>, SnapshotError> {
        let limit = self.unpacked.min(LARGEST_CHUNK);
        if bytes.len() as u64 > LARGEST_CHUNK {
            return Err(too_large("chunk", self.digest, bytes.len() as u64, LARGEST_CHUNK));
        }
        check("chunk", self.digest, bytes)?;
        let broken = |source| SnapshotError::Chunk {
            digest: self.digest,
            source,
        };
        let mut decoder = zstd::Decoder::with_buffer(bytes).map_err(broken)?.single_frame();
        decoder.window_log_max(WINDOW_LOG).map_err(broken)?;
        let mut text = Vec::new();
        decoder.take(limit + 1).read_to_end(&mut text).map_err(broken)?;
        if text.len() as u64 > limit {
            return Err(too_large("chunk", self.digest, text.len() as u64, limit));
        }
        let entries = text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).map_err(|source| broken(source.into())))
            .collect::<Result<Vec<Entry>, _>>()?;
        let contradicts = |what: String| SnapshotError::Contradicts {
            digest: self.digest,
            what,
        };
        if entries.len() as u64 != self.entries {
            return Err(contradicts(format!(
                "{} entries, expected {}",
                entries.len(),
                self.entries
            )));
        }
        if entries.first().is_some_and(|entry| entry.key != self.first) {
            return Err(contradicts(format!("another first key than {}", self.first)));
        }
        if !entries.is_sorted_by(|one, other| one.place() < other.place()) {
            return Err(contradicts("entries out of order".to_owned()));
        }
        Ok(entries)
    }
}

impl Snapshot {
    /// The written form; the same for the same entries.
    ///
    /// # Errors
    /// An I/O error of the compressor, which has none in memory.
    pub fn encode(&self) -> std::io::Result<Encoded> {
        let mut chunks = Vec::new();
        let mut refs = Vec::new();
        for entries in cut(&self.entries) {
            let mut text = Vec::new();
            for entry in entries {
                serde_json::to_writer(&mut text, entry)?;
                text.push(b'\n');
            }
            let bytes = zstd::bulk::compress(&text, LEVEL)?;
            let digest = Digest::of(&bytes);
            refs.push(ChunkRef {
                first: entries[0].key.clone(),
                digest,
                size: bytes.len() as u64,
                unpacked: text.len() as u64,
                entries: entries.len() as u64,
            });
            chunks.push((digest, bytes));
        }
        let contents = self.contents();
        let root = Root {
            format: FORMAT.to_owned(),
            entries: self.entries.len() as u64,
            contents: contents.len() as u64,
            bytes: contents.values().sum(),
            chunks: refs,
        };
        let mut root_bytes = serde_json::to_vec_pretty(&root)?;
        root_bytes.push(b'\n');
        Ok(Encoded {
            root: Digest::of(&root_bytes),
            root_bytes,
            chunks,
        })
    }

    /// Reads the snapshot whose root is `digest`; `fetch` gives the bytes of roots and chunks, none for what is missing.
    ///
    /// # Errors
    /// [`SnapshotError`] with the first that is missing or damaged.
    pub fn decode(digest: Digest, fetch: impl Fn(&Digest) -> Option<Vec<u8>>) -> Result<Self, SnapshotError> {
        let bytes = fetch(&digest).ok_or(SnapshotError::Missing { what: "root", digest })?;
        let root = Root::decode(digest, &bytes)?;
        let mut entries: Vec<Entry> = Vec::new();
        for chunk in &root.chunks {
            let bytes = fetch(&chunk.digest).ok_or(SnapshotError::Missing {
                what: "chunk",
                digest: chunk.digest,
            })?;
            let more = chunk.decode(&bytes)?;
            let is_behind = entries
                .last()
                .zip(more.first())
                .is_none_or(|(last, next)| last.place() < next.place());
            if !is_behind {
                return Err(SnapshotError::Contradicts {
                    digest: chunk.digest,
                    what: "keys of the chunk before it".to_owned(),
                });
            }
            entries.extend(more);
        }
        Ok(Self { entries })
    }
}

/// The entries in the pieces that become chunks. All entries of a key are in one piece.
fn cut(entries: &[Entry]) -> Vec<&[Entry]> {
    let mut pieces = Vec::new();
    let mut begin = 0;
    for (at, entry) in entries.iter().enumerate() {
        let is_last_of_key = entries.get(at + 1).is_none_or(|next| next.key != entry.key);
        if is_last_of_key && (is_boundary(&entry.key) || at + 1 - begin >= MOST_ENTRIES) {
            pieces.push(&entries[begin..=at]);
            begin = at + 1;
        }
    }
    if begin < entries.len() {
        pieces.push(&entries[begin..]);
    }
    pieces
}

fn is_boundary(key: &str) -> bool {
    let mut hasher = Hasher::new();
    hasher.update(key.as_bytes());
    let digest = hasher.finish();
    let [.., high, low] = digest.as_bytes();
    u16::from_be_bytes([*high, *low]).trailing_zeros() >= BOUNDARY_BITS
}

fn check(what: &'static str, expected: Digest, bytes: &[u8]) -> Result<(), SnapshotError> {
    let found = Digest::of(bytes);
    if found == expected {
        Ok(())
    } else {
        Err(SnapshotError::Digest {
            what,
            expected,
            found,
        })
    }
}

fn too_large(what: &'static str, digest: Digest, found: u64, limit: u64) -> SnapshotError {
    SnapshotError::TooLarge {
        what,
        digest,
        found,
        limit,
    }
}
