//! The side of the server.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use kato_shared::{chain::Chain, durable};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    runtime::Handle,
    sync::{Mutex, oneshot},
    time::{Instant, interval, interval_at, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{LONGEST, Line, Order, Taking, VIEW, socket};
use crate::{
    bundle::{
        Bundle, BundleError,
        host::Host,
        import::{Import, Imported},
        sign::Trust,
    },
    exit,
    explain::explain,
    pipeline::{Current, Pipeline},
    snapshot::{Library, Record},
    store::{Store, low_priority},
};

/// How often somebody who waits hears something.
const SAID_EVERY: Duration = Duration::from_secs(1);
/// How long the one line of an order may take.
const ORDERING: Duration = Duration::from_secs(10);

/// What listens in a store's folder.
#[derive(Debug)]
pub struct Beside {
    /// None where it cannot listen: then the verbs have to wait for the end of the server.
    listener: Option<UnixListener>,
    store: PathBuf,
    data: SocketAddr,
}

/// Carries out orders.
#[derive(Debug, Clone)]
struct Clerk {
    current: Current,
    store: PathBuf,
    data: SocketAddr,
    one_at_a_time: Arc<Mutex<()>>,
}

impl Beside {
    /// Listens in the folder of the store that this process has open; clients come in at `data`. What a process before left is removed. Blocks.
    pub fn listen(store: &Store, data: SocketAddr) -> Self {
        let store = store.dir();
        if let Err(error) = remove_view(store) {
            tracing::warn!(%error, "the view that a process before has left stays");
        }
        let listener = socket::listen(store);
        if let Err(error) = &listener {
            tracing::warn!(folder = %store.display(), %error, "bundles cannot be carried while this runs: nobody listens in the store's folder");
        }
        Self {
            listener: listener.ok(),
            store: store.to_owned(),
            data,
        }
    }

    /// Carries out orders until `over`.
    pub async fn serve(self, current: Current, over: CancellationToken) {
        let Some(listener) = self.listener else { return };
        let clerk = Clerk {
            current,
            store: self.store,
            data: self.data,
            one_at_a_time: Arc::default(),
        };
        let orders = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = over.cancelled() => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (clerk, over) = (clerk.clone(), over.clone());
                    orders.spawn(async move {
                        tokio::select! {
                            () = clerk.attend(stream) => {}
                            () = over.cancelled() => {}
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "an order for the store was lost");
                    tokio::time::sleep(SAID_EVERY).await;
                }
            }
        }
        // An import that is under way ends with the process, as if it were killed: it is safe against that.
        orders.close();
        orders.wait().await;
        if let Err(error) = durable::remove(&socket::path(&clerk.store)) {
            tracing::debug!(error = %Chain(&error), "the socket of the store stays behind");
        }
    }
}

impl Clerk {
    /// Reads one order and carries it out.
    async fn attend(self, stream: UnixStream) {
        let mut stream = BufReader::new(stream);
        let mut text = Vec::new();
        let read = {
            let mut bounded = (&mut stream).take(LONGEST);
            timeout(ORDERING, bounded.read_until(b'\n', &mut text)).await
        };
        if !matches!(read, Ok(Ok(1..))) {
            return;
        }
        let mut stream = Said(stream);
        match serde_json::from_slice(&text) {
            Ok(Order::Address) => {
                let is_offline = self.current.load().settings().offline;
                let data = self.data;
                stream.say(&Line::Listens { data, is_offline }).await;
            }
            Ok(Order::View) => {
                let _alone = self.alone(&mut stream).await;
                self.view(stream).await;
            }
            Ok(Order::Import(taking)) => {
                let alone = self.alone(&mut stream).await;
                let line = self.import(*taking, &mut stream).await;
                drop(alone);
                stream.say(&line).await;
            }
            Err(error) => {
                let message = format!(
                    "the order is not understood: {error}\nhint: the command and the server are of different versions"
                );
                stream.say(&refused(exit::REFUSED, message)).await;
            }
        }
    }

    /// Waits until no other order is carried out.
    async fn alone(&self, stream: &mut Said) -> tokio::sync::OwnedMutexGuard<()> {
        let mut every = interval(SAID_EVERY);
        let mut waiting = std::pin::pin!(Arc::clone(&self.one_at_a_time).lock_owned());
        loop {
            tokio::select! {
                biased;
                alone = &mut waiting => return alone,
                _ = every.tick() => stream.say(&Line::Waits).await,
            }
        }
    }

