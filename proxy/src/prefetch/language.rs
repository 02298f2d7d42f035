//! Packages of lock files, by way of the index of their language: the documents that a client reads on its way, and the files.
//!
//! Documents are asked for by mirror path as clients ask, so that the form that is stored is the one that clients get; their links lead to
//! paths of the cache then.

use http::{Method, Uri};
use kato_shared::Digest;
use url::Url;

use super::{AskError, Cache, Gathered, Item, Lock, LockKind, cache::Document, lock::Package, mirror_path};
use crate::{
    ecosystem::{
        Integrity,
        cargo::{self, Config},
        npm,
        pypi::{self, Format},
    },
    route::{Route, Router},
    settings::{Kind, Settings, Upstream},
    setup::simple_index,
    view::MOST_BYTES,
};

/// How pip asks for a page.
pub(crate) const PIP_ACCEPT: &str =
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01";
/// How npm asks for a packument when it installs: for the whole since version 11, for what an installation needs before that, as others do.
/// `npm ci` asks for none.
pub(crate) const NPM_ACCEPTS: [&str; 2] = [
    "application/json",
    "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*",
];

/// The indexes of languages that the settings name.
#[derive(Debug, Clone, Default)]
pub struct Indexes {
    all: Vec<Index>,
    router: Option<Router>,
}

/// A file of a lock file of npm.
pub(crate) struct Tarball {
    /// What npm asks the cache for.
    pub(crate) path: String,
    /// Under which URL the cache has it then.
    pub(crate) url: String,
}

#[derive(Debug, Clone)]
struct Index {
    name: String,
    kind: Kind,
    /// What is asked of the cache is below this.
    path: String,
    base: Url,
}

impl Indexes {
    /// Those of `settings`.
    pub fn of(settings: &Settings) -> Self {
        let index = |upstream: &Upstream| {
            let base = upstream.urls.first()?.url().clone();
            Some(Index {
                name: upstream.name.to_string(),
                kind: upstream.kind,
                path: match upstream.kind {
                    Kind::Pypi => format!("/{}/{}", upstream.name, simple_index(upstream)),
                    Kind::Packages
                    | Kind::Release
                    | Kind::Registry
                    | Kind::Npm
                    | Kind::Cargo
                    | Kind::Generic => {
                        format!("/{}/", upstream.name)
                    }
                },
                base,
            })
        };
        Self {
            all: settings.upstreams.iter().filter_map(index).collect(),
            router: Some(Router::new(settings)),
        }
    }

    /// The file that a lock file of npm has at `address`, for a client that is set up as `client-config npm` says
    /// (`replace-registry-host=always`): it asks the registry that it is told of for that path, whatever host the lock file names, and puts the path of
    /// that registry before it unless it is there. `None` where there is no such registry, or it has nothing at such a path.
    pub(crate) fn tarball(&self, address: &Url) -> Option<Tarball> {
        let index = self.one(Kind::Npm)?;
        let (registry, path) = (index.path.trim_end_matches('/'), address.path());
        let is_below = path
            .strip_prefix(registry)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let path = if is_below {
            path.to_owned()
        } else {
            format!("{registry}{path}")
        };
        let uri: Uri = path.parse().ok()?;
        match self.router.as_ref()?.route(&Method::GET, &uri).ok()? {
            Route::Target(target) => Some(Tarball {
                path,
                url: target.key.uri().to_owned(),
            }),
            Route::RegistryBase | Route::Intercept { .. } | Route::Tunnel { .. } => None,
        }
    }

    /// The base URL of the one of a kind, for Python's that of its pages.
    pub(crate) fn url(&self, kind: Kind) -> Option<Url> {
        let index = self.one(kind)?;
        if kind != Kind::Pypi {
            return Some(index.base.clone());
        }
        let below = index.path.strip_prefix(&format!("/{}/", index.name))?;
        index.base.join(below).ok()
    }

    /// The one of a kind; where there are several, the first in the settings.
    fn one(&self, kind: Kind) -> Option<&Index> {
        self.all.iter().find(|index| index.kind == kind)
    }
}

