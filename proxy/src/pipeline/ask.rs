//! What a client asks, owned, so that the download it may begin does not depend on the client.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use http::{HeaderMap, Method};

use crate::{ecosystem::Known, interim::Interim, policy, route::Target};

/// A retrieval.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) target: Arc<Target>,
    /// Who asks: what it was told before decides what fits it now (see `groups`).
    pub(super) client: IpAddr,
    /// What is known about the content in advance.
    pub(super) known: Option<Known>,
    /// Where the client hears of interim responses, until it has its answer.
    pub(super) interim: Option<Interim>,
}

impl Ask {
    /// As the policy sees it.
    pub(super) fn request(&self) -> policy::Request<'_> {
        policy::Request {
            method: &self.method,
            headers: &self.headers,
        }
    }

    /// What flights are told apart by: one whose content is taught brings that and nothing else.
    pub(super) fn flight_key(&self) -> Cow<'_, str> {
        let key = self.target.key.as_str();
        match self.known {
            Some(known) if self.target.digest.is_none() => Cow::Owned(format!("{key} {}", known.integrity)),
            _ => Cow::Borrowed(key),
        }
    }
}
