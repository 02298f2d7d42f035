//! The targets, and how bytes become the facts that they start from.

pub(crate) mod bundle;
pub(crate) mod cache_control;
pub(crate) mod http_text;
pub(crate) mod range;
pub(crate) mod request_head;
pub(crate) mod stored;
pub(crate) mod vary;

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;

/// Field lines (`name: value`, one to a line) as a header map; a line that is no field is left out, as a parser would refuse it.
pub(crate) fn fields(text: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

/// The parts of the input between NUL bytes; missing ones are empty.
pub(crate) fn parts<const N: usize>(data: &[u8]) -> [&[u8]; N] {
    let mut split = data.splitn(N, |byte| *byte == 0);
    std::array::from_fn(|_nth| split.next().unwrap_or_default())
}

/// A time within some ten thousand years, from a number.
pub(crate) fn time(number: i64) -> Timestamp {
    Timestamp::from_second(number.rem_euclid(250_000_000_000)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The first eight bytes as a number, and the rest.
pub(crate) fn number(data: &[u8]) -> (u64, &[u8]) {
    match data.split_first_chunk::<8>() {
        Some((bytes, rest)) => (u64::from_le_bytes(*bytes), rest),
        None => (0, data),
    }
}
