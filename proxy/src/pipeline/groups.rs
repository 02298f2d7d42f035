//! Groups: a document and the files that it names belong together, and no client sees files of two generations mixed.
//!
//! The document of a group is `InRelease` (or `Release`), its members are the indexes of the suite. A generation is the document's
//! content. What is done about P6 of every cache, "Hash Sum mismatch":
//!
//! 1. *Published whole.* A new document is read before anybody sees it. It takes the place of the old one only when every index that
//!    clients of the old one have used is stored in its new form: by its `by-hash` name, else by its own, verified. Until then
//!    everybody gets the old document, and its indexes.
//! 2. *One generation for each client.* Which document a client was given last is remembered ([`Seen`]); an index that is asked for by
//!    name is that of this generation, for [`crate::store::KEPT`] generations.
//! 3. *Signed as one.* A `Release` is published together with the `Release.gpg` that is about it (`detached`).
//! 4. *Kept by digest.* Indexes of earlier generations stay stored under their `by-hash` names, whether the origin has such or not.
//!
//! Deliberately absent: signatures (apt checks them). Behind an address that many clients share, the last of them decides; with
//! `by-hash`, which apt prefers where the archive has it, nothing depends on that.

use std::{
    collections::HashSet,
    io::Cursor,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Uri};
use kato_shared::{Digest, chain::Chain};
use tokio::task::spawn_blocking;
use url::Url;

use super::{
    Ask, Pipeline,
    detached::Detached,
    flight::{Flight, LedOutcome, tell},
    landing::{Arrival, Heads},
    lessons::{keyed, known, teacher},
    shared::{Shared, Whole},
};
use crate::{
    ecosystem::{self, Document, Known},
    fill::{FillError, Source, collapse::Joined},
    policy::Stored,
    recent::{Held, Recent},
    route::{Route, Target},
    seldom::warn_seldom,
    store::{ContentRef, LearnError, Outdated, Responses, StoredResponse},
};

/// The largest document of a group. Those of the largest distributions have less than 1 MiB.
pub(super) const LARGEST: u64 = 16 << 20;

/// How often a document is asked for whose archive changes before its signature was fetched, too.
const TRIES: usize = 3;

/// Clients and documents of which it is remembered what was given last.
const MOST_SEEN: usize = 16 << 10;

/// Which document of a group each client was given last.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<Recent<(IpAddr, String), Digest>>);

impl Seen {
    fn note(&self, client: IpAddr, teacher: String, document: Digest) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert((client, teacher), Arc::new(Held::new(document)), 1);
        while seen.weight() > MOST_SEEN && seen.push_out() {}
    }

    fn get(&self, client: IpAddr, teacher: &str) -> Option<Digest> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&(client, teacher.to_owned())).map(|held| **held)
    }
}

/// Whether `target` is the document of a group.
pub(super) fn is_document(target: &Target) -> bool {
    ecosystem::is_group(&target.upstream, &target.path)
}

/// Whether what is taught about a key comes from the document of a group.
pub(super) fn is_member(entry: &Responses) -> bool {
    entry
        .taught()
        .iter()
        .any(|taught| ecosystem::names_group(&taught.by.teacher))
}

impl Pipeline {
    /// Notes that `client` is given `document` for `target`, if that is the document of a group.
    pub(super) fn note_seen(&self, client: IpAddr, target: &Target, document: Digest) {
        if is_document(target)
            && let Some(teacher) = teacher(target)
        {
            self.0.fills.seen.note(client, teacher, document);
        }
    }

    /// What is known about the content that fits `client`.
    pub(super) async fn known_for(
        &self,
        client: IpAddr,
        target: &Target,
        entry: &Responses,
    ) -> Option<Known> {
        if target.digest.is_none() {
            for taught in entry.taught() {
                if !ecosystem::names_group(&taught.by.teacher) {
                    continue;
                }
                let fits = match self.0.fills.seen.get(client, &taught.by.teacher) {
                    Some(seen) => Some(seen),
                    None => self.published(&taught.by.teacher).await,
                };
                if fits == Some(taught.by.document) {
                    return Some(taught.known);
                }
            }
        }
        known(target, entry)
    }

    /// The document that is stored for the group now.
    async fn published(&self, teacher: &str) -> Option<Digest> {
        let entry = self.0.store.lookup(&format!("GET {teacher}")).await;
        whole_of(&entry).map(|stored| stored.content.digest)
    }

