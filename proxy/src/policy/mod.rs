//! HTTP caching as RFC 9111 states it, for a **shared** cache: what may be stored, how long it is fresh, which stored
//! response answers which request, when the origin must be asked, and what its answer changes.
//!
//! Everything here is a pure function of header fields and times. There is no I/O, no clock, no store and no task; the
//! current time is an argument named `now`. Whoever owns sockets and files calls in this order:
//!
//! 1. a request arrives: [`select`] one of the stored responses under the cache key, then [`decide`];
//! 2. [`Decision::MustValidate`] or a miss: build the request to the origin with [`validation::origin_request_headers`];
//! 3. the origin answers: [`redirects::bind`] where redirects were followed, then [`storability`], then [`Stored::new`] (which leaves out what must not be stored);
//!    a 304 goes to [`validation::freshen`]; a failure or a 5xx goes to [`on_failure`];
//! 4. an unsafe request succeeded: [`invalidation::invalidated_targets`] names what may no longer be reused;
//! 5. on the way out: [`headers::strip_hop_by_hop`], [`headers::append_via`], [`headers::set_age`]; a client's own
//!    preconditions and ranges are judged by [`crate::conditional`] and [`crate::range`] against the stored response.
//!
//! # Where we go beyond the letter, and say so
//!
//! An operator may know more than an origin says ([`Overrides`]): that a path never changes, that a response is worth keeping
//! for a minimum time. Each use of such knowledge comes back as a [`Deviation`], so that it can be logged and counted;
//! no deviation happens silently. A response whose digest was known in advance is beyond doubt and is never validated.
//!
//! # Deliberately absent
//!
//! * Storing responses to POST (RFC 9111 permits it; nothing here needs it).
//! * Storing the range that one client asked for: a fill is always of the whole representation, so that it can be verified and
//!   shared. What is combined (§3.4) is the beginning of a whole that broke off with its rest, [`validation::combine`].
//! * Storing trailer fields: they end here, as RFC 9110 §6.5.1 allows where nobody asked for them by `TE: trailers`, which is
//!   a field of one hop.
//! * Rules for private caches.
//! * `Warning` (removed by RFC 9111) and `Pragma` in responses (never defined).
//!
//! # Invariants
//!
//! * What is not understood is treated in the direction of asking the origin: invalid freshness is stale, an
//!   unreadable field list means the whole response, a broken date is a time in the past.
//! * Repeated field lines are one list; no decision looks at the first line only, unless the RFC says so (`Age`).
//! * No arithmetic overflows: seconds saturate at 2^31 ([RFC 9111 §1.2.2]).
//!
//! [RFC 9111 §1.2.2]: https://www.rfc-editor.org/rfc/rfc9111#section-1.2.2

mod acceptable;
pub mod age;
pub mod cache_control;
pub mod decision;
mod disconnected;
mod failure;
pub mod freshness;
pub mod headers;
mod http_date;
pub mod invalidation;
mod overrides;
pub mod redirects;
mod replacing;
pub mod storable;
mod stored;
pub mod targeted;
pub mod validation;
pub mod vary;

pub use decision::{
    Aged, BypassReason, Decision, MissReason, StalePermission, ValidationReason, Verdict, decide,
};
pub use disconnected::{Absence, Disconnected, disconnected};
pub use failure::{Failure, FailureAnswer, StaleRefusal, on_failure};
pub use freshness::is_fresh;
pub use overrides::{Deviation, Overrides, SetCookie};
pub use replacing::{Content, Document, Replacing, replacing};
pub use storable::{NoStoreReason, Storability, is_for_all_who_wait, storability};
pub use stored::{Request, Stored, Times, withholds};
pub use vary::{Lookup, Selecting, select};

#[cfg(test)]
pub(crate) mod test_support;
#[cfg(test)]
mod tests;