/// Adds what the packages of `lock` come to.
pub(super) async fn gather(cache: &Cache, lock: &Lock, indexes: &Indexes, gathered: &mut Gathered) {
    for note in &lock.notes {
        gathered.note(&lock.path, note);
    }
    for left_out in &lock.left_out {
        gathered.refuse(&lock.path, format!("left out: {left_out}"));
    }
    if lock.packages.is_empty() {
        return;
    }
    let (kind, word) = match lock.kind {
        LockKind::Cargo => (Kind::Cargo, "cargo"),
        LockKind::Npm => (Kind::Npm, "npm"),
        LockKind::Pip => (Kind::Pypi, "pypi"),
    };
    let Some(index) = indexes.one(kind) else {
        gathered.refuse(
            &lock.path,
            format!("no upstream has kind = \"{word}\", so there is no index to ask"),
        );
        return;
    };
    let config = match lock.kind {
        LockKind::Cargo => match config(cache, index, gathered).await {
            Ok(config) => Some(config),
            Err(error) => return gathered.fail(&index.name, &error, error.is_temporary()),
        },
        LockKind::Npm | LockKind::Pip => None,
    };
    for package in &lock.packages {
        let found = match (lock.kind, &config) {
            (LockKind::Cargo, Some(config)) => krate(cache, (index, config), package, gathered).await,
            (LockKind::Pip, _) => project(cache, index, package, gathered).await,
            (LockKind::Npm | LockKind::Cargo, _) => node(cache, (indexes, index), package, gathered).await,
        };
        if let Err(error) = found {
            let subject = format!("{}: {} {}", lock.path, package.name, package.version);
            gathered.fail(&subject, &error, error.is_temporary());
        }
    }
}

async fn document(
    cache: &Cache,
    path: String,
    accept: Option<&str>,
    gathered: &mut Gathered,
) -> Result<Document, AskError> {
    let item = Item {
        accept: accept.map(str::to_owned),
        ..Item::at(path)
    };
    let document = cache.document(&item, MOST_BYTES).await?;
    gathered.documents += 1;
    Ok(document)
}

/// What a document should have said and did not.
fn unread(expected: &str) -> AskError {
    AskError::Mismatch {
        expected: expected.to_owned(),
        got: "something else".to_owned(),
    }
}

async fn config(cache: &Cache, index: &Index, gathered: &mut Gathered) -> Result<Config, AskError> {
    let document = document(cache, format!("{}config.json", index.path), None, gathered).await?;
    Config::read(&document.bytes).map_err(|_cause| unread("the config.json of a sparse index"))
}

async fn krate(
    cache: &Cache,
    (index, config): (&Index, &Config),
    package: &Package,
    gathered: &mut Gathered,
) -> Result<(), AskError> {
    let file = cargo::index_path(&package.name);
    document(cache, format!("{}{file}", index.path), None, gathered).await?;
    let digest = package.digests.first().map_or("", String::as_str);
    // By mirror path its `dl` leads to the cache.
    let url = config
        .archive(&package.name, &package.version, digest)
        .ok_or_else(|| unread("the address of an archive in config.json"))?;
    gathered.add(Item {
        integrity: digest.parse().ok().map(Integrity::Sha256),
        ..Item::at(at_cache(cache, &url))
    });
    Ok(())
}

async fn project(
    cache: &Cache,
    index: &Index,
    package: &Package,
    gathered: &mut Gathered,
) -> Result<(), AskError> {
    let path = format!("{}{}/", index.path, package.name);
    let page = document(cache, path.clone(), Some(PIP_ACCEPT), gathered).await?;
    let is_json = page.bytes.trim_ascii_start().first() == Some(&b'{');
    let format = if is_json { Format::Json } else { Format::Html };
    let read = pypi::read(&page.bytes, format).map_err(|_cause| unread("a page of the simple API"))?;
    let url = Url::parse(&format!("{}{path}", cache.base())).map_err(|_no_url| AskError::Path(path))?;
    let base = read.resolved_against(&url);
    let wanted: Vec<Digest> = package
        .digests
        .iter()
        .filter_map(|digest| digest.parse().ok())
        .collect();
    let mut is_found = false;
    for file in &read.files {
        let Some(digest) = file.sha256.filter(|digest| wanted.contains(digest)) else {
            continue;
        };
        let Ok(address) = base.join(&file.address) else {
            continue;
        };
        is_found = true;
        let path = at_cache(cache, &address);
        if let Some(metadata) = file.metadata {
            gathered.add(Item {
                integrity: Some(Integrity::Sha256(metadata)),
                ..Item::at(format!("{path}.metadata"))
            });
        }
        gathered.add(Item {
            integrity: Some(Integrity::Sha256(digest)),
            size: file.size,
            ..Item::at(path)
        });
    }
    if is_found {
        Ok(())
    } else {
        Err(unread("a file on the page with a digest of the lock file"))
    }
}

