//! Short ways to write messages in the tests of this folder. Times are seconds after a fixed moment.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use jiff::Timestamp;

use super::{Overrides, Request, Selecting, Stored, Times, headers::http_date};

/// Sun, 06 Nov 1994 08:49:37 GMT, the date of RFC 9110's examples.
pub(crate) const BASE: i64 = 784_111_777;

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(BASE + seconds).unwrap()
}

pub(crate) fn date(seconds: i64) -> String {
    http_date(at(seconds)).to_str().unwrap().to_owned()
}

pub(crate) fn headers<V: AsRef<str>>(fields: &[(&'static str, V)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(
            HeaderName::from_static(name),
            HeaderValue::from_str(value.as_ref()).unwrap(),
        );
    }
    map
}

/// A stored 200 received at second 0 in no time at all.
pub(crate) fn stored<V: AsRef<str>>(fields: &[(&'static str, V)]) -> Stored {
    stored_for(&HeaderMap::new(), 200, fields)
}

pub(crate) fn stored_for<V: AsRef<str>>(
    client: &HeaderMap,
    status: u16,
    fields: &[(&'static str, V)],
) -> Stored {
    let request = Request {
        method: &Method::GET,
        headers: client,
    };
    let times = Times {
        request: at(0),
        response: at(0),
    };
    let status = StatusCode::from_u16(status).unwrap();
    Stored::new(&request, (status, &headers(fields)), times, &Overrides::default())
}

/// The selecting fields of a GET with `client` for a response with `Vary: vary`.
pub(crate) fn selecting(client: &HeaderMap, vary: &str) -> Selecting {
    Selecting::of(client, &headers(&[("vary", vary)]))
}
