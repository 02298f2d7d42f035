//! Rows of the index as they are read back: what was damaged is refused, what is accepted is written again as it was.

use http::{HeaderMap, Method};
use kato_proxy::{
    conditional::{self, Length},
    policy::{Overrides, Request, decide, select},
    store::StoredResponse,
};

use super::time;

/// The bytes of a row.
pub fn stored(data: &[u8]) {
    let Ok(responses) = serde_json::from_slice::<Vec<StoredResponse>>(data) else {
        return;
    };
    let row = serde_json::to_vec(&responses).expect("what was read can be written");
    let again: Vec<StoredResponse> = serde_json::from_slice(&row).expect("what was written can be read");
    assert_eq!(again, responses);
    let heads: Vec<_> = responses.iter().map(|response| response.head.clone()).collect();
    let headers = HeaderMap::new();
    let request = Request {
        method: &Method::GET,
        headers: &headers,
    };
    for now in [0, 1_700_000_000, 200_000_000_000] {
        let found = select(&request, &heads);
        let _decided = decide(&request, found, &Overrides::default(), time(now));
    }
    for response in &responses {
        let _judged = conditional::evaluate(&request, &response.head, Length::Known(response.content.length));
    }
}
