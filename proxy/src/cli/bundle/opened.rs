//! The store that a verb works on: opened by this process, or with the help of the server that has it open.

use std::path::{Path, PathBuf};

use kato_shared::{clock::Clock, settings::ByteSize, settings::byte_size::human};
use tokio::runtime::{Builder, Runtime};

use super::args::StoreArgs;
use crate::{
    beside::{Ask, Asked, Line, Taking, Viewed},
    bundle::import::Imported,
    cli::{explain, fail, tell},
    exit,
    prefetch::Indexes,
    settings::{Cache, DEFAULT_PATH, Settings},
    snapshot::{Library, Parameters},
    store::{OpenError, Store},
};

/// A store that was opened for one verb, or a view of it.
pub(super) struct Opened {
    /// The settings file, if there is one.
    pub(super) config: Option<PathBuf>,
    /// What it says of the store.
    pub(super) cache: Cache,
    /// Which parameters of queries it lets cross.
    pub(super) parameters: Parameters,
    /// The indexes of languages that it names.
    pub(super) indexes: Indexes,
    pub(super) runtime: Runtime,
    pub(super) store: Store,
    pub(super) library: Library,
    /// After the store: it goes away with this.
    _view: Option<Viewed>,
}

/// A store that somebody may have open.
pub(super) enum Reached {
    /// Nobody: it is ours.
    Open(Box<Opened>),
    /// A server.
    Served(Served),
}

/// The server of a store.
pub(super) struct Served {
    /// The store's folder.
    pub(super) store: PathBuf,
    is_json: bool,
}

/// What the settings say that a verb has to know.
struct Settled {
    config: Option<PathBuf>,
    cache: Cache,
    parameters: Parameters,
    indexes: Indexes,
}

pub(super) fn event_loop() -> Result<Runtime, u8> {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| fail(exit::REFUSED, &format!("no event loop: {error}")))
}

impl StoreArgs {
    /// The settings file, and what it and the flags say of the store.
    pub(super) fn settled(&self) -> Result<(Option<PathBuf>, Settings), u8> {
        let default = Path::new(DEFAULT_PATH);
        let file = self
            .config
            .as_deref()
            .or_else(|| default.exists().then_some(default));
        let mut settings = match file {
            Some(path) => Settings::load(path).map_err(|error| fail(exit::USAGE, &explain(&error)))?,
            None => Settings::default(),
        };
        if let Some(dir) = &self.cache_dir {
            settings.cache.dir.clone_from(dir);
        }
        Ok((file.map(Path::to_owned), settings))
    }

    fn known(&self) -> Result<Settled, u8> {
        let (config, settings) = self.settled()?;
        Ok(Settled {
            config,
            parameters: Parameters::of(&settings.upstreams),
            indexes: Indexes::of(&settings),
            cache: settings.cache,
        })
    }

    /// The store for reading, which has to be there: a mistyped folder is no empty store. Where a server has it open, a view of it.
    pub(super) fn open_filled(&self, is_json: bool) -> Result<Opened, u8> {
        let known = self.known()?;
        let dir = known.cache.dir.clone();
        if !Store::is_in(&dir) {
            let said = format!(
                "`{}` holds no store\nhint: name the store's folder with --cache-dir; kato-proxy serve and prefetch fill one",
                dir.display()
            );
            return Err(fail(exit::REFUSED, &said));
        }
        match Store::open(&known.cache, Clock::system()) {
            Err(OpenError::Locked { .. }) => Served::new(&dir, is_json).view(known),
            opened => known.with(opened, None),
        }
    }

    /// The store for writing; it is founded where there is none.
    pub(super) fn reach(&self, is_json: bool) -> Result<Reached, u8> {
        let known = self.known()?;
        let dir = known.cache.dir.clone();
        match Store::open(&known.cache, Clock::system()) {
            Err(OpenError::Locked { .. }) => Ok(Reached::Served(Served::new(&dir, is_json))),
            opened => Ok(Reached::Open(Box::new(known.with(opened, None)?))),
        }
    }
}

impl Settled {
    fn with(self, store: Result<Store, OpenError>, view: Option<Viewed>) -> Result<Opened, u8> {
        Ok(Opened {
            store: store.map_err(|error| fail(exit::REFUSED, &explain(&error)))?,
            // What left and came is on record beside the store itself.
            library: Library::new(&self.cache.dir),
            config: self.config,
            cache: self.cache,
            parameters: self.parameters,
            indexes: self.indexes,
            runtime: event_loop()?,
            _view: view,
        })
    }
}

impl Served {
    fn new(store: &Path, is_json: bool) -> Self {
        Self {
            store: store.to_owned(),
            is_json,
        }
    }

    /// A view of the store, opened.
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method itself is not general over the lifetime of who hears"
    )]
    fn view(&self, known: Settled) -> Result<Opened, u8> {
        let view = self.ask(|ask| ask.view())?;
        let cache = Cache {
            dir: view.folder.clone(),
            // Nothing is stored there, and nothing is to make room for others.
            min_free: ByteSize::new(0),
            ..known.cache.clone()
        };
        known.with(Store::open(&cache, Clock::system()), Some(view))
    }

    /// Has a bundle taken in.
    pub(super) fn import(&self, taking: Taking) -> Result<Imported, u8> {
        self.ask(|ask| ask.import(taking))
    }

    /// Asks, and tells meanwhile how far it is.
    fn ask<T>(&self, ask: impl FnOnce(Ask<'_>) -> Result<T, Asked>) -> Result<T, u8> {
        let mut said = String::new();
        let mut hears = |line: &Line| {
            let text = match line {
                Line::Waits => "the server of this store is at work for a command".to_owned(),
                Line::Progress { stored, of } if *of > 0 => format!("{} of {}", human(*stored), human(*of)),
                Line::Progress { .. }
                | Line::Listens { .. }
                | Line::Viewed { .. }
                | Line::Imported(_)
                | Line::Refused { .. } => return,
            };
            if !self.is_json && text != said {
                tell(&text);
                said = text;
            }
        };
        let asked = ask(Ask {
            store: &self.store,
            hears: &mut hears,
        });
        asked.map_err(|error| fail(error.code(), &explain(&error)))
    }
}
