//! The rest of a large body over several connections at once, handed on in order.
//!
//! For origins, and ways to them, that give each connection only so much. The response that was asked for first brings the
//! first segment; the following ones are asked for as ranges, a few at a time, each received whole in memory before it is
//! handed on. So the file, its frontier and its digest grow from the beginning as they always do, what breaks off is a
//! beginning that can be gone on with, and memory is bounded by [`SEGMENT`] times the number of connections.
//!
//! A range that is answered otherwise than asked ends this: the rest then comes over one connection, as after a break.

use std::{collections::VecDeque, fmt, future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use tokio::{sync::oneshot, task::JoinSet};

use crate::origin::{OriginBody, OriginError};

/// Bytes of one segment: a few round trips' worth on a fast WAN, so that asking costs little, and little enough to be held.
pub const SEGMENT: u64 = 4 << 20;

/// Asks for bytes `first..end` of the representation; `None` when what comes is not that.
pub type FetchRange = Arc<
    dyn Fn(u64, u64) -> Pin<Box<dyn Future<Output = Result<Option<OriginBody>, OriginError>> + Send>>
        + Send
        + Sync,
>;

/// The segments behind the first.
pub struct Segments {
    fetch: FetchRange,
    /// The first byte that was not handed on, the first that was not asked for, and the size of the whole.
    position: u64,
    asked: u64,
    total: u64,
    width: usize,
    /// The response that brought the first segment, and knows how to go on after a break.
    first: Option<Box<OriginBody>>,
    under_way: VecDeque<oneshot::Receiver<Vec<Bytes>>>,
    tasks: JoinSet<()>,
}

impl fmt::Debug for Segments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segments")
            .field("position", &self.position)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

/// What comes next.
#[derive(Debug)]
pub(super) enum NextSegment {
    /// These bytes.
    Bytes(Vec<Bytes>),
    /// The rest, over one connection.
    Rest(Box<OriginBody>),
    /// Nothing more.
    End,
}

impl Segments {
    /// Bytes `first..total` over `width` connections. They are asked for when [`Self::start`] is called.
    pub fn new(fetch: FetchRange, (first, total): (u64, u64), width: usize) -> Self {
        Self {
            fetch,
            position: first,
            asked: first,
            total,
            width,
            first: None,
            under_way: VecDeque::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Where they begin.
    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    /// They are next: `first` has brought what is before them, and its connection is not needed any more.
    pub(super) fn come_after(&mut self, mut first: Box<OriginBody>) {
        first.hang_up();
        self.first = Some(first);
    }

    /// Asks for as many segments as there are connections left for, `busy` of which are used otherwise.
    pub(super) fn start(&mut self, busy: usize) {
        while self.under_way.len() + busy < self.width && self.asked < self.total {
            let (first, end) = (self.asked, self.total.min(self.asked + SEGMENT));
            self.asked = end;
            let (done, received) = oneshot::channel();
            let asking = (self.fetch)(first, end);
            self.tasks.spawn(async move {
                // Without a word the receiver knows that it did not work.
                if let Ok(Some(body)) = asking.await
                    && let Some(segment) = collect(body, end - first).await
                {
                    let _nobody_waits = done.send(segment);
                }
            });
            self.under_way.push_back(received);
        }
        while self.tasks.try_join_next().is_some() {}
    }

    /// The next segment.
    ///
    /// # Errors
    /// When the rest cannot be had over one connection either.
    pub(super) async fn next(&mut self) -> Result<NextSegment, OriginError> {
        self.start(0);
        let Some(first) = self.under_way.pop_front() else {
            return Ok(NextSegment::End);
        };
        if let Ok(segment) = first.await {
            self.position += segment.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
            return Ok(NextSegment::Bytes(segment));
        }
        tracing::info!(
            at = self.position,
            "a range was not answered as asked; the rest comes over one connection"
        );
        self.tasks.abort_all();
        // Without it the body ends too early, and whoever counts says so.
        let Some(mut body) = self.first.take() else {
            return Ok(NextSegment::End);
        };
        body.go_on_at(self.position).await?;
        Ok(NextSegment::Rest(body))
    }
}

/// All `size` bytes of `body`; `None` when there are more or fewer.
async fn collect(mut body: OriginBody, size: u64) -> Option<Vec<Bytes>> {
    let mut all = Vec::new();
    let mut received = 0;
    while received < size {
        let bytes = body.next().await.ok()??;
        received += bytes.len() as u64;
        all.push(bytes);
    }
    (received == size).then_some(all)
}
