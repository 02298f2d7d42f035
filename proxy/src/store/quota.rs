//! Room for content: how much must go before something comes.
//!
//! A pure decision over facts; the store gathers them and carries out the verdict, `eviction` says what goes.

use super::{layout::Space, ledger::Excess};

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
    /// The most stored responses, and the most contents.
    pub(super) max_objects: u64,
}

/// What is used and promised now, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    /// Content in the index.
    pub(super) stored: u64,
    /// Stored responses or contents, whichever are more.
    pub(super) objects: u64,
    /// Bodies under way, by their whole size where it is known.
    pub(super) reserved: u64,
    /// The part of `reserved` that is on the disk already.
    pub(super) written: u64,
    /// The file system.
    pub(super) space: Space,
}

/// What is to come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    pub(super) bytes: u64,
    pub(super) objects: u64,
}

/// Whether there is room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is room now.
    Fits,
    /// There is room once this much content is gone.
    After {
        /// For the quota and for the disk.
        excess: Excess,
        /// Whether the disk itself has too little. The quota can be made up for a moment later; the disk cannot.
        is_disk: bool,
    },
}

impl Quota {
    /// Whether `need` fits.
    pub(super) fn judge(&self, need: Need, usage: Usage) -> Verdict {
        let promised = usage
            .reserved
            .saturating_sub(usage.written)
            .saturating_add(need.bytes);
        let over_size = usage
            .stored
            .saturating_add(usage.reserved)
            .saturating_add(need.bytes)
            .saturating_sub(self.max_size);
        let over_count = usage
            .objects
            .saturating_add(need.objects)
            .saturating_sub(self.max_objects);
        let over_disk = promised
            .saturating_add(self.floor(usage.space))
            .saturating_sub(usage.space.free);
        let excess = Excess {
            bytes: over_size.max(over_disk),
            contents: over_count,
        };
        if excess == Excess::default() {
            Verdict::Fits
        } else {
            Verdict::After {
                excess,
                is_disk: over_disk > 0,
            }
        }
    }

    /// Bytes to leave free on a file system.
    fn floor(&self, space: Space) -> u64 {
        self.min_free.min(space.size / MIN_FREE_DIVISOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    const QUOTA: Quota = Quota {
        max_size: 10 * GIB,
        min_free: 5 * GIB,
        max_objects: 100,
    };

    fn usage(stored: u64, free: u64) -> Usage {
        Usage {
            stored,
            objects: 10,
            reserved: 0,
            written: 0,
            space: Space {
                free,
                size: 100 * GIB,
            },
        }
    }

    fn bytes(bytes: u64) -> Need {
        Need { bytes, objects: 1 }
    }

    fn after(bytes: u64, contents: u64, is_disk: bool) -> Verdict {
        Verdict::After {
            excess: Excess { bytes, contents },
            is_disk,
        }
    }

    #[test]
    fn p14_the_size_limit_and_the_free_floor_both_count() {
        assert_eq!(QUOTA.judge(bytes(GIB), usage(9 * GIB, 50 * GIB)), Verdict::Fits);
        assert_eq!(
            QUOTA.judge(bytes(2 * GIB), usage(9 * GIB, 50 * GIB)),
            after(GIB, 0, false)
        );
        assert_eq!(
            QUOTA.judge(bytes(2 * GIB), usage(0, 6 * GIB)),
            after(GIB, 0, true)
        );
        let promised = Usage {
            reserved: 3 * GIB,
            written: GIB,
            ..usage(0, 8 * GIB)
        };
        assert_eq!(QUOTA.judge(bytes(GIB), promised), Verdict::Fits);
        assert_eq!(QUOTA.judge(bytes(2 * GIB), promised), after(GIB, 0, true));
    }

    #[test]
    fn p14_the_number_of_objects_counts() {
        let full = Usage {
            objects: 100,
            ..usage(0, 50 * GIB)
        };
        assert_eq!(QUOTA.judge(bytes(1), full), after(0, 1, false));
        let over = Usage { objects: 107, ..full };
        assert_eq!(
            QUOTA.judge(Need { bytes: 0, objects: 0 }, over),
            after(0, 7, false)
        );
        let almost = Usage { objects: 99, ..full };
        assert_eq!(QUOTA.judge(bytes(1), almost), Verdict::Fits);
    }

    #[test]
    fn the_floor_never_asks_for_more_than_a_tenth_of_the_disk() {
        let small = Usage {
            space: Space {
                free: GIB,
                size: 2 * GIB,
            },
            ..usage(0, 0)
        };
        assert_eq!(QUOTA.judge(bytes(GIB / 2), small), Verdict::Fits);
    }
}
