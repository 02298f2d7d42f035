//! Where a link of a document leads for somebody who came by a mirror path.

use url::Url;

use crate::route::Router;

/// Turns addresses into paths of ours. Closed world: what no upstream names stays what it was.
#[derive(Debug, Clone, Copy)]
pub struct Links<'r> {
    /// Where requests may go.
    pub router: &'r Router,
    /// The URL of the document, against which its relative addresses are resolved.
    pub document: &'r Url,
}

impl Links<'_> {
    /// `/<scheme>/<host>/…` for the file at `address`, query and fragment as they were; `None` where no upstream has that host, or
    /// it is no address of a file.
    ///
    /// A path without our own host, so that the same answer is right under every name by which clients know this server.
    pub fn path(&self, address: &str) -> Option<String> {
        let url = self.document.join(address).ok()?;
        let has_user = !url.username().is_empty() || url.password().is_some();
        if has_user || !self.router.serves(&url) {
            return None;
        }
        let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
        Some(format!(
            "/{}/{authority}{}",
            url.scheme(),
            &url[url::Position::BeforePath..]
        ))
    }
}
