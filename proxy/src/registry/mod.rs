//! The door for container clients: `/v2/`, the pull side of the OCI distribution specification, over any number of registries.
//!
//! ```text
//! GET /v2/library/app/manifests/v1?ns=hub.example     containerd, and daemons that read hosts.toml
//! GET /v2/hub.example/app/manifests/v1                 podman, skopeo, and whoever writes the registry into the path
//! GET /v2/app/manifests/v1                             the registry that the settings call the default
//! ```
//!
//! All three lead to the same target, and so to the same stored response; `route` finds it. From there on a request is like any
//! other: what is special about registries is said once, in these places:
//! * [`Place`]: which of a registry's things a target is, and by which door it was asked for;
//! * `accept`: manifests are asked for in every form and kept by digest; a client's `Accept` filters, and is no part of any key;
//! * `form`: what has to be true of an answer under a name before anybody gets it;
//! * `present`: the fields that clients look for, links that lead back to us, no challenge of the upstream's;
//! * [`Guests`]: who may use the door, and for what, where the settings name a file of users; tokens of our own;
//! * `said`: errors of upstreams in the form of the specification;
//! * `tags`: lists of the tags that a snapshot holds;
//! * [`mod@scope`]: what a token is asked for;
//! * [`speak`]: problems in the form of the specification.
//!
//! The rest is elsewhere, since it is not about the door: credentials and tokens for upstreams in `origin::auth`, how long a tag is
//! believed in `settings::RegistryRules`, how it is asked about in `pipeline::tags`.
//!
//! Invariants:
//! * The name of a registry in a request is looked up among the configured ones. It is never an address to dial.
//! * A client's credentials are for this door; they never reach an upstream, and an upstream's never reach a client.
//! * Content is served under a digest that was verified, and to those alone who may use the upstream that it came from, or one that
//!   more may use.
//!
//! Deliberately absent: pushing, deleting, and the discovery of upstreams.

mod accept;
mod form;
mod grant;
mod guests;
mod link;
mod place;
mod present;
mod problem;
mod said;
mod scope;
mod tags;

pub(crate) use accept::{Accepts, is_manifest, prepare};
pub use form::Misfit;
pub(crate) use form::{LARGEST_MANIFEST, fits, fits_by_head, looked_at};
pub(crate) use grant::{Grant, MOST_BYTES as MOST_GRANT_BYTES, NoGrant};
pub(crate) use guests::{Guest, Guests, Leave, NotGiven, Seen, basic};
pub use place::{Class, Door, Place};
pub(crate) use present::{DOCKER_CONTENT_DIGEST, present, strip_front_end, warn};
pub use problem::Refused;
pub(crate) use problem::{crowded, leave, refused, speak, unauthorized};
pub(crate) use said::{MOST_SAID, errors};
pub(crate) use scope::{CATALOG, scope};
pub(crate) use tags::list as list_of_tags;

/// Whether a request for `uri` comes by this door: origin-form, below `/v2/`.
pub(crate) fn is_door(uri: &http::Uri) -> bool {
    uri.scheme().is_none() && (uri.path() == "/v2" || uri.path().starts_with("/v2/"))
}
