//! A body over plain TCP, read past hyper: what is left of it after a plain head ([`plain`](super::plain)); and a large one whose head
//! hyper has read, for which the connection is taken out of hyper.
//!
//! Why: a cold download at full speed costs what its copies cost. hyper reads through a buffer of its own, begins each piece wherever
//! the one before ended, and hands it over by a channel and a task. Here a piece is up to a megabyte of what the socket has, and begins in its
//! page of memory where it will begin in its page of the file: the kernel copies that three times as fast as some other distances
//! (`rep movsb`; see `store::read` for the same).
//!
//! Deliberately absent: chunked bodies, TLS and HTTP/2, which hyper reads; whatever goes wrong is an error that
//! ends the connection, and taking the body up again is `resume`'s.
//!
//! Invariant: never more than the announced bytes are read, so that what the connection carries next is whole.

use std::{collections::VecDeque, io, sync::Arc};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::{
    lease::{Lease, Place},
    open::Socket,
};

/// Below this many bytes taking the connection out of hyper gains nothing.
pub(super) const LEAST: u64 = 1 << 20;

/// Room for the first pieces, so that the clients have something soon, and for those of a download that has filled them. From a
/// megabyte on the kernel's cost of a system call and a wake-up is lost beside that of the copy.
const ROOM: usize = 128 << 10;
const WIDE: usize = 1 << 20;

/// Pieces are cut where less room than this is left.
const LEAST_ROOM: usize = 64 << 10;

/// Downloads that have wide pieces at once: together they hold some 50 MiB at most.
pub(super) const WIDE_AT_ONCE: usize = 8;

/// Pieces of memory that go round: as many as are on the way to the disk, and the one that is being filled.
const ROUND: usize = 4;

const PAGE: usize = 4096;

/// The rest of a body.
#[derive(Debug)]
pub(super) struct Bulk {
    stream: TcpStream,
    /// Given back at the end, where the connection can be used again.
    place: Option<Place>,
    /// What hyper had read.
    ahead: VecDeque<Bytes>,
    /// Bytes to come, those ahead included.
    left: u64,
    buffer: BytesMut,
    /// How much more of its memory is used: up to the end of a page of the file.
    room: usize,
    /// Nothing of its memory was handed out.
    is_fresh: bool,
    /// The first piece of each memory that was used of late: once nobody else has any of it, it is used again.
    used: VecDeque<Bytes>,
    /// The right to wide pieces, and where to get it.
    wide: Option<OwnedSemaphorePermit>,
    wides: Arc<Semaphore>,
}

impl Bulk {
    /// A body of `length` bytes that no one else reads, of which `come` is here.
    pub(super) fn of(
        stream: TcpStream,
        (place, may_be_kept): (Place, bool),
        come: Bytes,
        length: u64,
    ) -> Self {
        let wides = place.wide_pieces();
        Self {
            stream,
            place: Some(place).filter(|_| may_be_kept),
            ahead: Some(come).filter(|come| !come.is_empty()).into_iter().collect(),
            left: length,
            buffer: BytesMut::new(),
            room: 0,
            is_fresh: false,
            used: VecDeque::new(),
            wide: None,
            wides,
        }
    }

    /// Bytes to come.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// Takes over a body of which nothing was read and `length` bytes are to come. `None` when the connection has ended meanwhile: then
    /// `incoming` has all that came.
    ///
    /// # Cancel safety
    /// Dropped early, the body is lost.
    pub(super) async fn take(
        incoming: &mut Incoming,
        lease: Lease,
        (length, may_be_kept): (u64, bool),
    ) -> Option<Self> {
        let (Socket { stream, read }, place) = lease.into_socket().await?;
        let wides = place.wide_pieces();
        let mut ahead = VecDeque::new();
        // What hyper had handed over; an error would have come from the connection, which has not seen its end.
        while let Some(Ok(frame)) = incoming.frame().await {
            ahead.extend(frame.into_data().ok());
        }
        ahead.extend(read);
        ahead.retain(|piece: &Bytes| !piece.is_empty());
        let come = ahead.iter().map(|piece| piece.len() as u64).sum::<u64>();
        Some(Self {
            stream,
            // More than was announced is no response to anything that was asked.
            place: Some(place).filter(|_| may_be_kept && come <= length),
            ahead,
            left: length,
            buffer: BytesMut::new(),
            room: 0,
            is_fresh: false,
            used: VecDeque::new(),
            wide: None,
            wides,
        })
    }

