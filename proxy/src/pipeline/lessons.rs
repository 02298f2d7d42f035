//! Documents that teach: read when they become stored responses, off the reactor, and before anybody is answered from an origin about
//! what they teach.
//!
//! Flow: when the whole of such a document has come, and before anybody is told so, it is noted as under way ([`Lessons::note`]);
//! when it is stored, a task reads it from the store and writes down what it teaches ([`Pipeline::learn`]). A request for a path that may be
//! taught waits for the lessons of its upstream that are under way ([`Lessons::ended`]), but not for a document that is still
//! being downloaded: nobody has that yet.
//!
//! Bounds: the wait by [`PATIENCE`]; who waits longer is answered as if nothing were taught.
//!
//! Deliberately absent: what is taught (see `ecosystem/`), and where it is kept (see `store/lessons`).

use std::{
    fs::File,
    io::{self, Cursor, Read},
    net::IpAddr,
    os::unix::fs::FileExt,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Method, StatusCode, Uri};
use kato_shared::{Digest, chain::Chain};
use tokio::{sync::Notify, task::spawn_blocking, time::timeout};
use url::Url;

use super::{Pipeline, shared::Shared};
use crate::{
    ecosystem::{
        self, Document, Known, Lesson, LessonError,
        cargo::{self, Config},
    },
    key::CacheKey,
    route::Target,
    seldom::warn_seldom,
    settings::{Kind, Upstream},
    store::{Content, ContentRef, LearnError, Responses, Store, Taught},
};

/// How long a request waits for a lesson. The largest index of a distribution is read in a second or two.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most bytes of an index's `config.json`, which has some hundred.
const MOST_CONFIG: u64 = 64 << 10;

/// The lessons under way; all generations of the settings share them.
#[derive(Debug, Default)]
pub(super) struct Lessons {
    count: AtomicUsize,
    all: Mutex<UnderWay>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct UnderWay {
    last: u64,
    lessons: Vec<(u64, String, Option<Arc<Shared>>)>,
}

/// Holds a lesson under way until it is dropped.
#[derive(Debug)]
pub(super) struct Noted {
    lessons: Arc<Lessons>,
    number: u64,
}

impl Lessons {
    /// Notes a lesson of a document of `upstream`; one that is still `coming` counts when it is whole.
    pub(super) fn note(self: &Arc<Self>, upstream: &str, coming: Option<Arc<Shared>>) -> Noted {
        let mut all = self.lock();
        all.last += 1;
        let number = all.last;
        all.lessons.push((number, upstream.to_owned(), coming));
        self.count.store(all.lessons.len(), Ordering::SeqCst);
        Noted {
            lessons: Arc::clone(self),
            number,
        }
    }

    /// Whether a lesson of `upstream` is under way.
    pub(super) fn is_under_way(&self, upstream: &str) -> bool {
        let is_whole = |coming: &Option<Arc<Shared>>| {
            let whole = |shared: &Arc<Shared>| shared.new_head().is_some_and(|(_, is_received)| is_received);
            coming.as_ref().is_none_or(whole)
        };
        self.count.load(Ordering::SeqCst) > 0
            && self
                .lock()
                .lessons
                .iter()
                .any(|(_, of, coming)| of == upstream && is_whole(coming))
    }

    /// Waits for the lessons of `upstream` that are under way, but not for long.
    pub(super) async fn ended(&self, upstream: &str) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let wait = async {
            loop {
                let mut changed = pin!(self.changed.notified());
                // From here on no change is missed.
                changed.as_mut().enable();
                if !self.is_under_way(upstream) {
                    return;
                }
                changed.await;
            }
        };
        if timeout(PATIENCE, wait).await.is_err() {
            tracing::warn!(upstream, "a lesson takes long; requests go on without it");
        }
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        let mut all = self.lessons.lock();
        all.lessons.retain(|(number, ..)| *number != self.number);
        self.lessons.count.store(all.lessons.len(), Ordering::SeqCst);
        drop(all);
        self.lessons.changed.notify_waiters();
    }
}

impl Pipeline {
    /// Notes a lesson if a 200 for `target` is one.
    pub(super) fn note_lesson(
        &self,
        target: &Target,
        status: StatusCode,
        coming: Option<Arc<Shared>>,
    ) -> Option<Noted> {
        let teaches =
            status == StatusCode::OK && ecosystem::teacher(&target.upstream, &target.path).is_some();
        teaches.then(|| self.0.fills.lessons.note(target.upstream.name.as_str(), coming))
    }

    /// Waits until nothing is under way that could teach about `target`.
    pub(super) async fn lessons_ended(&self, target: &Target) {
        for owner in target.owners() {
            self.0.fills.lessons.ended(owner.name.as_str()).await;
        }
    }

