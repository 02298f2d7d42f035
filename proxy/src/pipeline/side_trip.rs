//! A range far ahead of a download's frontier, fetched beside the download instead of waiting for it.
//!
//! The download goes on from its beginning and is stored; the range passes by for one client. It costs a second request and
//! the bytes of the range, so it is taken only for small ranges that are far away, and a few times per download.

use std::sync::atomic::Ordering;

use http::{StatusCode, Version, header};

use super::{Answer, Ask, Pipeline, forward::pass, shared::Filling};
use crate::{
    cache_status::{CacheStatus, Forward},
    conditional::{self, Length},
    metrics::Outcome,
    origin::OriginRequest,
    policy::{
        Request, headers as fields,
        validation::{entity_tag, is_weak, origin_request_headers},
    },
};

/// A range that begins this many bytes ahead of the frontier is far: a WAN of 100 Mbit/s needs more than a second for it.
const FAR: u64 = 16 << 20;
/// A range up to this many bytes is small: reading it twice costs less than the wait.
const SMALL: u64 = 1 << 20;
/// Side trips per download.
const LIMIT: u32 = 4;

impl Pipeline {
    /// The answer to a small, far range of `filling`, if that is what `ask` wants and the origin gives exactly that.
    pub(super) async fn side_trip(&self, ask: &Ask, filling: &Filling) -> Option<Answer> {
        let length = filling.fill.announced?;
        let request = Request {
            method: &ask.method,
            headers: &ask.headers,
        };
        let conditional::Outcome::Partial(parts) =
            conditional::evaluate(&request, &filling.head, Length::Known(length))
        else {
            return None;
        };
        let [range] = parts.as_slice() else { return None };
        // Without a strong validator nobody can tell whether both are of one representation.
        let tag = entity_tag(&filling.head.headers)
            .filter(|tag| !is_weak(tag.as_bytes()))?
            .clone();
        let is_far = range.first() > filling.fill.progress().frontier + FAR;
        if !is_far || range.size() > SMALL || filling.side_trips.fetch_add(1, Ordering::Relaxed) >= LIMIT {
            return None;
        }
        let mut headers = origin_request_headers(&ask.headers, &[]);
        headers.insert(header::RANGE, format!("bytes={range}").parse().ok()?);
        headers.insert(header::IF_RANGE, tag.clone());
        self.complete_request(&mut headers, Version::HTTP_11);
        self.count_origin_request(ask);
        let request = OriginRequest {
            upstream: ask.target.upstream.name.to_string(),
            candidates: ask.target.candidates.clone(),
            method: http::Method::GET,
            headers,
            body: bytes::Bytes::new(),
            interim: None,
            // The download under way has the range in the end.
            has_stand_in: true,
            has_known_digest: false,
        };
        // Whatever goes wrong here, the download under way has the range in the end.
        let response = self.0.origin.send(request).await.ok()?;
        let is_the_range = response.status == StatusCode::PARTIAL_CONTENT
            && response.headers.get(header::CONTENT_RANGE) == Some(&range.content_range(Some(length)))
            && entity_tag(&response.headers) == Some(&tag);
        if !is_the_range {
            return None;
        }
        let mut answer = pass(response, CacheStatus::forwarded(Forward::Partial), Outcome::Miss);
        fields::ensure_date(answer.response.headers_mut(), self.0.clock.now());
        Some(answer)
    }
}
