//! A row of `contents`: size, and what eviction knows, in 21 bytes.

use super::eviction::{Queue, Standing};

/// Size, order, last use, queue and uses, as they are written.
pub(super) type Row = (u64, u64, u32, u8);

/// A row of `contents`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContentValue {
    /// Size in bytes.
    pub(super) length: u64,
    /// What eviction knows.
    pub(super) standing: Standing,
}

impl ContentValue {
    /// Content of `length` bytes.
    pub(super) fn of(length: u64, standing: Standing) -> Self {
        Self { length, standing }
    }

    /// Content that has just come in.
    pub(super) fn new(length: u64, at: i64) -> Self {
        let standing = Standing {
            queue: Queue::Small,
            uses: 0,
            order: 0,
            at: u32::try_from(at).unwrap_or(0),
        };
        Self { length, standing }
    }

    /// As it was written.
    pub(super) fn read((length, order, at, state): Row) -> Self {
        let standing = Standing {
            queue: if state & 4 == 0 { Queue::Small } else { Queue::Main },
            uses: state & 3,
            order,
            at,
        };
        Self { length, standing }
    }

    /// As it is written.
    pub(super) fn row(self) -> Row {
        let Standing {
            queue,
            uses,
            order,
            at,
        } = self.standing;
        let queue = match queue {
            Queue::Small => 0,
            Queue::Main => 4,
        };
        (self.length, order, at, queue | (uses & 3))
    }
}
