//! Documents as somebody sees them who came by a mirror path: the same document, with the addresses of files leading to us.
//!
//! ```text
//! View::of     which documents are shown otherwise than they are stored
//! wishes       what is asked of the store and of origins: the whole document, worded the same by every client
//! rewrite      bytes in, bytes out; only addresses change
//! ```
//! The store keeps what the origin sent; a view is made of it for each answer, so that nothing of a client (its `Host`, its
//! `Accept`) enters what others get, and a change of the settings shows at once. A view has an entity tag of its own, the digest of
//! its bytes: conditions of clients are judged by it.
//!
//! | Kind | Document | What changes |
//! |---|---|---|
//! | `pypi` | pages of the simple API | links, into paths of ours without our host |
//! | `npm` | packuments | `dist.tarball`, into URLs of ours (npm takes no others) |
//! | `cargo` | `config.json` | `dl`, into a URL of ours; `api` goes: nothing can be published through a cache; `auth-required` goes where the operator's credentials are shown |
//!
//! Without a network documents name only what is held, see [`promised`].
//!
//! Closed world: an address at a host that no upstream names stays as it is in a list of many; `dl`, on which all depends, is an
//! error that names the host.
//!
//! Deliberately absent: documents that come by the forward proxy. Those clients follow addresses as they are, through us.

mod accept;
mod base;
mod held;
mod links;
mod splice;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{
    ecosystem::{
        cargo::{self, Config},
        html, npm,
        pypi::{self, Format},
    },
    route::Target,
    settings::Kind,
};

pub use base::{OverTls, ServerBase, is_plain_host};
pub use held::{Promised, promised, without};
pub use links::Links;
use splice::splice;

/// The most bytes of a document that is rewritten, since it is held in memory. The largest pages and packuments have some ten MiB.
pub const MOST_BYTES: usize = 32 << 20;

/// The conditions and the choice of bytes that a client may ask for; they are about the view, and nothing that an origin knows.
const ABOUT_THE_VIEW: [HeaderName; 7] = [
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
    header::RANGE,
    header::ACCEPT_ENCODING,
];

/// The fields of a stored response that are about its bytes.
const ABOUT_THE_BYTES: [HeaderName; 10] = [
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::ACCEPT_RANGES,
    header::ETAG,
    header::LAST_MODIFIED,
    header::VARY,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// How a document is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// A page of the simple API.
    Simple,
    /// A packument, or the manifest of one version.
    Packument,
    /// The `config.json` of a sparse index.
    CrateConfig,
    /// The file of a crate in a sparse index, without versions that are not held.
    CrateFile,
}

/// Why a document cannot be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// It is larger than is held in memory.
    #[error("expected at most {} bytes, and there are more", MOST_BYTES)]
    TooLarge,
    /// It is not what documents at such paths are.
    #[error("expected {expected}, got what is none: {cause}")]
    Unreadable {
        /// What should be there.
        expected: &'static str,
        /// What the parser says.
        cause: String,
    },
    /// It has a content coding that nobody asked for.
    #[error("expected no content coding, got `{0}`")]
    Coded(String),
    /// Where archives are is not known here.
    #[error("archives are at `{0}`, a host of no configured upstream")]
    UnknownHost(String),
    /// The request does not say under which name it knows this server.
    #[error("expected a Host field, from which the addresses of files follow")]
    NoHost,
}

impl View {
    /// The view of `target` for a client that came by a mirror path; `None` where it gets what is stored.
    pub fn of(target: &Target) -> Option<Self> {
        let (path, upstream) = (target.path.as_str(), &target.upstream);
        let name = path.rsplit('/').next().unwrap_or_default();
        match upstream.kind {
            Kind::Pypi | Kind::Npm | Kind::Cargo if !upstream.rewrite_links => None,
            Kind::Pypi => pypi::is_page(path).then_some(Self::Simple),
            Kind::Npm => npm::is_packument(path).then_some(Self::Packument),
            Kind::Cargo => (name == "config.json").then_some(Self::CrateConfig),
            Kind::Packages | Kind::Release | Kind::Registry | Kind::Generic => None,
        }
    }

    /// The same where documents name only what is held: then there are views of more of them.
    pub fn filtered_of(target: &Target) -> Option<Self> {
        let is_file = target.upstream.kind == Kind::Cargo
            && target.upstream.rewrite_links
            && cargo::is_index_file(&target.path);
        Self::of(target).or_else(|| is_file.then_some(Self::CrateFile))
    }

    /// The fields with which the document is asked for, whoever asks.
    #[must_use]
    pub fn wishes(self, asked: &HeaderMap) -> HeaderMap {
        let mut wishes = asked.clone();
        for name in ABOUT_THE_VIEW {
            wishes.remove(name);
        }
        match self {
            Self::Simple => wishes.insert(header::ACCEPT, accept::simple(asked)),
            Self::Packument => wishes.insert(header::ACCEPT, accept::packument(asked)),
            Self::CrateConfig | Self::CrateFile => wishes.remove(header::ACCEPT),
        };
        // Without the field a server may choose any coding (RFC 9110 §12.5.3).
        wishes.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        wishes
    }

