//! Large bodies over several connections: whether, and how one range is asked for.

use std::sync::Arc;

use http::{HeaderValue, StatusCode, Version, header};

use super::{Pipeline, flight::Flight};
use crate::{
    fill::{
        Promise,
        segments::{FetchRange, SEGMENT, Segments},
    },
    origin::OriginRequest,
    policy::{
        Stored,
        validation::{origin_request_headers, strong_validator},
    },
    range,
};

impl Pipeline {
    /// The segments behind the first of the body under `head`, where the settings want that and the origin makes it safe: its
    /// size is known, and a strong validator binds the ranges together.
    pub(super) fn segments(&self, flight: &Flight, head: &Stored, promise: Promise) -> Option<Segments> {
        let upstream = &flight.ask.target.upstream;
        let width = usize::from(upstream.parallel);
        let total = promise
            .announced
            .filter(|total| *total >= upstream.parallel_min_size.bytes() && *total > SEGMENT)?;
        if width < 2 || head.status != StatusCode::OK {
            return None;
        }
        let validator = strong_validator(&head.headers)?;
        Some(Segments::new(
            self.fetch_range(flight, validator, total),
            (SEGMENT, total),
            width,
        ))
    }

    fn fetch_range(&self, flight: &Flight, validator: HeaderValue, total: u64) -> FetchRange {
        let (pipeline, ask) = (self.clone(), Arc::clone(&flight.ask));
        Arc::new(move |first, end| {
            let (pipeline, ask, validator) = (pipeline.clone(), Arc::clone(&ask), validator.clone());
            Box::pin(async move {
                let mut headers = origin_request_headers(&ask.headers, &[]);
                if let Ok(range) = HeaderValue::try_from(format!("bytes={first}-{}", end - 1)) {
                    headers.insert(header::RANGE, range);
                }
                headers.insert(header::IF_RANGE, validator.clone());
                pipeline.complete_request(&mut headers, Version::HTTP_11);
                pipeline.count_origin_request(&ask);
                let request = OriginRequest {
                    upstream: ask.target.upstream.name.to_string(),
                    candidates: ask.target.candidates.clone(),
                    method: http::Method::GET,
                    headers,
                    body: bytes::Bytes::new(),
                    interim: None,
                    has_stand_in: false,
                    has_known_digest: ask.known.is_some(),
                };
                let response = pipeline.0.origin.send(request).await?;
                let said = response.headers.get(header::CONTENT_RANGE);
                let range = said.and_then(|value| range::parse_content_range(value.to_str().ok()?));
                let is_asked = response.status == StatusCode::PARTIAL_CONTENT
                    && range == Some((first, end - 1, Some(total)))
                    && strong_validator(&response.headers).as_ref() == Some(&validator);
                Ok(is_asked.then_some(response.body))
            })
        })
    }
}
