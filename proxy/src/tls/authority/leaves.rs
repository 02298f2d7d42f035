//! One leaf and one TLS configuration for each host.
//!
//! Bounded by construction: leaves are made for hosts of the constraints alone.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use kato_shared::clock::Clock;
use rcgen::{Issuer, KeyPair};
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;

use super::{
    AuthorityError, Record,
    mint::{self, LEAF_DAYS, Validity},
};

/// A leaf with less time left is replaced: connections last for hours, not for weeks.
const RENEW: SignedDuration = SignedDuration::from_hours(24 * 30);

/// The leaves of one authority.
pub(super) struct Leaves {
    issuer: Issuer<'static, KeyPair>,
    /// When the authority ends.
    until: Timestamp,
    /// What leads from a leaf to the predecessor, and until when that helps.
    vouched: Option<(CertificateDer<'static>, Timestamp)>,
    clock: Clock,
    made: Mutex<HashMap<String, Leaf>>,
}

struct Leaf {
    until: Timestamp,
    acceptor: TlsAcceptor,
}

impl Leaves {
    /// None yet, by `issuer`, whose `record` says what it is.
    pub(super) fn new(issuer: Issuer<'static, KeyPair>, record: &Record, clock: Clock) -> Self {
        let vouched = record.predecessor.as_ref().and_then(|predecessor| {
            let der = CertificateDer::from_pem_slice(predecessor.vouches.as_bytes()).ok()?;
            Some((der, predecessor.until))
        });
        Self {
            issuer,
            until: record.until,
            vouched,
            clock,
            made: Mutex::default(),
        }
    }

    /// What accepts TLS for `host`.
    pub(super) fn acceptor(&self, host: &str) -> Result<TlsAcceptor, AuthorityError> {
        let now = self.clock.now();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leaf) = made.get(host)
            && leaf.until.duration_since(now) > RENEW.min(self.until.duration_since(now) / 2)
        {
            return Ok(leaf.acceptor.clone());
        }
        let leaf = self.make(host, now)?;
        let acceptor = leaf.acceptor.clone();
        made.insert(host.to_owned(), leaf);
        Ok(acceptor)
    }

    fn make(&self, host: &str, now: Timestamp) -> Result<Leaf, AuthorityError> {
        if self.until <= now {
            return Err(AuthorityError::Over { until: self.until });
        }
        let mut validity = Validity::of_days(LEAF_DAYS, now);
        validity.until = validity.until.min(self.until);
        let key = mint::new_key()?;
        let leaf = mint::leaf(host, &key, validity, &self.issuer)?;
        let mut chain = vec![leaf.der().clone()];
        if let Some((vouched, until)) = &self.vouched
            && *until > now
        {
            chain.push(vouched.clone());
        }
        let tls = |source| AuthorityError::Tls {
            host: host.to_owned(),
            source,
        };
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(tls)?;
        let for_host = ForHost {
            host: host.to_owned(),
            key: Arc::new(key),
        };
        let acceptor = crate::tls::acceptor(Arc::new(for_host)).map_err(tls)?;
        let until = validity.until;
        Ok(Leaf { until, acceptor })
    }
}

/// A leaf for clients that mean its host.
#[derive(Debug)]
struct ForHost {
    host: String,
    key: Arc<CertifiedKey>,
}

impl ResolvesServerCert for ForHost {
    /// A client that names another host inside than it asked CONNECT for gets no certificate, and so an alert. One that names none, as
    /// with addresses, gets that of the host that it asked for.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match hello.server_name() {
            Some(other) if !other.eq_ignore_ascii_case(&self.host) => {
                tracing::warn!(
                    connect = self.host,
                    server_name = other,
                    "refused: a client names another host in its TLS handshake than in CONNECT"
                );
                None
            }
            Some(_) | None => Some(Arc::clone(&self.key)),
        }
    }
}
