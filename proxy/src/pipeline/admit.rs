//! The layers before any target is looked at: the form of the request, its route, who may go there, loops. What is refused here has
//! reached neither the store nor an upstream.

use std::net::IpAddr;

use http::{HeaderMap, Method, Request, Uri, Version};
use kato_shared::api::Problem;

use super::{Answer, Inside, Pipeline, answer::shown_target, authority};
use crate::{
    metrics::Outcome,
    policy::headers as fields,
    registry::{self, Seen},
    respond,
    route::Route,
};

impl Pipeline {
    /// Brings a request into the form in which every door's requests are routed, or refuses it.
    pub(super) fn settle<B>(&self, request: &mut Request<B>) -> Result<(), Box<Answer>> {
        let refuse = |problem: &Problem, detail: &str| {
            Box::new(Answer::generated(
                respond::problem(problem),
                Outcome::Refused,
                detail,
            ))
        };
        match request.extensions().get::<Inside>().cloned() {
            Some(inside) => inside
                .settle(request)
                .map_err(|error| refuse(&respond::out_of_place(&error), error.kind())),
            None => authority::normalise(request, &self.0.router)
                .map_err(|_ambiguous| refuse(&respond::bad_host(), "bad-host")),
        }
    }

    /// The layers before any target is looked at: where the request goes, or the answer that refuses it. `seen` is who has sent it,
    /// where somebody has to be known.
    pub(super) fn admit(
        &self,
        (method, uri, version): (&Method, &Uri, Version),
        (headers, client): (&HeaderMap, IpAddr),
        seen: Option<Seen>,
    ) -> Result<Route, Box<Answer>> {
        let refuse = |problem: &Problem, detail: &str| {
            let refusal = respond::problem(problem);
            Box::new(Answer::generated(refusal, Outcome::Refused, detail))
        };
        let refuse_by_kind = |problem: Problem| {
            let kind = problem.kind.rsplit(':').next().unwrap_or_default();
            refuse(&problem, kind)
        };
        if !fields::has_valid_host(version, headers) {
            return Err(refuse(&respond::bad_host(), "bad-host"));
        }
        let guest = match seen {
            Some(Seen::Guest(guest)) => Some(guest),
            Some(Seen::Stranger | Seen::Claim(_)) => {
                return Err(refuse_by_kind(registry::unauthorized()));
            }
            Some(Seen::Crowded) => return Err(refuse_by_kind(registry::crowded())),
            None => None,
        };
        let route = self.0.router.route(method, uri);
        let route = route.map_err(|error| refuse_by_kind(respond::unrouted(&error)))?;
        self.may_have(&route, (uri, client), guest.as_ref())
            .map_err(refuse_by_kind)?;
        if fields::passed_us_before(headers, &self.0.pseudonym) {
            return Err(refuse(&respond::loops(&shown_target(uri)), "loop"));
        }
        Ok(route)
    }
}
