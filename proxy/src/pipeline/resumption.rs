//! Going on with a download that broke off earlier: the rest by `Range` and `If-Range`, behind what is there.
//!
//! "A cache can complete a stored incomplete response by making a subsequent range request (Section 14.2 of RFC 9110) and
//! combining the successful response with the stored response" ([RFC 9111 §3.3](https://www.rfc-editor.org/rfc/rfc9111#section-3.3)).

use http::{HeaderValue, Method, StatusCode, header};

use super::{
    Pipeline,
    flight::{Flight, times},
    landing::{Arrival, Heads},
};
use crate::{
    fill::partial::Kept,
    metrics::Event,
    origin::{OriginError, OriginResponse},
    policy::{
        self, Request, Stored, redirects,
        validation::{combine, strong_validator},
    },
    range,
};

/// What came of asking for the rest.
pub(super) enum Resumption {
    /// The rest is on its way.
    Goes(Box<Arrival>),
    /// Something else was answered, to be taken for what it is.
    Answered(Box<Result<OriginResponse, OriginError>>),
}

impl Pipeline {
    /// Asks for the rest of `kept`.
    pub(super) async fn resume(&self, flight: &Flight, kept: Kept) -> Resumption {
        let at = kept.partial.received();
        tracing::info!(
            url = %flight.ask.target.key.shown(),
            at,
            "taking up an earlier download where it stopped"
        );
        let Ok(range) = HeaderValue::try_from(format!("bytes={at}-")) else {
            return Resumption::Answered(Box::new(self.send(flight).await));
        };
        let conditions = [(header::RANGE, range), (header::IF_RANGE, kept.validator.clone())];
        let answered = self.send_with(flight, Method::GET, conditions).await;
        let response = match answered {
            Ok(response) if response.status == StatusCode::PARTIAL_CONTENT => response,
            // The range is no range of what is there now.
            Ok(response) if response.status == StatusCode::RANGE_NOT_SATISFIABLE => {
                return Resumption::Answered(Box::new(self.send(flight).await));
            }
            // Not now: a later request may have more luck.
            answered
                if answered
                    .as_ref()
                    .map_or(true, |response| response.status.is_server_error()) =>
            {
                let key = flight.ask.target.key.to_string();
                self.0.fills.partials.keep(key, kept, tokio::time::Instant::now());
                return Resumption::Answered(Box::new(answered));
            }
            answered => return Resumption::Answered(Box::new(answered)),
        };
        match combined(flight, &kept, &response) {
            Some(head) => {
                self.0.metrics.note(Event::Resumed);
                Resumption::Goes(Box::new(Arrival {
                    heads: Heads {
                        head,
                        for_first: None,
                        version: response.version,
                    },
                    body: response.body,
                    announced: Some(kept.total),
                    partial: Some(kept.partial),
                }))
            }
            None => Resumption::Answered(Box::new(self.send(flight).await)),
        }
    }
}

/// The head of the whole, if `response` is the rest of `kept` and the whole may be stored.
fn combined(flight: &Flight, kept: &Kept, response: &OriginResponse) -> Option<Stored> {
    let content_range = response.headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let is_rest = range::parse_content_range(content_range)
        == Some((kept.partial.received(), kept.total - 1, Some(kept.total)));
    // "if they share the same strong validator" (§3.4): a mirror that shows none may have understood no `If-Range` either.
    let is_same = strong_validator(&response.headers).as_ref() == Some(&kept.validator);
    if !is_rest || !is_same {
        tracing::info!(
            url = %flight.ask.target.key.shown(),
            content_range,
            "the rest does not fit what is there; fetching the whole"
        );
        return None;
    }
    let ask = &flight.ask;
    let mut head = combine(
        &ask.headers,
        &kept.head,
        &response.headers,
        times(response),
        &flight.overrides,
    );
    let request = Request {
        method: &Method::GET,
        headers: &ask.headers,
    };
    redirects::bind_stored(&request, &mut head, &response.hops, &flight.overrides);
    let of = (head.status, &head.headers);
    let storability = policy::storability(&request, of, flight.promise().is_some(), &flight.overrides);
    storability.may_store().then_some(head)
}
