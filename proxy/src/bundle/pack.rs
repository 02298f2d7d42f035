//! Which blob goes into which volume. Pure.
//!
//! First fit, the largest first, over groups: what belongs together stays together where it fits, so that a volume that arrives
//! is of use by itself. A group that is larger than a volume fills volumes of its own; a blob that is larger is cut into parts,
//! each but the last of which is a volume by itself.
//!
//! Invariants: no volume is larger than the limit; each byte of each blob is in exactly one volume; the same blobs give the same
//! volumes.

use std::{collections::BTreeMap, fmt, str::FromStr};

use kato_shared::{Digest, settings::ByteSize};

use super::tar::{END, Name, room};

/// The most volumes of a bundle: their numbers have three digits.
pub const MOST_VOLUMES: usize = 999;

/// The smallest limit in bytes: below that, headers would be most of it.
const SMALLEST: u64 = 64 << 10;

/// The most parts of a blob: their numbers have four digits.
const MOST_PARTS: u64 = 9999;

/// The most bytes of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(u64);

/// Why something cannot be packed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// No limit.
    #[error(
        "expected fat32, dvd5, dvd9, bd25, bd50 or a size as in 4GiB, from {SMALLEST} bytes on, got `{0}`"
    )]
    Limit(String),
    /// Too many volumes.
    #[error(
        "{volumes} volumes of {limit} bytes would be needed, at most {MOST_VOLUMES} are written\nhint: take a larger --volume"
    )]
    TooMany {
        /// How many.
        volumes: usize,
        /// Of how many bytes.
        limit: u64,
    },
}

impl Limit {
    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The largest member that fits alone.
    const fn largest_member(self) -> u64 {
        let room_for_blocks = (self.0 - END) / super::tar::BLOCK * super::tar::BLOCK;
        room_for_blocks - super::tar::BLOCK
    }
}

impl FromStr for Limit {
    type Err = PackError;

    fn from_str(text: &str) -> Result<Self, PackError> {
        let bytes = match text {
            // One less than 4 GiB: what FAT's directory entries can say.
            "fat32" => 4_294_967_295,
            // Less than a single layer has, so that a file system fits around it.
            "dvd5" => 4480 << 20,
            "dvd9" => 8_500_000_000,
            "bd25" => 25_025_314_816,
            "bd50" => 50_050_629_632,
            size => size
                .parse()
                .map(ByteSize::bytes)
                .map_err(|_no_size| PackError::Limit(text.to_owned()))?,
        };
        if bytes < SMALLEST {
            return Err(PackError::Limit(text.to_owned()));
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A blob that is to be carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// What it is.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// What it belongs to.
    pub group: String,
}

/// A piece of a blob in a volume: the whole, or a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Its name there.
    pub name: Name,
    /// Where it begins in the blob.
    pub offset: u64,
    /// How many bytes it has.
    pub size: u64,
}

/// The volumes for `blobs`.
///
/// # Errors
/// [`PackError::TooMany`].
pub fn pack(blobs: &[Blob], limit: Limit) -> Result<Vec<Vec<Piece>>, PackError> {
    let mut groups: BTreeMap<&str, Vec<Piece>> = BTreeMap::new();
    let mut volumes = Volumes {
        limit,
        filled: Vec::new(),
    };
    for blob in blobs {
        for piece in pieces(blob, limit)? {
            if room(piece.size) + END > limit.bytes() - super::tar::BLOCK
                && matches!(piece.name, Name::Part(..))
            {
                // A volume by itself.
                volumes.open(vec![piece]);
            } else {
                groups.entry(&blob.group).or_default().push(piece);
            }
        }
    }
    let mut groups: Vec<Vec<Piece>> = groups.into_values().collect();
    for group in &mut groups {
        group.sort_by(|one, other| other.size.cmp(&one.size).then(one.name.cmp(&other.name)));
    }
    groups.sort_by_key(|group| std::cmp::Reverse(rooms(group)));
    for group in groups {
        volumes.add(group);
    }
    if volumes.filled.len() > MOST_VOLUMES {
        return Err(PackError::TooMany {
            volumes: volumes.filled.len(),
            limit: limit.bytes(),
        });
    }
    Ok(volumes.filled.into_iter().map(|(_, pieces)| pieces).collect())
}

/// The blob as it fits: whole, or in parts.
fn pieces(blob: &Blob, limit: Limit) -> Result<Vec<Piece>, PackError> {
    let largest = limit.largest_member();
    if blob.size <= largest {
        return Ok(vec![Piece {
            name: Name::Blob(blob.digest),
            offset: 0,
            size: blob.size,
        }]);
    }
    let count = blob.size.div_ceil(largest);
    if count > MOST_PARTS {
        return Err(PackError::TooMany {
            volumes: usize::try_from(count).unwrap_or(usize::MAX),
            limit: limit.bytes(),
        });
    }
    let part = |number: u16| {
        let offset = u64::from(number - 1) * largest;
        Piece {
            name: Name::Part(blob.digest, number),
            offset,
            size: largest.min(blob.size - offset),
        }
    };
    let count = u16::try_from(count).unwrap_or(u16::MAX);
    Ok((1..=count).map(part).collect())
}

/// Volumes that are being filled, each with the bytes that it takes.
struct Volumes {
    limit: Limit,
    filled: Vec<(u64, Vec<Piece>)>,
}

impl Volumes {
    fn open(&mut self, pieces: Vec<Piece>) {
        self.filled.push((END + rooms(&pieces), pieces));
    }

