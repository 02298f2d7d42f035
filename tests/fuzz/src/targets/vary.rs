//! `Vary` and the selection of a stored response: RFC 9111 §4.1.

use http::{HeaderName, Method, StatusCode, header};
use kato_proxy::policy::{Lookup, Overrides, Request, Selecting, Stored, Times, select};

use super::{fields, parts, time};

/// Fields of a response, of the request that it answered, and of another request, with NUL between.
pub fn vary(data: &[u8]) {
    let [response, first, second] = parts(data).map(fields);
    let of_first = Selecting::of(&first, &response);
    let of_second = Selecting::of(&second, &response);
    assert!(of_first.matches(&first), "a request selects what answered it");
    assert_eq!(
        of_first == of_second,
        of_first.matches(&second),
        "equal selections match, others do not"
    );
    assert_eq!(of_first.matches(&second), of_second.matches(&first));
    assert_eq!(
        of_first == of_second,
        of_first.to_string() == of_second.to_string(),
        "the text keeps different selections apart"
    );
    assert_eq!(Selecting::from_pairs(of_first.pairs().to_vec()), of_first);
    // `*`, and what is no field name and so cannot be compared.
    let any = response
        .get_all(header::VARY)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .any(|member| member == b"*" || !member.is_empty() && HeaderName::from_bytes(member).is_err());
    let (one, other) = (
        Request {
            method: &Method::GET,
            headers: &first,
        },
        Request {
            method: &Method::GET,
            headers: &second,
        },
    );
    let times = Times {
        request: time(1_000_000),
        response: time(1_000_001),
    };
    let stored = Stored::new(&one, (StatusCode::OK, &response), times, &Overrides::default());
    let variants = [stored];
    let is_found = |request: &Request<'_>| matches!(select(request, &variants), Lookup::Found { .. });
    if any {
        assert!(!is_found(&one), "`*` matches nothing");
    } else if response.get(header::CONNECTION).is_none() {
        assert!(is_found(&one));
        assert_eq!(is_found(&other), of_first == of_second);
    }
}