async fn node(
    cache: &Cache,
    (indexes, index): (&Indexes, &Index),
    package: &Package,
    gathered: &mut Gathered,
) -> Result<(), AskError> {
    let name = package.name.replace('/', "%2f");
    for accept in NPM_ACCEPTS {
        document(cache, format!("{}{name}", index.path), Some(accept), gathered).await?;
    }
    let address = package.address.as_deref().unwrap_or_default();
    let tarball = Url::parse(address)
        .ok()
        .and_then(|url| indexes.tarball(&url))
        .ok_or_else(|| AskError::Path(address.to_owned()))?;
    gathered.add(Item {
        integrity: package.digests.first().and_then(|text| npm::integrity(text)),
        ..Item::at(tarball.path)
    });
    Ok(())
}

/// The path of `url` at the cache, which it leads to already where a document was shown by mirror path.
fn at_cache(cache: &Cache, url: &Url) -> String {
    let own = url.as_str().strip_prefix(&cache.base());
    own.map_or_else(
        || mirror_path(url),
        |path| path.split('#').next().unwrap_or_default().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indexes(base: &str) -> Indexes {
        let mut upstream: Upstream = format!("npm={base}").parse().unwrap();
        upstream.kind = Kind::Npm;
        upstream.file_urls = vec!["https://files.example/".to_owned().try_into().unwrap()];
        Indexes::of(&Settings {
            upstreams: vec![upstream],
            ..Settings::default()
        })
    }

    /// What npm 11 asks for by the settings that we print, and under which URL that is held.
    #[test]
    fn a_tarball_is_where_npm_asks_for_it_and_not_where_the_lock_file_was_made() {
        let (root, below) = ("https://npm.example/", "https://npm.example/npm/");
        for (base, address, path, url) in [
            (
                root,
                "https://npm.example/a/-/a-1.tgz",
                "/npm/a/-/a-1.tgz",
                "https://npm.example/a/-/a-1.tgz",
            ),
            (
                root,
                "https://other.example/a/-/a-1.tgz",
                "/npm/a/-/a-1.tgz",
                "https://npm.example/a/-/a-1.tgz",
            ),
            (
                root,
                "http://npm.example:8080/@s/a/-/a-1.tgz?x=1#y",
                "/npm/@s/a/-/a-1.tgz",
                "https://npm.example/@s/a/-/a-1.tgz",
            ),
            // Made through a cache.
            (
                root,
                "http://cache.example/npm/a/-/a-1.tgz",
                "/npm/a/-/a-1.tgz",
                "https://npm.example/a/-/a-1.tgz",
            ),
            (
                root,
                "http://cache.example/https/files.example/a/-/a-1.tgz",
                "/npm/https/files.example/a/-/a-1.tgz",
                "https://files.example/a/-/a-1.tgz",
            ),
            // A registry below a path.
            (
                below,
                "https://npm.example/npm/a/-/a-1.tgz",
                "/npm/a/-/a-1.tgz",
                "https://npm.example/npm/a/-/a-1.tgz",
            ),
            (
                below,
                "https://other.example/a/-/a-1.tgz",
                "/npm/a/-/a-1.tgz",
                "https://npm.example/npm/a/-/a-1.tgz",
            ),
            (
                root,
                "https://npm.example/npmx/-/npmx-1.tgz",
                "/npm/npmx/-/npmx-1.tgz",
                "https://npm.example/npmx/-/npmx-1.tgz",
            ),
        ] {
            let found = indexes(base).tarball(&Url::parse(address).unwrap()).unwrap();
            assert_eq!(
                (found.path.as_str(), found.url.as_str()),
                (path, url),
                "{base} {address}"
            );
        }
        assert!(Indexes::default().tarball(&Url::parse(root).unwrap()).is_none());
    }
}
