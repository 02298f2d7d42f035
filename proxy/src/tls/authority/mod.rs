//! The local authority: opens TLS that clients mean for an upstream, so that what goes through it can be stored.
//!
//! ```text
//! record   the folder: what the authority is (public), its key (mode 0600), its predecessor
//! mint     certificates as bytes: the authority's own, a predecessor's word for its successor, leaves
//! leaves   one leaf and one TLS configuration for each host, renewed in time
//! ```
//!
//! A client that trusts it trusts it for little: its certificate carries critical name constraints (RFC 5280 §4.2.1.10), so that it can
//! speak for the hosts of upstreams with `intercept = true` and for no other, whoever gets hold of its key. The constraints are part of
//! the certificate: when an upstream is added, the authority is rotated, and the predecessor vouches for its successor as far as its own
//! constraints go. So clients that know either of them are served during the change.
//!
//! Invariants:
//! * The private key never leaves its file and this process; a key that others could read is refused.
//! * A leaf is made for hosts of the constraints alone, and handed out to clients that asked CONNECT for that host.
//!
//! Deliberately absent: authorities of the operator's own (a site that has one gives the proxy a certificate and uses mirror paths),
//! revocation (leaves live three months, and nobody but this process has their keys), keys in hardware.

mod error;
mod hosts;
mod leaves;
mod mint;
mod record;

use std::{fmt, path::Path, sync::Arc};

use kato_shared::clock::Clock;
use tokio_rustls::TlsAcceptor;

pub use error::AuthorityError;
pub use hosts::Hosts;
pub use record::{Predecessor, Record};

use leaves::Leaves;

/// An authority that can sign; clones share its leaves.
#[derive(Clone)]
pub struct Authority(Arc<State>);

struct State {
    record: Record,
    leaves: Leaves,
}

impl fmt::Debug for Authority {
    /// Without anything of the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Authority").field(&self.0.record.name).finish()
    }
}

impl Authority {
    /// The authority in `folder`, ready to sign for `hosts`; it is made where there is none. `None` without hosts. Blocks.
    ///
    /// # Errors
    /// [`AuthorityError`]: also when the one that is there may not sign for all of `hosts`, or is over.
    pub fn ready(folder: &Path, hosts: &Hosts, clock: &Clock) -> Result<Option<Self>, AuthorityError> {
        if hosts.is_empty() {
            return Ok(None);
        }
        let now = clock.now();
        let record = if let Some(record) = Record::read(folder)? {
            record.require(folder, hosts, now)?;
            record
        } else {
            let record = Record::create(folder, hosts, now)?;
            tracing::warn!(
                folder = %folder.display(),
                fingerprint = record.fingerprint(),
                %hosts,
                "a local authority was made: clients have to trust it (`kato-proxy ca show`, or /-/ca.crt of this proxy)"
            );
            record
        };
        record.warn_before_the_end(now);
        let issuer = record.issuer(folder)?;
        let leaves = Leaves::new(issuer, &record, clock.clone());
        Ok(Some(Self(Arc::new(State { record, leaves }))))
    }

    /// What is known about it, and may be.
    pub fn record(&self) -> &Record {
        &self.0.record
    }

    /// What accepts TLS from a client that asked for `host` by CONNECT, with a leaf for it and for nothing else.
    ///
    /// # Errors
    /// [`AuthorityError::Uncovered`] for other hosts than those of the constraints; [`AuthorityError::Mint`].
    pub fn acceptor(&self, host: &str) -> Result<TlsAcceptor, AuthorityError> {
        let host = hosts::normalised(host);
        if !self.0.record.hosts.contains(&host) {
            return Err(AuthorityError::Uncovered {
                missing: host,
                covered: self.0.record.hosts.to_string(),
            });
        }
        self.0.leaves.acceptor(&host)
    }
}

#[cfg(test)]
mod tests;
