//! The index on a file system that cannot be written: read from the file, with what opening it has to repair kept in memory.
//!
//! A process that was killed leaves an index that must be repaired before it can be read, and repairing writes. Here the file
//! stays as it is; the few blocks that would be written cover those of the file.

use std::{
    collections::{HashMap, hash_map::Entry},
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use redb::StorageBackend;

/// The unit of covering, in bytes.
const BLOCK: u64 = 4096;

/// Whether `path` lies on a file system that is mounted read-only.
pub(super) fn is_read_only(path: &Path) -> bool {
    let opened = File::options().write(true).open(path);
    opened.is_err_and(|error| error.kind() == io::ErrorKind::ReadOnlyFilesystem)
}

/// A file that is read, and the blocks in memory that cover it.
#[derive(Debug)]
pub(super) struct Frozen {
    file: File,
    cover: Mutex<Cover>,
}

#[derive(Debug)]
struct Cover {
    length: u64,
    blocks: HashMap<u64, Vec<u8>>,
}

impl Frozen {
    /// Opens the file at `path`.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self {
            file,
            cover: Mutex::new(Cover {
                length,
                blocks: HashMap::new(),
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Cover> {
        self.cover.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block of the file; zeros where the file has ended.
    fn block(&self, number: u64) -> io::Result<Vec<u8>> {
        let mut block = vec![0; usize::try_from(BLOCK).unwrap_or(0)];
        let mut done = 0;
        while done < block.len() {
            match self
                .file
                .read_at(&mut block[done..], number * BLOCK + done as u64)?
            {
                0 => break,
                count => done += count,
            }
        }
        Ok(block)
    }
}

/// The parts of `length` bytes from `offset`, as (block, first byte in it, first byte of the part, bytes).
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let position = offset + done as u64;
        let within = usize::try_from(position % BLOCK).unwrap_or(0);
        let count = (usize::try_from(BLOCK).unwrap_or(0) - within).min(length - done);
        (count > 0).then(|| {
            let part = (position / BLOCK, within, done, count);
            done += count;
            part
        })
    })
}

impl StorageBackend for Frozen {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let cover = self.lock();
        if offset.saturating_add(out.len() as u64) > cover.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (number, within, done, count) in parts(offset, out.len()) {
            let own;
            let block = if let Some(covered) = cover.blocks.get(&number) {
                covered
            } else {
                own = self.block(number)?;
                &own
            };
            out[done..done + count].copy_from_slice(&block[within..within + count]);
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut cover = self.lock();
        // What is cut off must be zeros when the file grows again.
        let (first, last) = (length.div_ceil(BLOCK), cover.length.div_ceil(BLOCK));
        for number in first..last {
            cover
                .blocks
                .insert(number, vec![0; usize::try_from(BLOCK).unwrap_or(0)]);
        }
        cover.length = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut cover = self.lock();
        for (number, within, done, count) in parts(offset, data.len()) {
            let block = match cover.blocks.entry(number) {
                Entry::Occupied(covered) => covered.into_mut(),
                Entry::Vacant(bare) => bare.insert(self.block(number)?),
            };
            block[within..within + count].copy_from_slice(&data[done..done + count]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_covers_the_file_and_the_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let original: Vec<u8> = (0..10_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        kato_shared::durable::write(&path, &original, 0o644).unwrap();
        let frozen = Frozen::open(&path).unwrap();
        frozen.write(4000, &[7; 200]).unwrap();
        let mut expected = original.clone();
        expected[4000..4200].fill(7);
        let mut got = vec![0; original.len()];
        frozen.read(0, &mut got).unwrap();
        assert!(got == expected);
        frozen.set_len(5000).unwrap();
        assert!(frozen.read(4999, &mut [0; 2]).is_err());
        frozen.set_len(20_000).unwrap();
        let mut tail = [1; 8192];
        frozen.read(8192, &mut tail).unwrap();
        assert_eq!(tail, [0; 8192]);
        assert!(std::fs::read(&path).unwrap() == original);
    }
}