    /// The fields of the view `bytes` of a document that was stored with `headers`.
    pub fn head(self, mut headers: HeaderMap, entity_tag: HeaderValue) -> HeaderMap {
        for name in ABOUT_THE_BYTES {
            headers.remove(name);
        }
        headers.insert(header::ETAG, entity_tag);
        if matches!(self, Self::Simple | Self::Packument) {
            headers.insert(header::VARY, HeaderValue::from_static("accept"));
        }
        headers
    }

    /// The document as it is shown; `None` where it is shown as it is.
    ///
    /// # Errors
    /// [`ViewError`] where what is stored is not such a document.
    pub fn rewrite(
        self,
        (headers, document): (&HeaderMap, &[u8]),
        links: Links<'_>,
        base: Option<&ServerBase>,
    ) -> Result<Option<Vec<u8>>, ViewError> {
        let coding = headers.get(header::CONTENT_ENCODING);
        if let Some(coding) = coding.filter(|coding| *coding != "identity") {
            let coding = String::from_utf8_lossy(coding.as_bytes()).into_owned();
            return Err(ViewError::Coded(coding));
        }
        // Names of media types are the same in any case (RFC 9110 §8.3.1).
        let media_type = media_type(headers).to_ascii_lowercase();
        match (self, media_type.as_str()) {
            (Self::Simple, "text/html" | "application/vnd.pypi.simple.v1+html") => {
                simple_page(document, Format::Html, links).map(Some)
            }
            (Self::Simple, "application/vnd.pypi.simple.v1+json") => {
                simple_page(document, Format::Json, links).map(Some)
            }
            (Self::Packument, media_type) if media_type.ends_with("json") => {
                packument(document, links, base.ok_or(ViewError::NoHost)?).map(Some)
            }
            (Self::Simple | Self::Packument | Self::CrateFile, _) => Ok(None),
            (Self::CrateConfig, _) => crate_config(document, links, base.ok_or(ViewError::NoHost)?).map(Some),
        }
    }
}

/// The media type in `Content-Type`, without parameters.
fn media_type(headers: &HeaderMap) -> &str {
    let field = headers.get(header::CONTENT_TYPE);
    let text = field.and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim()
}

fn simple_page(page: &[u8], format: Format, links: Links<'_>) -> Result<Vec<u8>, ViewError> {
    let read = pypi::read(page, format).map_err(|cause| ViewError::Unreadable {
        expected: "a page of the simple API",
        cause,
    })?;
    let base = read.resolved_against(links.document);
    let links = Links {
        document: &base,
        ..links
    };
    // It would lead paths of ours, and what stays as it is, to somewhere else.
    let base_tag = read.base.map(|base| (base.place, String::new()));
    let addresses = read.files.into_iter().filter_map(|file| {
        let address = links
            .path(&file.address)
            .or_else(|| links.made_absolute(&file.address))?;
        let text = match format {
            Format::Html => html::escape(&address),
            Format::Json => json_text(&address),
        };
        Some((file.place, text))
    });
    let mut replacements: Vec<_> = base_tag.into_iter().chain(addresses).collect();
    replacements.sort_by_key(|(place, _)| place.start);
    Ok(splice(page, replacements))
}

fn packument(document: &[u8], links: Links<'_>, base: &ServerBase) -> Result<Vec<u8>, ViewError> {
    let mut tarballs = npm::tarballs(document).map_err(|cause| ViewError::Unreadable {
        expected: "a packument",
        cause,
    })?;
    tarballs.sort_by_key(|tarball| tarball.place.start);
    let replacements = tarballs.into_iter().filter_map(|tarball| {
        let path = links.path(&tarball.address)?;
        Some((tarball.place, json_text(&base.at(&path))))
    });
    Ok(splice(document, replacements))
}

fn crate_config(document: &[u8], links: Links<'_>, base: &ServerBase) -> Result<Vec<u8>, ViewError> {
    let unreadable = |cause| ViewError::Unreadable {
        expected: "the config.json of a sparse index",
        cause,
    };
    let config = Config::read(document).map_err(unreadable)?;
    let (fixed, template) = config.split();
    let path = links
        .path(fixed)
        .ok_or_else(|| ViewError::UnknownHost(fixed.to_owned()))?;
    // A URL has at least a slash for its path, a template may have had none.
    let path = if fixed.ends_with('/') {
        &path
    } else {
        path.trim_end_matches('/')
    };
    let shown = Config {
        dl: format!("{}{template}", base.at(path)),
        // We are who is asked for it; clients need no account for what they get from us.
        auth_required: config.auth_required && !links.upstream.has_own_credentials(),
    };
    serde_json::to_vec(&shown).map_err(|error| unreadable(error.to_string()))
}

fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests;
