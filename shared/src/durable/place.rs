//! Places: the moments before and after each operation of [`super`] that reaches the disk, where a test may end the
//! program or have the disk full.
//!
//! A place has the name of its operation, its moment, and the line that asked for it, e.g.
//! `rename.before upgrader/src/attempt.rs@168`. Nobody has to list them: whatever calls [`super`] has them. A program may have
//! places of its own, which it [`visit`]s by a name without blanks.
//!
//! With the cargo feature `test-util` three variables are read, once:
//! - `KATO_KILL_TRACE=<file>` writes every visit to a file, from which a test learns what there is to kill: `<place>:<n>`;
//! - `KATO_KILL_AT=<place>[:<n>]` sends SIGKILL to the program at that visit;
//! - `KATO_FULL_AT=<place>[:<n>]` has the disk full from that visit on: whatever needs room then fails with `ENOSPC`.
//!
//! Without the feature nothing of this is in the program, and no variable is read.

use std::{io, panic::Location};

/// What reaches the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A file or link gets its name.
    Create,
    /// Bytes go into a file.
    Write,
    /// A folder gets its name.
    MakeFolder,
    /// fsync of a file.
    Flush,
    /// fsync of a folder.
    FlushFolder,
    /// A rename, whether it moves, replaces or exchanges.
    Rename,
    /// A name goes away.
    Remove,
}

impl Operation {
    /// How it is called in the name of a place.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Write => "write",
            Self::MakeFolder => "make-folder",
            Self::Flush => "flush",
            Self::FlushFolder => "flush-folder",
            Self::Rename => "rename",
            Self::Remove => "remove",
        }
    }

    /// Whether a full disk stops it. A flush is none: what was written has its room.
    pub const fn needs_room(self) -> bool {
        match self {
            Self::Create | Self::Write | Self::MakeFolder | Self::Rename => true,
            Self::Flush | Self::FlushFolder | Self::Remove => false,
        }
    }
}

/// Does `act` between the two places of `operation`. The line that called the outermost function is part of their names.
///
/// # Errors
/// Those of `act`; `ENOSPC` where a test says that the disk is full.
#[track_caller]
pub(super) fn step<T>(operation: Operation, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let caller = Location::caller();
    before(operation, caller)?;
    let done = act()?;
    after(operation, caller);
    Ok(done)
}

/// To be called before bytes are written by other means than [`super`]'s, so that a test can have the disk full there.
///
/// # Errors
/// `ENOSPC` where a test says so; else none.
#[track_caller]
pub fn about_to_write() -> io::Result<()> {
    before(Operation::Write, Location::caller())
}

#[cfg(not(feature = "test-util"))]
mod armed {
    use std::{io, panic::Location};

    use super::Operation;

    #[expect(clippy::unnecessary_wraps, reason = "a test's build fails here")]
    pub(super) const fn before(_operation: Operation, _caller: &Location<'_>) -> io::Result<()> {
        Ok(())
    }

    pub(super) const fn after(_operation: Operation, _caller: &Location<'_>) {}

    /// A visit of a place of the program's own.
    pub const fn visit(_name: &str) {}
}

#[cfg(feature = "test-util")]
mod armed {
    use std::{
        collections::BTreeMap,
        fs::OpenOptions,
        io::{self, Write as _},
        panic::Location,
        path::PathBuf,
        sync::{
            LazyLock, Mutex, PoisonError,
            atomic::{AtomicBool, Ordering},
        },
    };

    use super::Operation;

    /// What the test wants.
    #[derive(Debug)]
    struct Orders {
        trace: Option<PathBuf>,
        kill_at: Option<String>,
        full_at: Option<String>,
    }

    static ORDERS: LazyLock<Option<Orders>> = LazyLock::new(|| {
        let orders = Orders {
            trace: variable("KATO_KILL_TRACE").map(Into::into),
            kill_at: variable("KATO_KILL_AT"),
            full_at: variable("KATO_FULL_AT"),
        };
        let is_any = orders.trace.is_some() || orders.kill_at.is_some() || orders.full_at.is_some();
        is_any.then_some(orders)
    });
    static VISITS: Mutex<BTreeMap<String, u32>> = Mutex::new(BTreeMap::new());
    static IS_FULL: AtomicBool = AtomicBool::new(false);

    #[expect(clippy::disallowed_methods, reason = "switches for tests, not settings")]
    fn variable(name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }

    pub(super) fn before(operation: Operation, caller: &Location<'_>) -> io::Result<()> {
        visit_of(operation, "before", caller);
        if operation.needs_room() && IS_FULL.load(Ordering::Relaxed) {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        Ok(())
    }

    pub(super) fn after(operation: Operation, caller: &Location<'_>) {
        visit_of(operation, "after", caller);
    }

    fn visit_of(operation: Operation, moment: &str, caller: &Location<'_>) {
        if ORDERS.is_some() {
            let (file, line) = (caller.file(), caller.line());
            visit(&format!("{}.{moment} {file}@{line}", operation.name()));
        }
    }

    /// A visit of a place of the program's own: noted in the trace, and the end of the program when it was asked for.
    pub fn visit(name: &str) {
        let Some(orders) = &*ORDERS else { return };
        let visit = {
            let mut visits = VISITS.lock().unwrap_or_else(PoisonError::into_inner);
            let visit = visits.entry(name.to_owned()).or_default();
            *visit += 1;
            *visit
        };
        let is_it = |wanted: &Option<String>| {
            wanted
                .as_ref()
                .is_some_and(|wanted| wanted == name || *wanted == format!("{name}:{visit}"))
        };
        if let Some(trace) = &orders.trace {
            // A trace that cannot be written shows up as a place that is never visited.
            let _untraced = OpenOptions::new()
                .append(true)
                .create(true)
                .open(trace)
                .and_then(|mut file| file.write_all(format!("{name}:{visit}\n").as_bytes()));
        }
        if is_it(&orders.full_at) {
            IS_FULL.store(true, Ordering::Relaxed);
        }
        if is_it(&orders.kill_at) {
            let _dead =
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}

pub use self::armed::visit;
use self::armed::{after, before};
