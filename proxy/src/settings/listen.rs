//! Sections `[listen]` and `[tls]`: the addresses, the certificate of the one with TLS, and where the local authority is.

use std::{net::SocketAddr, path::PathBuf};

use kato_shared::redact;
use serde::{Deserialize, Serialize};
use url::Url;

use super::InvalidSettings;
use crate::{tls::PairFiles, view::is_plain_host};

/// Section `[listen]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// The address that clients use.
    pub data: SocketAddr,
    /// The address that clients use with TLS; `None` for no TLS. A port of its own: what comes first on a connection to it is a
    /// handshake, always, and what comes in clear is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<SocketAddr>,
    /// How clients know this server, where that is not what they write into `Host`: before a reverse proxy that changes it. It stands
    /// in answers that must name us, such as a sparse index's `config.json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_url: Option<Url>,
    /// The address of health, metrics and the API; keep it on loopback.
    pub admin: SocketAddr,
    /// A Unix socket for the same, which its owner and its group may use; `None` for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_socket: Option<PathBuf>,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            data: SocketAddr::from(([0, 0, 0, 0], 3180)),
            tls: None,
            public_url: None,
            admin: SocketAddr::from(([127, 0, 0, 1], 3181)),
            admin_socket: None,
        }
    }
}

impl Listen {
    /// Checks that the listeners do not stand in each other's way.
    pub(super) fn validate(&self) -> Result<(), InvalidSettings> {
        let all = [
            ("data", Some(self.data)),
            ("tls", self.tls),
            ("admin", Some(self.admin)),
        ];
        let all: Vec<_> = all
            .into_iter()
            .filter_map(|(key, address)| Some((key, address?)))
            .collect();
        for (nth, (key, address)) in all.iter().enumerate() {
            let other = all[..nth].iter().find(|(_, other)| excludes(*other, *address));
            if let Some((other, _)) = other {
                return Err(InvalidSettings::SharedAddress {
                    keys: (other, key),
                    address: *address,
                });
            }
        }
        Ok(())
    }
}

/// Whether only one of two listeners could be bound. The kernel chooses ports for 0, each time another one.
fn excludes(one: SocketAddr, other: SocketAddr) -> bool {
    // `[::]` takes the addresses of IPv4 with it.
    let is_everywhere = |address: SocketAddr| address.ip().is_unspecified();
    one.port() == other.port()
        && one.port() != 0
        && (one.ip() == other.ip() || is_everywhere(one) || is_everywhere(other))
}

/// Section `[tls]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// The PEM file of the certificate, followed by those that lead to a root that clients know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// The PEM file of its private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// The folder of the local authority; `None` for `ca` in the store's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_dir: Option<PathBuf>,
}

impl Tls {
    /// Both files, where both are named.
    pub fn pair(&self) -> Option<PairFiles> {
        let (certificate, key) = self.certificate.clone().zip(self.key.clone())?;
        Some(PairFiles { certificate, key })
    }

    pub(super) fn validate(&self, listen: &Listen) -> Result<(), InvalidSettings> {
        if let Some(url) = listen.public_url.as_ref().filter(|url| !is_bare(url)) {
            return Err(InvalidSettings::PublicUrl(redact::url(url)));
        }
        match (&self.certificate, &self.key) {
            (Some(_), None) => Err(InvalidSettings::HalfPair { missing: "key" }),
            (None, Some(_)) => Err(InvalidSettings::HalfPair {
                missing: "certificate",
            }),
            (None, None) if listen.tls.is_some() => Err(InvalidSettings::NoCertificate),
            (None, None) | (Some(_), Some(_)) => Ok(()),
        }
    }
}

/// Whether nothing follows the host and port: `/v2/` and proxying cannot live below a path.
fn is_bare(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
        && url.host_str().is_some_and(is_plain_host)
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
}