    /// A new document of a group: seen by nobody before its indexes, and its signature, are there.
    pub(super) async fn land_group(&self, mut flight: Flight, mut arrival: Arrival) {
        for _ in 0..TRIES {
            let Some((of, heads, body)) = self.whole_document(flight, arrival).await else {
                return;
            };
            flight = of;
            let Some(of) = self.release(flight, &heads, &body).await else {
                return;
            };
            flight = of;
            let target = Arc::clone(&flight.ask.target);
            let mut lessons = self.lessons_of(&target, body.clone()).await;
            let is_signed = match self.detached(&flight, &body).await {
                Detached::Other => false,
                Detached::None => true,
                Detached::Fits(signature) => {
                    lessons.push(*signature);
                    true
                }
            };
            if is_signed {
                return self.land_whole_group(flight, heads, body, lessons).await;
            }
            match self.once_more(&mut flight).await {
                Some(response) => {
                    arrival = flight.arrival(response, None);
                }
                None => break,
            }
        }
        let stored = whole_of(&self.0.store.lookup(flight.ask.target.key.as_str()).await);
        if stored.is_some() {
            withhold(flight);
        } else {
            // Nothing to give instead: each asks for itself, and nothing is stored.
            flight.permit.keep_private();
        }
    }

    /// The end of a flight of which nobody was to get a byte before all had come, and not all came: those who wait are told why.
    pub(super) fn broke_off(&self, flight: Flight, error: FillError) {
        self.note_failure(&flight, &error);
        if let FillError::Interrupted { source, .. } = error {
            let error = Arc::new(source);
            flight.share(Shared::Failed { error });
        }
    }

    /// The whole of a document that has arrived; without it, everybody was told why.
    async fn whole_document(&self, flight: Flight, arrival: Arrival) -> Option<(Flight, Heads, Bytes)> {
        match receive(Source::new(arrival.body), arrival.announced, LARGEST).await {
            Ok(body) => return Some((flight, arrival.heads, body)),
            Err(Some(error)) => self.broke_off(flight, error),
            // Too large to be such a document.
            Err(None) => flight.permit.keep_private(),
        }
        None
    }

    /// Publishes a document with what is signed beside it, once the indexes that are in use are there.
    async fn land_whole_group(
        &self,
        flight: Flight,
        heads: Heads,
        body: Bytes,
        lessons: Vec<(String, Known)>,
    ) {
        let target = Arc::clone(&flight.ask.target);
        let digest = Digest::of(&body);
        let stored = whole_of(&self.0.store.lookup(target.key.as_str()).await);
        if let Some(stored) = &stored
            && stored.content.digest != digest
            && !self.complete(&target, &lessons, stored.content.digest).await
        {
            return withhold(flight);
        }
        self.publish(flight, heads, (body, digest), lessons).await;
    }

    /// Makes a document the one that everybody gets.
    async fn publish(
        &self,
        mut flight: Flight,
        heads: Heads,
        (body, digest): (Bytes, Digest),
        lessons: Vec<(String, Known)>,
    ) {
        let target = Arc::clone(&flight.ask.target);
        let (store, name) = (self.0.store.clone(), teacher(&target).unwrap_or_default());
        let upstream = target.upstream.name.to_string();
        let taught: HashSet<String> = lessons.iter().map(|(key, _)| key.clone()).collect();
        let is_taught = |key: &String| taught.contains(key);
        // It ends with an error only when the process does.
        let learned = spawn_blocking(move || {
            let lessons = lessons.into_iter().map(Ok);
            store.learn((&name, &upstream), digest, lessons)
        })
        .await;
        if let Ok(Err(error)) = learned {
            warn_seldom!(url = %target.key.shown(), error = %Chain(&error), "a document could not be learned");
        }
        let content = ContentRef {
            digest,
            length: body.len() as u64,
        };
        self.keep_whole(&flight, heads.head.clone(), (content, body.clone()))
            .await;
        // A signature that does not show what it is about may be of the document before.
        if let Some(signature) = target
            .key
            .as_str()
            .strip_suffix("/Release")
            .map(|at| format!("{at}/Release.gpg"))
            && !is_taught(&signature)
            && let Err(error) = self.0.store.invalidate(signature).await
        {
            tracing::warn!(error = %Chain(&error), "a signature could not be invalidated");
        }
        let shared = Arc::new(Shared::Whole(Box::new(Whole {
            head: heads.head,
            body,
            version: heads.version,
        })));
        flight.permit.share(Arc::clone(&shared));
        let told = LedOutcome::Shared(shared, None, heads.for_first.map(Box::new));
        tell(flight.tell.take(), told);
    }

    async fn keep_whole(&self, flight: &Flight, head: Stored, (content, body): (ContentRef, Bytes)) {
        if flight.permit.is_tainted() {
            return;
        }
        let response = StoredResponse {
            head,
            content,
            upstream: flight.ask.target.upstream.name.to_string(),
        };
        let key = flight.ask.target.key.to_string();
        if let Err(error) = self.0.store.put_whole(key, response, body).await {
            warn_seldom!(error = %Chain(&error), "a response was delivered but could not be stored");
        }
    }