    /// What the store has for `target`, as far as its upstreams have a say in it.
    pub(super) async fn lookup(&self, target: &Target) -> Responses {
        if let Some(served) = self.served() {
            return served.lookup(target.key.as_str());
        }
        let entry = self.0.store.lookup(target.key.as_str()).await;
        let is_of = |taught: &Taught| target.owners().any(|owner| taught.is_of(owner.name.as_str()));
        entry
            .for_upstreams(is_of, target.digest.is_some())
            .map_or(entry, Responses::new)
    }

    /// Lets the document that is stored as `content` teach.
    ///
    /// Its addresses are relative to where it was `found_at`, if that is another place than its own.
    pub(super) fn learn(
        &self,
        target: &Arc<Target>,
        (content, found_at): (ContentRef, Option<Url>),
        noted: Noted,
    ) {
        let (pipeline, target) = (self.clone(), Arc::clone(target));
        self.0.tasks.spawn(async move {
            let Some(bytes) = pipeline.0.store.content(content).await else {
                return;
            };
            let store = pipeline.0.store.clone();
            let config = pipeline.crate_config(&target).await;
            // It ends with an error only when the process does.
            let _stopping = spawn_blocking(move || {
                take_in(&store, (&target, found_at), (content, bytes), config.as_ref());
                drop(noted);
            })
            .await;
        });
    }

    /// The `config.json` of the index that `target` is of, where it is stored: it says what a crate's file is about.
    pub(super) async fn crate_config(&self, target: &Target) -> Option<Config> {
        if target.upstream.kind != Kind::Cargo || !cargo::is_index_file(&target.path) {
            return None;
        }
        // The files of crates stand below the folder of `config.json`: `index/config.json`, `index/se/rd/serde`.
        let url = Url::parse(target.key.uri()).ok()?;
        let levels = cargo::levels(url.path());
        let config = url.join(&format!("{}config.json", "../".repeat(levels))).ok()?;
        let key = CacheKey::new(&Method::GET, &config.as_str().parse().ok()?).ok()?;
        let entry = match self.served() {
            Some(served) => served.lookup(key.as_str()),
            None => self.0.store.lookup(key.as_str()).await,
        };
        let stored = entry.responses().find(|one| one.head.status == StatusCode::OK)?;
        let content = self.0.store.content(stored.content).await?;
        let read = spawn_blocking(move || {
            let mut document = Vec::new();
            reader(content)
                .take(MOST_CONFIG)
                .read_to_end(&mut document)
                .ok()?;
            Config::read(&document).ok()
        });
        read.await.ok()?
    }

    /// What the store has for `target` without waiting: `None` while a lesson is under way, or when it has other content than is
    /// taught.
    pub(super) async fn stored_as_taught(&self, client: IpAddr, target: &Target) -> Option<Responses> {
        let lessons = &self.0.fills.lessons;
        if target
            .owners()
            .any(|owner| lessons.is_under_way(owner.name.as_str()))
        {
            return None;
        }
        let entry = self.open_to(target, self.lookup(target).await);
        let is_it = |known: Known| known.digest().is_some_and(|digest| entry.is_only(&digest));
        self.known_for(client, target, &entry)
            .await
            .is_none_or(is_it)
            .then_some(entry)
    }

    /// What of `entry` may answer a request for content that is `known`; what is stored under another name, too.
    pub(super) async fn of_known(&self, target: &Arc<Target>, entry: Responses, known: Known) -> Responses {
        let is_for_good = target.digest.is_some();
        let Some(digest) = self.by_our_function(target, &entry, known).await else {
            return without_content(&entry);
        };
        if entry.is_only(&digest) || is_for_good && !entry.heads().is_empty() {
            return entry;
        }
        let same = entry.only(&digest);
        if !same.is_empty() {
            return Responses::new((same, Vec::new()).into());
        }
        let key = target.key.as_str();
        let sharable = self.sharable(target);
        let store = &self.0.store;
        let found = store.lookup_content(key, digest, is_for_good, sharable).await;
        if found.heads().is_empty() {
            return without_content(&entry);
        }
        // A document may teach under one name what it did not under another.
        if let Some(noted) = self.note_lesson(target, StatusCode::OK, None) {
            let found_at = found.heads()[0].found_at.clone();
            self.learn(target, (found.content(0), found_at), noted);
        }
        found
    }

