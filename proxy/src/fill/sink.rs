//! The writer of a fill: a blocking thread that hashes, writes, and publishes the frontier.
//!
//! When the disk refuses, it makes room once and tries again; if that does not help, it gives back what it could not write.

use std::{io, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use kato_shared::{digest::Hasher, durable};
use tokio::sync::{mpsc, watch};

use super::Progress;
use crate::store::Temporary;

/// Chunks on their way to the disk; with the usual 16 KiB from a socket this is 1 MiB.
pub(super) const QUEUE: usize = 64;

/// What became of the bytes.
#[derive(Debug)]
pub(super) enum Written {
    /// All are in the file.
    Whole(Box<Temporary>),
    /// The file ends before them.
    Refused {
        /// What the disk did not take, in order.
        rest: Vec<Bytes>,
        /// Why.
        cause: String,
        /// The file, so that it stays while it is read.
        file: Box<Temporary>,
    },
}

/// Writes all chunks; runs on a blocking thread. The last `held_back` bytes
/// written are not published.
pub(super) fn write_all(
    mut temporary: Temporary,
    mut chunks: mpsc::Receiver<Bytes>,
    progress: &Arc<watch::Sender<Progress>>,
    held_back: u64,
) -> (Written, Hasher) {
    let mut hasher = Hasher::new();
    let mut written = 0_u64;
    while let Some(chunk) = chunks.blocking_recv() {
        hasher.update(&chunk);
        let taken = write_chunk(&mut temporary, &chunk, written);
        let (count, refused) = match taken {
            Ok(()) => (chunk.len(), None),
            Err((count, cause)) => (count, Some(cause)),
        };
        written += count as u64;
        progress.send_modify(|progress| {
            progress.in_file = written.saturating_sub(held_back);
            progress.frontier = progress.in_file;
        });
        if let Some(cause) = refused {
            // Closed first, so that nothing more is queued while the rest is taken out.
            chunks.close();
            let mut rest = vec![chunk.slice(count..)];
            while let Some(chunk) = chunks.blocking_recv() {
                hasher.update(&chunk);
                rest.push(chunk);
            }
            let file = Box::new(temporary);
            return (Written::Refused { rest, cause, file }, hasher);
        }
    }
    (Written::Whole(Box::new(temporary)), hasher)
}

/// Writes `chunk` at `position`. On refusal, how many of its bytes are in the file.
fn write_chunk(temporary: &mut Temporary, chunk: &[u8], position: u64) -> Result<(), (usize, String)> {
    let mut done = 0;
    let mut made_room = false;
    while done < chunk.len() {
        match temporary.file().write_at(&chunk[done..], position + done as u64) {
            Ok(0) => return Err((done, "the disk took no bytes".into())),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let is_full = durable::is_disk_full(&error);
                if made_room || !is_full || temporary.make_room(chunk.len() as u64).is_err() {
                    return Err((done, error.to_string()));
                }
                made_room = true;
            }
        }
    }
    temporary
        .grow(position + done as u64)
        .map_err(|error| (done, error.to_string()))
}
