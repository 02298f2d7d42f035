//! The writer of a fill: a blocking thread that writes what has arrived, all at once, and publishes the frontier.
//!
//! When the disk refuses, it makes room once and tries again; if that does not help, it gives back what it could not write.
//!
//! Deliberately absent: hashing (see `tally`), so that a client without a known digest is not paced by SHA-256.

use std::{
    fs::File,
    io::{self, IoSlice},
    sync::Arc,
};

use bytes::{Buf, Bytes};
use kato_shared::durable;
use rustix::io::{Errno, pwritev};
use tokio::sync::{mpsc, watch};

use super::{Partial, Progress};
use crate::store::Temporary;

/// Chunks on their way to the disk. With the 400 KiB that a socket gives at most this is 6 MiB, with the usual 16 KiB a
/// quarter of one.
pub(super) const QUEUE: usize = 16;

/// The same for pieces of up to 1 MiB: one that is written, one that waits.
pub(super) const BULK_QUEUE: usize = 1;

/// What became of the bytes.
#[derive(Debug)]
pub(super) enum Written {
    /// All are in the file.
    Whole(Box<Partial>),
    /// The file ends before them.
    Refused {
        /// What the disk did not take, in order.
        rest: Vec<Bytes>,
        /// Why.
        cause: String,
        /// The file, so that it stays while it is read.
        file: Box<Partial>,
    },
}

/// Writes all chunks behind what `partial` has; runs on a blocking thread. The last `held_back` bytes written are not
/// published.
pub(super) fn write_all(
    mut partial: Partial,
    mut chunks: mpsc::Receiver<Bytes>,
    progress: &Arc<watch::Sender<Progress>>,
    held_back: u64,
) -> Written {
    let mut batch = Vec::with_capacity(QUEUE);
    while chunks.blocking_recv_many(&mut batch, QUEUE) > 0 {
        let taken = write_batch(&mut partial.temporary, &mut batch, partial.received);
        let (count, refused) = match taken {
            Ok(count) => (count, None),
            Err((count, cause)) => (count, Some(cause)),
        };
        partial.received += count;
        progress.send_modify(|progress| {
            progress.in_file = partial.received.saturating_sub(held_back);
            progress.frontier = progress.in_file;
        });
        partial.tally.wrote(partial.received);
        if let Some(cause) = refused {
            // Closed first, so that nothing more is queued while the rest is taken out.
            chunks.close();
            while let Some(chunk) = chunks.blocking_recv() {
                batch.push(chunk);
            }
            return Written::Refused {
                rest: batch,
                cause,
                file: Box::new(partial),
            };
        }
    }
    Written::Whole(Box::new(partial))
}

/// Writes the chunks of `batch` at `position` and takes out what is written. On refusal, how many bytes are in the file.
fn write_batch(
    temporary: &mut Temporary,
    batch: &mut Vec<Bytes>,
    position: u64,
) -> Result<u64, (u64, String)> {
    let mut done = 0;
    let mut made_room = false;
    while !batch.is_empty() {
        match write_once(temporary.file(), batch, position + done) {
            Ok(0) => return Err((done, "the disk took no bytes".into())),
            Ok(count) => {
                advance(batch, count);
                done += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let left = batch.iter().map(|chunk| chunk.len() as u64).sum();
                let is_full = durable::is_disk_full(&error);
                if made_room || !is_full || temporary.make_room(left).is_err() {
                    return Err((done, error.to_string()));
                }
                made_room = true;
            }
        }
    }
    temporary
        .grow(position + done)
        .map_err(|error| (done, error.to_string()))?;
    Ok(done)
}

fn write_once(file: &File, batch: &mut Vec<Bytes>, position: u64) -> io::Result<usize> {
    // An empty chunk would make "nothing written" look like a refusal.
    batch.retain(|chunk| !chunk.is_empty());
    if batch.is_empty() {
        return Ok(0);
    }
    let slices: Vec<IoSlice<'_>> = batch.iter().map(|chunk| IoSlice::new(chunk)).collect();
    pwritev(file, &slices, position).map_err(|error: Errno| error.into())
}

/// Takes `count` bytes off the front.
fn advance(batch: &mut Vec<Bytes>, mut count: usize) {
    let mut whole = 0;
    for chunk in batch.iter_mut() {
        if chunk.len() > count {
            chunk.advance(count);
            break;
        }
        count -= chunk.len();
        whole += 1;
    }
    batch.drain(..whole);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_leaves_the_batch_and_nothing_else_does() {
        let batch = || {
            vec![
                Bytes::from_static(b"abc"),
                Bytes::from_static(b"de"),
                Bytes::from_static(b"f"),
            ]
        };
        for (count, left) in [(0, "abcdef"), (2, "cdef"), (3, "def"), (4, "ef"), (6, "")] {
            let mut batch = batch();
            advance(&mut batch, count);
            let text: Vec<u8> = batch.concat();
            assert_eq!(String::from_utf8_lossy(&text), left, "{count}");
        }
    }
}
