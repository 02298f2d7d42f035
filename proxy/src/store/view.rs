//! A second store with the same content: links, which eviction from the first one cannot take away, and an index of its own.
//!
//! It is for another process that has to read a whole store while this one goes on working: each store has one process.
//!
//! Deliberately absent: content that goes away in the middle of the walk; its responses are left out. Nothing is made durable for its own sake: after a
//! crash, a view is of no use.

use std::{collections::HashSet, fs, io, path::Path, sync::Arc};

use kato_shared::{Digest, durable::DurableError};

use super::{OpenError, Store, StoreError, index::Index, layout::Layout, tables::Change};

/// Keys that are read at a time, and rows of one transaction.
const PAGE: usize = 2048;

/// Why there is no view.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The second store cannot be founded.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The first one cannot be read, or the second one not written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Founds a store in `dir`, on the same file system, with all stored responses whose content is there; returns how many. Nobody has it open then.
    /// Blocks.
    ///
    /// # Errors
    /// [`ViewError`]; what lies in `dir` by then is of no use.
    pub fn link_into(&self, dir: &Path) -> Result<u64, ViewError> {
        let layout = Layout::open(dir)?;
        let index = Index::open(&layout.index(), layout.dir())?;
        let (mut linked, mut after, mut count) = (HashSet::new(), String::new(), 0);
        loop {
            self.0.behind.settle_all();
            let page = self.0.index.list("", &after, PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after.clone_from(last);
            let mut changes = Vec::new();
            for (key, responses) in page {
                for response in responses {
                    let digest = response.content.digest;
                    if linked.contains(&digest) || self.link_content(&digest, &layout)? {
                        linked.insert(digest);
                        changes.push(Change::Put {
                            key: key.clone(),
                            response: Box::new(response),
                        });
                    }
                }
            }
            count += changes.len() as u64;
            index.submit_blocking(changes)?;
        }
        Ok(count)
    }

    /// Gives the content of `digest` a second name in `layout`. False where it is gone by now.
    fn link_content(&self, digest: &Digest, layout: &Layout) -> Result<bool, StoreError> {
        let (from, to) = (self.content_path(digest), layout.content(digest));
        let folder = to.parent().unwrap_or(layout.dir());
        let linked = fs::create_dir_all(folder).and_then(|()| fs::hard_link(&from, &to));
        match linked {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(StoreError::File(Arc::new(DurableError {
                action: "linking",
                path: to,
                source,
            }))),
        }
    }
}