    /// What the document teaches, by cache key; nothing when it is damaged.
    async fn lessons_of(&self, target: &Arc<Target>, body: Bytes) -> Vec<(String, Known)> {
        let of = Arc::clone(target);
        let read = spawn_blocking(move || {
            let url = Url::parse(of.key.uri()).ok();
            let Some(url) = url else { return Ok(Vec::new()) };
            let document = Document {
                upstream: &of.upstream,
                url: &url,
                path: &of.path,
            };
            ecosystem::lessons(&document, Box::new(Cursor::new(body)))
                .filter_map(|lesson| lesson.map(|lesson| keyed(&lesson)).transpose())
                .collect::<Result<Vec<_>, _>>()
        });
        match read.await {
            Ok(Ok(lessons)) => lessons,
            Ok(Err(error)) => {
                let error = LearnError::from(error);
                tracing::warn!(url = %target.key.shown(), error = %Chain(&error), "a document teaches nothing");
                Vec::new()
            }
            Err(_stopping) => Vec::new(),
        }
    }

    /// Fetches what of the generation is missing and was used of the generation `before`; false when something cannot be had.
    async fn complete(&self, target: &Arc<Target>, lessons: &[(String, Known)], before: Digest) -> bool {
        let (store, all) = (self.0.store.clone(), lessons.to_vec());
        let outdated = match spawn_blocking(move || store.outdated(&all, before)).await {
            Ok(Ok(outdated)) => outdated,
            Ok(Err(error)) => {
                tracing::warn!(error = %Chain(&error), "the index could not be read");
                return true;
            }
            Err(_stopping) => return false,
        };
        for index in outdated {
            if !self.fetch_index(target, &index).await {
                tracing::info!(url = %target.key.shown(), index = %index.key, "an index of the new generation cannot be had");
                return false;
            }
        }
        true
    }

    /// Brings one index into the store, under its `by-hash` name at least.
    async fn fetch_index(&self, target: &Arc<Target>, index: &Outdated) -> bool {
        let Some(url) = index
            .key
            .strip_prefix("GET ")
            .and_then(|url| Url::parse(url).ok())
        else {
            return true;
        };
        let by_hash = |digest: &Digest| ecosystem::by_hash(&url, digest);
        // What clients of the old generation have keeps a name that nothing takes away.
        if let Some(old) = &index.before {
            let key = format!("GET {}", by_hash(old));
            let sharable = self.sharable(target);
            let _named = self.0.store.lookup_content(&key, *old, true, sharable).await;
        }
        let Some(digest) = index.known.digest() else {
            return true;
        };
        let wanted = by_hash(&digest);
        for from in [&wanted, &url] {
            self.fetch_into_store(from, index.known).await;
            let key = format!("GET {wanted}");
            let sharable = self.sharable(target);
            let found = self.0.store.lookup_content(&key, digest, true, sharable).await;
            if !found.heads().is_empty() {
                return true;
            }
        }
        false
    }

    /// Downloads `url`, whose content is known, and waits until it is stored, or not.
    async fn fetch_into_store(&self, url: &Url, known: Known) {
        let uri: Option<Uri> = url.as_str().parse().ok();
        let route = uri.and_then(|uri| self.0.router.route(&Method::GET, &uri).ok());
        let Some(Route::Target(target)) = route else {
            return;
        };
        let ask = Arc::new(Ask {
            method: Method::GET,
            headers: HeaderMap::new(),
            target,
            client: Ipv4Addr::LOCALHOST.into(),
            known: Some(known),
            interim: None,
        });
        let key = ask.flight_key().into_owned();
        let joined = match self.0.collapse.join(&key, &ask.headers) {
            Joined::Lead(permit) => {
                let joined = self.0.collapse.join(&key, &ask.headers);
                self.start_fetch(permit, ask, &Responses::default(), None, None);
                joined
            }
            follow @ Joined::Follow(_) => follow,
        };
        if let Joined::Follow(joiner) = joined {
            joiner.ended().await;
        }
    }
}

/// Everybody gets the document before this one.
fn withhold(flight: Flight) {
    tracing::warn!(
        url = %flight.ask.target.key.shown(),
        "a new generation is held back: what belongs to it cannot be fetched yet"
    );
    flight.share(Shared::Withheld);
}

/// The 200 of an entry.
pub(super) fn whole_of(entry: &Responses) -> Option<StoredResponse> {
    entry
        .responses()
        .filter(|stored| stored.head.status == http::StatusCode::OK)
        .last()
}

/// The whole body; an error without a reason says that it is larger than `most` bytes.
pub(super) async fn receive(
    mut source: Source,
    announced: Option<u64>,
    most: u64,
) -> Result<Bytes, Option<FillError>> {
    let mut whole = BytesMut::new();
    loop {
        let received = whole.len() as u64;
        match source.next().await {
            Ok(Some(chunk)) => whole.extend_from_slice(&chunk),
            Ok(None) => match announced.filter(|announced| *announced != received) {
                Some(announced) => return Err(Some(FillError::Length { announced, received })),
                None => return Ok(whole.freeze()),
            },
            Err(source) => return Err(Some(FillError::Interrupted { received, source })),
        }
        if whole.len() as u64 > most {
            return Err(None);
        }
    }
}