    /// The next bytes, which are to be written at `position` of a file; `None` at the end.
    ///
    /// # Errors
    /// Those of the socket; `UnexpectedEof` when the connection ended before the body.
    ///
    /// # Cancel safety
    /// Nothing is lost when dropped early.
    pub(super) async fn next(&mut self, position: u64) -> io::Result<Option<Bytes>> {
        if let Some(mut piece) = self.ahead.pop_front() {
            piece.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            return Ok(self.hand_out(piece));
        }
        if self.left == 0 {
            return Ok(None);
        }
        self.make_room(position);
        while self.buffer.is_empty() {
            self.stream.readable().await?;
            self.fill()?;
        }
        let piece = self.buffer.split().freeze();
        self.room -= piece.len();
        if std::mem::take(&mut self.is_fresh) {
            self.used.push_back(piece.clone());
        }
        Ok(self.hand_out(piece))
    }

    /// Counts a piece; at the end of the body the connection is for others.
    fn hand_out(&mut self, piece: Bytes) -> Option<Bytes> {
        self.left -= piece.len() as u64;
        (!piece.is_empty()).then_some(piece)
    }

    /// Whether everything has come.
    pub(super) fn is_at_end(&self) -> bool {
        self.left == 0
    }

    /// The body has ended: the next request may use the connection.
    pub(super) fn finish(self) {
        if let Some(place) = self.place {
            place.give_back(self.stream);
        }
    }

    /// Reads what is there, as far as there is room.
    fn fill(&mut self) -> io::Result<()> {
        let room = self.room.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        while self.buffer.len() < room {
            let free = room - self.buffer.len();
            match self.stream.try_read_buf(&mut (&mut self.buffer).limit(free)) {
                Ok(0) if self.buffer.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if self.buffer.is_empty() => return Err(error),
                // It will be met again when these bytes are gone.
                Err(_later) => return Ok(()),
            }
        }
        // The origin is faster than this: larger pieces, where not too many have them.
        if self.wide.is_none() && self.left >= LEAST_ROOM as u64 {
            self.wide = Arc::clone(&self.wides).try_acquire_owned().ok();
        }
        Ok(())
    }

    /// Makes room for bytes that will begin at `position` of a file, and begins at the same place of a page.
    fn make_room(&mut self, position: u64) {
        if self.room >= LEAST_ROOM {
            return;
        }
        self.buffer = BytesMut::new();
        if self.left < LEAST_ROOM as u64 {
            // The end of it, or a small one: where it begins does not matter.
            self.room = usize::try_from(self.left).unwrap_or(LEAST_ROOM);
            self.buffer.reserve(self.room);
            return;
        }
        let size = if self.wide.is_some() { WIDE } else { ROOM };
        if self.used.len() >= ROUND
            && let Some(oldest) = self.used.pop_front()
            && let Ok(memory) = oldest.try_into_mut()
        {
            self.buffer = memory;
            self.buffer.clear();
        }
        // Where it begins in its page is known when it is there.
        self.buffer.reserve(size + PAGE);
        let begins = self.buffer.as_ptr().addr();
        let wanted = usize::try_from(position % PAGE as u64).unwrap_or(0);
        self.room = size - wanted;
        self.is_fresh = true;
        let before = wanted.wrapping_sub(begins) % PAGE;
        self.buffer.resize(before, 0);
        self.buffer.advance(before);
    }
}
