//! Where a link of a document leads for somebody who came by a mirror path.

use url::{ParseError, Url};

use crate::{route::Router, settings::Upstream};

/// Turns addresses into paths of ours. Closed world: what no upstream names stays what it was.
#[derive(Debug, Clone, Copy)]
pub struct Links<'r> {
    /// Where requests may go.
    pub router: &'r Router,
    /// The upstream that the document is of.
    pub upstream: &'r Upstream,
    /// The URL of the document, against which its relative addresses are resolved.
    pub document: &'r Url,
}

impl Links<'_> {
    /// The mirror path of the file at `address`, see [`Router::mirror_path`]; `None` where no upstream has that host, or it is no
    /// address of a file.
    pub fn path(&self, address: &str) -> Option<String> {
        let url = self.document.join(address).ok()?;
        let has_user = !url.username().is_empty() || url.password().is_some();
        if has_user {
            return None;
        }
        self.router.mirror_path(&url, self.upstream)
    }

    /// The URL of an address that is relative to the document, which those who get a view of it know by another URL; `None` for one
    /// that says all by itself.
    pub fn made_absolute(&self, address: &str) -> Option<String> {
        let is_relative = Url::parse(address) == Err(ParseError::RelativeUrlWithoutBase);
        is_relative.then(|| self.document.join(address).ok().map(String::from))?
    }
}