    /// The SHA-256 of content that is `known`. Where another function was promised and nobody has proved yet what that is, what is stored
    /// under the key is read: it may have come before anything was taught.
    async fn by_our_function(&self, target: &Target, entry: &Responses, known: Known) -> Option<Digest> {
        if let Some(digest) = known.digest() {
            return Some(digest);
        }
        let (store, key, promise) = (&self.0.store, target.key.as_str(), known.integrity);
        if let Some(digest) = store.proved(key, promise).await {
            return Some(digest);
        }
        for stored in entry.responses().filter(|one| one.head.status == StatusCode::OK) {
            let (digest, content) = (stored.content.digest, store.content(stored.content).await);
            let Some(content) = content else { continue };
            let holds = spawn_blocking(move || promise.holds_for(digest, reader(content)));
            if matches!(holds.await, Ok(Ok(true))) {
                store.note_proof(key, promise, digest).await;
                return Some(digest);
            }
        }
        None
    }
}

/// What is left of `entry` where its content is not what is known: what the origin said when there was nothing is still an answer.
fn without_content(entry: &Responses) -> Responses {
    let others = entry.responses().filter(|one| one.head.status != StatusCode::OK);
    Responses::new((others.collect(), Vec::new()).into())
}

/// What is known about the content of `target` in advance: by its URL, else by the last document that taught it. `entry` is what
/// [`Pipeline::lookup`] gives.
///
/// Of several upstreams that the request may mean, none is believed against another.
pub(super) fn known(target: &Target, entry: &Responses) -> Option<Known> {
    let taught = entry.taught();
    if let Some(digest) = target.digest {
        let same = taught.iter().find(|taught| taught.known.digest() == Some(digest));
        return Some(Known::sha256(digest, same.and_then(|taught| taught.known.size)));
    }
    let of = |owner: &Upstream| taught.iter().find(|taught| taught.is_of(owner.name.as_str()));
    let mut said = target.owners().filter_map(of).map(|taught| taught.known);
    let first = said.next()?;
    said.all(|other| other.integrity == first.integrity)
        .then_some(first)
}

/// Reads the document and writes down what it teaches. Blocks.
fn take_in(
    store: &Store,
    (target, found_at): (&Target, Option<Url>),
    (content, bytes): (ContentRef, Content),
    config: Option<&Config>,
) {
    let url = found_at.or_else(|| Url::parse(target.key.uri()).ok());
    let (Some(teacher), Some(url)) = (teacher(target), url) else {
        return;
    };
    let teacher = (teacher.as_str(), target.upstream.name.as_str());
    if store.has_learned(teacher, content.digest).unwrap_or(false) {
        return;
    }
    let document = Document {
        upstream: &target.upstream,
        url: &url,
        path: &target.path,
    };
    let lessons = match config {
        Some(config) => ecosystem::archives(&document, reader(bytes), config),
        None => ecosystem::lessons(&document, reader(bytes)),
    };
    let lessons = lessons.filter_map(|lesson| lesson.map(|lesson| keyed(&lesson)).transpose());
    match store.learn(teacher, content.digest, lessons) {
        Ok(count) => tracing::debug!(url = %target.key.shown(), count, "a document has taught digests"),
        Err(error @ LearnError::Document(LessonError::Read(_) | LessonError::Damaged { .. })) => {
            tracing::warn!(url = %target.key.shown(), error = %Chain(&error), "a document teaches nothing");
        }
        Err(error) => {
            warn_seldom!(url = %target.key.shown(), error = %Chain(&error), "a document could not be learned");
        }
    }
}

/// The name under which the generations of the document are counted.
pub(super) fn teacher(target: &Target) -> Option<String> {
    let path = ecosystem::teacher(&target.upstream, &target.path)?;
    let base = target.upstream.urls.first()?.url();
    // A path with its slash is beside the base URL, at the same origin.
    let base_path = if path.starts_with('/') { "" } else { base.path() };
    Some(format!(
        "{}{base_path}{path}",
        base.origin().ascii_serialization()
    ))
}

/// The lesson by cache key; `None` for a URL that no request can have.
pub(super) fn keyed(lesson: &Lesson) -> Option<(String, Known)> {
    let uri: Uri = lesson.url.as_str().parse().ok()?;
    let key = CacheKey::new(&Method::GET, &uri).ok()?;
    Some((key.to_string(), lesson.known))
}

pub(super) fn reader(content: Content) -> Box<dyn Read + Send> {
    match content {
        Content::Memory(body) => Box::new(Cursor::new((*body).clone())),
        Content::File { file, in_use, .. } => Box::new(InFile {
            file,
            at: 0,
            _in_use: in_use,
        }),
    }
}

/// A file that others read, too, from its beginning.
struct InFile {
    file: Arc<File>,
    at: u64,
    _in_use: Arc<crate::store::InUse>,
}

impl Read for InFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
