//! Two sides of a gap, and a pair of keys.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use http::{HeaderName, HeaderValue};
use jiff::Timestamp;
use kato_shared::{Digest, clock::Clock, settings::ByteSize};
use tempfile::TempDir;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::{
    bundle::{
        BundleError,
        export::{Export, Exported},
        header::Proof,
        host::Alone,
        import::{Import, Imported},
        ledger::Allowed,
        medium::Bundle,
        prepare::{Order, prepare},
        sign::{Signer, Trust, keygen},
    },
    settings,
    snapshot::Library,
    store::{ContentRef, Store, sample},
};

pub(super) struct Lab {
    pub(super) folder: TempDir,
    runtime: Runtime,
    pub(super) signer: Signer,
    pub(super) trust: Trust,
}

pub(super) struct Site {
    pub(super) store: Store,
    pub(super) library: Library,
    handle: Handle,
}

/// An import that is to be adjusted.
pub(super) struct Importing<'s> {
    site: &'s Site,
    pub(super) allow_rollback: bool,
    pub(super) other_series: bool,
    pub(super) others: Vec<PathBuf>,
}

impl Lab {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (secret, public) = (folder.path().join("key"), folder.path().join("key.pub"));
        keygen(&secret, &public, None).unwrap();
        Self {
            signer: Signer::read(&secret, None).unwrap(),
            trust: Trust::read(&[public.display().to_string()]).unwrap(),
            runtime: Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
            folder,
        }
    }

    pub(super) fn site(&self, name: &str) -> Site {
        self.site_of(name, 1 << 30)
    }

    /// A store of at most `bytes`.
    pub(super) fn site_of(&self, name: &str, bytes: u64) -> Site {
        let settings = settings::Cache {
            dir: self.folder.path().join(name),
            max_size: ByteSize::new(bytes),
            min_free: ByteSize::new(0),
            ..settings::Cache::default()
        };
        let store = Store::open(&settings, Clock::system()).unwrap();
        Site {
            library: Library::new(store.dir()),
            store,
            handle: self.runtime.handle().clone(),
        }
    }

    pub(super) fn export(&self, site: &Site, order: &Order) -> PathBuf {
        self.try_export(site, order).unwrap()
    }

    pub(super) fn try_export(&self, site: &Site, order: &Order) -> Result<PathBuf, BundleError> {
        let done = self.exporting(site, order, (&self.signer, Proof::default()))?;
        Ok(done.folder)
    }

    /// An export that `signer` signs and of whose completeness `closure` says something.
    pub(super) fn exporting(
        &self,
        site: &Site,
        order: &Order,
        (signer, closure): (&Signer, Proof),
    ) -> Result<Exported, BundleError> {
        let order = Order {
            series: if order.series.is_empty() {
                "test".to_owned()
            } else {
                order.series.clone()
            },
            ..order.clone()
        };
        let out = self.folder.path().join("out");
        let parties = (&site.store, &site.library, &site.handle);
        let plan = prepare(parties, &order, &out, Timestamp::UNIX_EPOCH, Some(signer))?;
        let export = Export {
            store: &site.store,
            library: &site.library,
            out: &out,
            plan: &plan,
            signer,
            closure,
            rehearsal: Proof::default(),
        };
        export.run()
    }

    pub(super) fn handle(&self) -> &Handle {
        self.runtime.handle()
    }

    pub(super) fn open(&self, bundle: &Path) -> Bundle {
        Bundle::open(bundle, Some(&self.trust)).unwrap()
    }
}

impl Site {
    /// Stores the files of `numbers`.
    pub(super) fn fill(&self, numbers: Range<usize>) {
        for number in numbers {
            self.put(&url(number), &content(number), &[]);
        }
        self.store.flush();
    }

    /// The files of `numbers` were validated a minute after they were stored.
    pub(super) fn grow_older(&self, numbers: Range<usize>) {
        for number in numbers {
            let key = format!("GET {}", url(number));
            let found = self.handle.block_on(self.store.lookup(&key));
            let mut response = found.response(0);
            response.head.times.request += jiff::SignedDuration::from_secs(60);
            response.head.times.response += jiff::SignedDuration::from_secs(60);
            let date = HeaderValue::from_static("Thu, 01 Jan 1970 00:01:00 GMT");
            response.head.headers.insert(http::header::DATE, date);
            self.handle
                .block_on(self.store.put_heads(vec![(key, response)]))
                .unwrap();
        }
        self.store.flush();
    }

    pub(super) fn put(&self, url: &str, body: &[u8], fields: &[(&'static str, &'static str)]) {
        let mut response = sample(body);
        for (name, value) in fields {
            let (name, value) = (HeaderName::from_static(name), HeaderValue::from_static(value));
            response.head.headers.append(name, value);
        }
        let put = self
            .store
            .put_whole(format!("GET {url}"), response, body.to_vec().into());
        self.handle.block_on(put).unwrap();
        self.store.flush();
    }

    /// Forgets what is stored under `url`, and its content.
    pub(super) fn remove(&self, url: &str) {
        let body = self.body(url);
        self.handle
            .block_on(self.store.remove(vec![format!("GET {url}")]))
            .unwrap();
        self.store.flush();
        let path = self.store.content_path(&Digest::of(&body));
        assert!(!path.exists(), "{}", path.display());
    }

    /// What is stored under `url`, as the file holds it.
    pub(super) fn body(&self, url: &str) -> Vec<u8> {
        let found = self.handle.block_on(self.store.lookup(&format!("GET {url}")));
        let ContentRef { digest, .. } = found.content(0);
        let bytes = fs::read(self.store.content_path(&digest)).unwrap();
        assert_eq!(Digest::of(&bytes), digest);
        bytes
    }

    pub(super) fn importing(&self) -> Importing<'_> {
        Importing {
            site: self,
            allow_rollback: false,
            other_series: false,
            others: Vec::new(),
        }
    }

    pub(super) fn import(&self, bundle: &Bundle) -> Result<Imported, BundleError> {
        self.importing().run(bundle)
    }
}

impl Importing<'_> {
    pub(super) fn run(&self, bundle: &Bundle) -> Result<Imported, BundleError> {
        let import = Import {
            store: &self.site.store,
            library: &self.site.library,
            handle: &self.site.handle,
            bundle,
            others: &self.others,
            keep: 3,
            allowed: Allowed {
                rollback: self.allow_rollback,
                other_series: self.other_series,
            },
            now: Timestamp::UNIX_EPOCH,
            host: &Alone,
        };
        import.run()
    }
}

pub(super) fn url(number: usize) -> String {
    format!("https://files{}.example/pool/{number:03}.deb", number % 3)
}

/// Small files, and each tenth one that is large.
fn content(number: usize) -> Vec<u8> {
    let length = if number % 10 == 3 {
        300_000 + number
    } else {
        1000 + number
    };
    format!("{number} ").bytes().cycle().take(length).collect()
}

/// All files below `folder`.
pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for item in fs::read_dir(folder).unwrap().flatten() {
        if item.path().is_dir() {
            found.extend(files(&item.path()));
        } else {
            found.push(item.path());
        }
    }
    found.sort();
    found
}

pub(super) fn size(folder: &Path) -> u64 {
    files(folder)
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .sum()
}
