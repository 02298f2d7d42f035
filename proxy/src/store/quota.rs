//! Room for content: how much is needed, and which content goes for it.
//!
//! A pure decision over facts; the store gathers them and carries out the verdict.

use std::collections::HashSet;

use kato_shared::Digest;

use super::{index::ContentRow, layout::Space};

/// The part of the file system that `min_free` may ask for at most: a tenth, so that a default made for large disks
/// does not forbid storing anything on a small one.
const MIN_FREE_DIVISOR: u64 = 10;

/// The limits of a store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quota {
    /// The most bytes of content.
    pub(super) max_size: u64,
    /// Bytes to leave free on the file system.
    pub(super) min_free: u64,
}

/// What is used and promised now, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    /// Content in the index.
    pub(super) stored: u64,
    /// Bodies under way, by their whole size where it is known.
    pub(super) reserved: u64,
    /// The part of `reserved` that is on the disk already.
    pub(super) written: u64,
    /// The file system.
    pub(super) space: Space,
}

/// Whether there is room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is room now.
    Fits,
    /// There is room once this many bytes of content are gone.
    After(u64),
}

impl Quota {
    /// Whether `needed` further bytes fit.
    pub(super) fn judge(&self, needed: u64, usage: Usage) -> Verdict {
        let promised = usage
            .reserved
            .saturating_sub(usage.written)
            .saturating_add(needed);
        let over_size = usage
            .stored
            .saturating_add(usage.reserved)
            .saturating_add(needed)
            .saturating_sub(self.max_size);
        let floor = self.min_free.min(usage.space.size / MIN_FREE_DIVISOR);
        let over_disk = promised.saturating_add(floor).saturating_sub(usage.space.free);
        match over_size.max(over_disk) {
            0 => Verdict::Fits,
            over => Verdict::After(over),
        }
    }
}

/// The content to remove for `bytes` of room: what no response names first, then the least recently used; never what
/// `in_use` names. `None` when all of it together would not do, because then removing some would help nobody.
pub(super) fn victims(
    mut rows: Vec<ContentRow>,
    bytes: u64,
    in_use: &HashSet<Digest>,
) -> Option<Vec<ContentRow>> {
    rows.retain(|row| !in_use.contains(&row.digest));
    rows.sort_by_key(|row| (row.is_referenced, row.last_use, row.digest));
    let mut freed = 0_u64;
    let enough = rows.iter().position(|row| {
        freed = freed.saturating_add(row.length);
        freed >= bytes
    })?;
    rows.truncate(enough + 1);
    Some(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn usage(stored: u64, free: u64) -> Usage {
        Usage {
            stored,
            reserved: 0,
            written: 0,
            space: Space {
                free,
                size: 100 * GIB,
            },
        }
    }

    fn row(name: &[u8], length: u64, last_use: i64, is_referenced: bool) -> ContentRow {
        ContentRow {
            digest: Digest::of(name),
            length,
            last_use,
            is_referenced,
        }
    }

    #[test]
    fn the_size_limit_and_the_free_floor_both_count() {
        let quota = Quota {
            max_size: 10 * GIB,
            min_free: 5 * GIB,
        };
        assert_eq!(quota.judge(GIB, usage(9 * GIB, 50 * GIB)), Verdict::Fits);
        assert_eq!(
            quota.judge(2 * GIB, usage(9 * GIB, 50 * GIB)),
            Verdict::After(GIB)
        );
        assert_eq!(quota.judge(2 * GIB, usage(0, 6 * GIB)), Verdict::After(GIB));
        let promised = Usage {
            reserved: 3 * GIB,
            written: GIB,
            ..usage(0, 8 * GIB)
        };
        assert_eq!(quota.judge(GIB, promised), Verdict::Fits);
        assert_eq!(quota.judge(2 * GIB, promised), Verdict::After(GIB));
    }

    #[test]
    fn the_floor_never_asks_for_more_than_a_tenth_of_the_disk() {
        let quota = Quota {
            max_size: 10 * GIB,
            min_free: 5 * GIB,
        };
        let small = Usage {
            space: Space {
                free: GIB,
                size: 2 * GIB,
            },
            ..usage(0, 0)
        };
        assert_eq!(quota.judge(GIB / 2, small), Verdict::Fits);
    }

    #[test]
    fn unnamed_content_goes_first_then_the_least_recently_used_and_never_what_is_read() {
        let rows = vec![
            row(b"old", 10, 1, true),
            row(b"new", 10, 9, true),
            row(b"unnamed", 10, 5, false),
            row(b"read", 10, 0, true),
        ];
        let in_use = HashSet::from([Digest::of(b"read")]);
        let chosen = |bytes| {
            victims(rows.clone(), bytes, &in_use)
                .map(|rows| rows.iter().map(|row| row.digest).collect::<Vec<_>>())
        };
        assert_eq!(chosen(5), Some(vec![Digest::of(b"unnamed")]));
        assert_eq!(chosen(15), Some(vec![Digest::of(b"unnamed"), Digest::of(b"old")]));
        assert_eq!(chosen(31), None);
    }
}
