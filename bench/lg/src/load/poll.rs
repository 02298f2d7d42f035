//! The epoll set: which clients have something to read.

use std::{io, os::fd::OwnedFd, time::Duration};

use anyhow::Result;
use rustix::{
    event::{Timespec, epoll},
    io::Errno,
};

use super::link::Link;

/// Events taken at once.
const BATCH: usize = 256;

/// Connections by the number of their client. One that is closed leaves by itself.
#[derive(Debug)]
pub(crate) struct Poll(OwnedFd);

impl Poll {
    /// Empty.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// Watches a new connection.
    ///
    /// # Errors
    /// When the kernel has no room for it.
    pub(crate) fn add(&self, client: usize, link: &Link) -> io::Result<()> {
        let data = epoll::EventData::new_u64(client as u64);
        Ok(epoll::add(&self.0, link, data, epoll::EventFlags::IN)?)
    }

    /// Looks away from a connection, or at it again.
    ///
    /// # Errors
    /// When it is not watched.
    pub(crate) fn watch(&self, client: usize, link: &Link, watched: bool) -> io::Result<()> {
        let data = epoll::EventData::new_u64(client as u64);
        let flags = if watched {
            epoll::EventFlags::IN
        } else {
            epoll::EventFlags::empty()
        };
        Ok(epoll::modify(&self.0, link, data, flags)?)
    }

    /// The clients that have something to read, into `ready`; none after `patience`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn wait(&self, ready: &mut Vec<usize>, patience: Duration) -> Result<()> {
        let patience = Timespec::try_from(patience)?;
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }; BATCH];
        let count = match epoll::wait(&self.0, &mut events, Some(&patience)) {
            Err(Errno::INTR) => 0,
            counted => counted?,
        };
        ready.clear();
        for event in &events[..count] {
            // Copied out first: the kernel packs events.
            let data = event.data;
            ready.push(usize::try_from(data.u64())?);
        }
        Ok(())
    }
}