    /// Makes a view, and removes it when the other side has hung up.
    async fn view(&self, mut stream: Said) {
        let (store, folder) = (self.current.load().store().clone(), self.store.join(VIEW));
        let at = folder.clone();
        let made = beside("view", move || {
            remove_view(store.dir()).map_err(|error| error.to_string())?;
            store.link_into(&at).map_err(|error| explain(&error))
        });
        let line = match stream.while_at(made, || Line::Waits).await {
            Some(Ok(_count)) => Line::Viewed { folder },
            Some(Err(message)) => refused(exit::REFUSED, message),
            None => refused(exit::BUG, "the view was not made".to_owned()),
        };
        stream.say(&line).await;
        stream.hung_up().await;
        let store = self.store.clone();
        let removed = tokio::task::spawn_blocking(move || remove_view(&store)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(%error, "the view of the store stays until the next one");
        }
    }

    /// Takes a bundle in, whether the other side stays to hear of it or not.
    async fn import(&self, taking: Taking, stream: &mut Said) -> Line {
        let came = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
        let (told, handle, pipeline) = (Arc::clone(&came), Handle::current(), self.current.load());
        let work = beside("import", move || {
            take(&taking, &Watch { pipeline, came: told }, &handle)
        });
        let progress = || Line::Progress {
            stored: came.0.load(Ordering::Relaxed),
            of: came.1.load(Ordering::Relaxed),
        };
        match stream.while_at(work, progress).await {
            Some(Ok(imported)) => {
                tracing::info!(bytes = imported.stored, "a bundle was taken in");
                Line::Imported(Box::new(imported))
            }
            Some(Err(error)) => refused(error.code(), explain(&error)),
            None => refused(exit::BUG, "the import ended without a result".to_owned()),
        }
    }
}

/// An import beside those who are served.
#[derive(Debug)]
struct Watch {
    pipeline: Pipeline,
    came: Arc<(AtomicU64, AtomicU64)>,
}

impl Host for Watch {
    fn progress(&self, stored: u64, of: u64) {
        self.came.0.store(stored, Ordering::Relaxed);
        self.came.1.store(of, Ordering::Relaxed);
    }

    fn activated(&self) {
        if let Err(error) = self.pipeline.look_for_snapshot() {
            tracing::warn!(error = %Chain(&error), "the snapshot that is served stays");
        }
    }

    fn serves(&self) -> Option<Record> {
        self.pipeline.served_record()
    }
}

fn take(taking: &Taking, watch: &Watch, handle: &Handle) -> Result<Imported, BundleError> {
    // Whoever gave the order has seen it.
    if !taking.bundle.is_dir() {
        return Err(BundleError::Unseen(taking.bundle.clone()));
    }
    let bundle = Bundle::open(&taking.bundle, Some(&Trust::read(&taking.trust)?))?;
    let store = watch.pipeline.store();
    let import = Import {
        store,
        library: &Library::new(store.dir()),
        handle,
        bundle: &bundle,
        others: &taking.others,
        keep: taking.keep,
        allowed: taking.allowed,
        now: watch.pipeline.now(),
        host: watch,
    };
    import.run()
}

/// Runs what takes long on a thread of its own, which gives way to those that serve. None when the thread has ended without a result.
async fn beside<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, result) = oneshot::channel();
    let started = thread::Builder::new().name(name.to_owned()).spawn(move || {
        low_priority();
        // Nobody waits for it where the process is about to end.
        let _unheard = done.send(work());
    });
    if let Err(error) = started {
        tracing::warn!(%error, "a thread cannot be started");
    }
    result.await.ok()
}

/// Removes the view that a process before has left, or this one has made, unless somebody has it open.
fn remove_view(store: &Path) -> io::Result<()> {
    let folder = store.join(VIEW);
    if Store::is_open(&folder) {
        let said = format!("`{}` is being read by a command of before", folder.display());
        return Err(io::Error::other(said));
    }
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn refused(code: u8, message: String) -> Line {
    Line::Refused { code, message }
}

/// The way back to whoever gave an order. That nobody is there any more changes nothing.
#[derive(Debug)]
struct Said(BufReader<UnixStream>);

impl Said {
    async fn say(&mut self, line: &Line) {
        let Ok(mut text) = serde_json::to_vec(line) else {
            return;
        };
        text.push(b'\n');
        // Who does not read does not hold anybody up.
        let _gone = timeout(ORDERING, self.0.write_all(&text)).await;
    }

    /// The result of `work`; meanwhile `line` now and then.
    async fn while_at<T>(&mut self, work: impl Future<Output = T>, line: impl Fn() -> Line) -> T {
        let mut every = interval_at(Instant::now() + SAID_EVERY, SAID_EVERY);
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                _ = every.tick() => self.say(&line()).await,
            }
        }
    }

    /// Waits until the other side has closed.
    async fn hung_up(&mut self) {
        let mut text = [0];
        // Nothing more is to come: whatever it is, it is the end.
        let _end = self.0.read(&mut text).await;
    }
}