    /// Puts a group into the first volume that has room for all of it, else piece by piece into volumes from a new one on.
    fn add(&mut self, group: Vec<Piece>) {
        let needed = rooms(&group);
        let limit = self.limit.bytes();
        if let Some((taken, pieces)) = self.filled.iter_mut().find(|(taken, _)| taken + needed <= limit) {
            *taken += needed;
            pieces.extend(group);
            return;
        }
        let first = self.filled.len();
        for piece in group {
            let needed = room(piece.size);
            match self.filled[first..]
                .iter_mut()
                .find(|(taken, _)| *taken + needed <= limit)
            {
                Some((taken, pieces)) => {
                    *taken += needed;
                    pieces.push(piece);
                }
                None => self.open(vec![piece]),
            }
        }
    }
}

fn rooms(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|piece| room(piece.size)).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn blob(name: &str, size: u64, group: &str) -> Blob {
        Blob {
            digest: Digest::of(name.as_bytes()),
            size,
            group: group.to_owned(),
        }
    }

    fn size(volume: &[Piece]) -> u64 {
        END + rooms(volume)
    }

    #[test]
    fn a_blob_of_five_gibibytes_is_cut_for_fat32() {
        let limit: Limit = "fat32".parse().unwrap();
        let volumes = pack(&[blob("large", 5 << 30, "a"), blob("small", 10, "a")], limit).unwrap();
        assert_eq!(volumes.len(), 2);
        for volume in &volumes {
            assert!(size(volume) <= 4_294_967_295, "{}", size(volume));
        }
        let parts: u64 = volumes.iter().flatten().map(|piece| piece.size).sum();
        assert_eq!(parts, (5 << 30) + 10);
    }

    #[test]
    fn groups_stay_together_where_they_fit() {
        let limit = Limit(100_000);
        let blobs = [
            blob("a1", 50_000, "a"),
            blob("b1", 50_000, "b"),
            blob("a2", 30_000, "a"),
            blob("b2", 40_000, "b"),
        ];
        let volumes = pack(&blobs, limit).unwrap();
        assert_eq!(volumes.len(), 2);
        for volume in volumes {
            let groups: std::collections::BTreeSet<_> = volume
                .iter()
                .map(|piece| {
                    let found = blobs.iter().find(|blob| blob.digest == piece.name.digest());
                    found.unwrap().group.as_str()
                })
                .collect();
            assert_eq!(groups.len(), 1);
        }
    }

    #[test]
    fn limits_are_names_or_bytes_and_too_many_volumes_are_refused() {
        for text in ["", "cd", "-1", "100"] {
            assert!(text.parse::<Limit>().is_err(), "{text}");
        }
        assert_eq!("4GiB".parse(), Ok(Limit(4 << 30)));
        let limit: Limit = "65536".parse().unwrap();
        assert!(matches!(
            pack(&[blob("a", 1 << 30, "a")], limit),
            Err(PackError::TooMany { .. })
        ));
    }

    proptest! {
        #[test]
        fn every_byte_is_in_one_volume_and_none_is_too_large(
            sizes in proptest::collection::vec((0_u64..300_000, 0_u8..4), 0..40),
            limit in 65_536_u64..200_000,
        ) {
            let blobs: Vec<Blob> = sizes
                .iter()
                .enumerate()
                .map(|(at, (size, group))| blob(&at.to_string(), *size, &group.to_string()))
                .collect();
            let volumes = pack(&blobs, Limit(limit)).unwrap();
            for volume in &volumes {
                prop_assert!(size(volume) <= limit);
            }
            for blob in &blobs {
                let mut pieces: Vec<Piece> = volumes
                    .iter()
                    .flatten()
                    .filter(|piece| piece.name.digest() == blob.digest)
                    .copied()
                    .collect();
                pieces.sort_by_key(|piece| piece.offset);
                let mut at = 0;
                for piece in &pieces {
                    prop_assert_eq!(piece.offset, at);
                    at += piece.size;
                }
                prop_assert!(!pieces.is_empty());
                prop_assert_eq!(at, blob.size);
            }
        }
    }
}
