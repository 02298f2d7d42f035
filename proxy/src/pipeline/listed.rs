//! Without any origin: an index of a suite under every name that its signed document gives it.
//!
//! A store has an index under the name by which it was fetched; another client asks by a stronger function (`by-hash/SHA512/…`), or by the name
//! alone. The held `InRelease` (or `Release`) says which content that is, and content is found by its digest, wherever it came from.
//!
//! Deliberately absent: forms of an index that nobody has fetched. Who asks for `Packages.gz` where `Packages.xz` is held gets 404, and asks
//! for the other, which is listed as well.

use http::{StatusCode, header};
use kato_shared::Digest;

use super::{Pipeline, lessons::reader};
use crate::{
    ecosystem::apt,
    policy::Selecting,
    route::Target,
    settings::Kind,
    store::{Responses, StoredResponse},
};

/// How many folders above an index its document may be.
const LEVELS: usize = 8;
/// The largest document that is read.
const MOST_BYTES: u64 = super::groups::LARGEST;

impl Pipeline {
    /// `entry`, what is held under the name of `target`, or in its place what the document of its suite lists under that name.
    pub(super) async fn as_listed(&self, target: &Target, entry: Responses) -> Responses {
        // What an archive is does not depend on whether the settings call it one.
        let may_be_archive = matches!(target.upstream.kind, Kind::Packages | Kind::Generic);
        let is_index = may_be_archive && apt::is_listed_name(&target.path);
        let is_by_hash = apt::is_by_hash(&target.path);
        let is_held = entry.heads().iter().any(|head| head.status == StatusCode::OK);
        // A name by digest has one content; another name has that of the document that is sent now.
        if !is_index || is_by_hash && is_held {
            return entry;
        }
        match self.listed(target, is_by_hash).await {
            Some(found) if !entry.is_only(&found.content.digest) => {
                let found = Responses::new((vec![found], Vec::new()).into());
                self.open_to(target, found)
            }
            _ => entry,
        }
    }

    /// What a document above `target` lists, and is held. Of names by digest those of the snapshots before are known, too: who has read an
    /// older document gets what it promised.
    async fn listed(&self, target: &Target, is_by_hash: bool) -> Option<StoredResponse> {
        let url = target.key.uri();
        let (mut folder, _) = url.rsplit_once('/')?;
        for _ in 0..LEVELS {
            let name = url.strip_prefix(folder)?.strip_prefix('/')?;
            for document in ["InRelease", "Release"] {
                let documents = self.documents(target, &format!("GET {folder}/{document}")).await;
                let documents = documents
                    .into_iter()
                    .take(if is_by_hash { usize::MAX } else { 1 });
                for document in documents {
                    let Some(digest) = self.said_by(document, name).await else {
                        continue;
                    };
                    if let Some(found) = self.by_content(target, folder, digest).await {
                        return Some(renamed(found, is_by_hash));
                    }
                }
            }
            // Not above the host.
            folder = folder
                .rsplit_once('/')
                .filter(|(above, _)| !above.ends_with('/'))?
                .0;
        }
        None
    }

    async fn documents(&self, target: &Target, key: &str) -> Vec<StoredResponse> {
        let entry = match self.served() {
            Some(served) => Responses::new((served.documents(key), Vec::new()).into()),
            None => self.0.store.lookup(key).await,
        };
        let entry = self.open_to(target, entry);
        let whole = entry.responses().filter(|one| one.head.status == StatusCode::OK);
        whole.filter(|one| !one.head.invalidated).collect()
    }

    /// The digest of what `document` calls `name`.
    async fn said_by(&self, document: StoredResponse, name: &str) -> Option<Digest> {
        if document.content.length > MOST_BYTES {
            return None;
        }
        let content = self.0.store.content(document.content).await?;
        let name = name.to_owned();
        // It ends with an error only when the process does.
        let read = tokio::task::spawn_blocking(move || {
            let mut text = Vec::new();
            std::io::Read::read_to_end(&mut reader(content), &mut text).ok()?;
            apt::listed(&text, &name)
        });
        read.await.ok()?
    }

    /// A response with the content `digest`: of the snapshot, below the `folder` of the document, or else of the store.
    async fn by_content(&self, target: &Target, folder: &str, digest: Digest) -> Option<StoredResponse> {
        let prefix = format!("GET {folder}/");
        if let Some(served) = self.served() {
            return served.with_content(&prefix, &digest);
        }
        let sharable = self.sharable(target);
        self.0.store.find_content(digest, sharable).await
    }
}

/// `found` under another name.
fn renamed(mut found: StoredResponse, is_by_hash: bool) -> StoredResponse {
    found.head.known_digest = is_by_hash;
    found.head.selecting = Selecting::default();
    found.head.headers.remove(header::VARY);
    found
}
