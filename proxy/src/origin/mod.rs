//! Requests to origins. The only folder that names reqwest, for the command line's calls to the admin API.
//!
//! Flow: [`Origin::send`] tries the URLs of a request's upstream in order ([`send`], [`retry`]), those that failed of late last
//! ([`health`]), follows redirects ([`follow`], [`redirect`], [`shown`]), and returns the response head and an [`OriginBody`]. A body that breaks off is
//! taken up again where it stopped when its validator allows ([`resume`]), from the next URL if need be; the reader of the body does
//! not notice. Over plain TCP a GET goes past hyper ([`plain`]; large bodies: [`bulk`]) unless its answer is difficult ([`rewound`]). Interim responses (1xx) go to the client that waits.
//!
//! Below that: each upstream has a [`profile`] (parent proxies, TLS, connections); each origin a bounded [`pool`] of connections, which
//! [`connect`] makes: name ([`dns`]), address ([`guard`]), TCP ([`dial`]), parent proxy ([`parent`]), TLS ([`tls`]).
//!
//! Registries get credentials and tokens from [`auth`], by upstream.
//!
//! Rules: no automatic redirects (each hop is judged), no decompression (the representation is stored as it came), no cookies.
//! Addresses are guarded at the moment of the connection: loopback, link-local and metadata addresses are contacted only where a
//! configured upstream names them, the last not even then.
//!
//! Deliberately absent: caching rules, and total time limits; only the lack of progress ends a transfer. No HTTP/2 without TLS: no
//! origin can be asked whether it speaks that.

mod admin_call;
mod auth;
mod bulk;
mod connect;
mod dial;
mod dns;
mod error;
mod flow;
mod follow;
mod guard;
mod health;
mod lease;
mod message;
mod open;
mod order;
mod outgoing;
mod parent;
mod paths;
mod plain;
mod pool;
mod probe;
mod profile;
mod rate_limit;
mod redirect;
mod resume;
mod retry;
mod rewound;
mod send;
mod setup;
mod shown;
mod tls;
mod tunnel;

pub use admin_call::{AdminAddress, AdminFailure, admin_call};
pub use connect::{Io, Stream};
pub use error::{BodyFault, ConnectError, ErrorKind, ExchangeError, OriginError};
pub use guard::Refused;
pub use message::{OriginRequest, OriginResponse};
pub use probe::{Probed, Prober};
pub use resume::OriginBody;
pub use send::Origin;
