//! Texts of HTTP that we read and write: dates (RFC 9110 §5.6.7) and `Cache-Status` (RFC 9211).

use http::{HeaderMap, HeaderValue};
use kato_proxy::{
    cache_status::{CACHE_STATUS, CacheStatus, Forward},
    policy::headers::{http_date, parse_http_date},
};

/// A field value.
pub fn http_text(data: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(data)
        && let Some(read) = parse_http_date(&value)
    {
        let written = http_date(read);
        let again = parse_http_date(&written).expect("what we write we read");
        assert!(again.as_second() == read.as_second() || read.as_second() < 0);
        assert_eq!(http_date(again), written);
    }
    let text = String::from_utf8_lossy(data);
    for status in [
        CacheStatus::hit().key(&text),
        CacheStatus::generated().detail(&text),
        CacheStatus::forwarded(Forward::UriMiss).key(&text).detail(&text),
    ] {
        let mut headers = HeaderMap::new();
        status.append_to(&mut headers);
        let line = headers.get(CACHE_STATUS).expect("always a field value");
        let line = line.to_str().expect("always ASCII");
        one_member(line);
    }
}

/// One member of the list: no comma and no stray quote outside strings.
fn one_member(line: &str) {
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        assert!((' '..='~').contains(&letter) && letter != ',', "{line}");
        if letter == '"' {
            loop {
                match letters.next() {
                    Some('\\') => assert!(matches!(letters.next(), Some('"' | '\\')), "{line}"),
                    Some('"') => break,
                    Some(inner) => assert!((' '..='~').contains(&inner), "{line}"),
                    None => panic!("an open string: {line}"),
                }
            }
        }
    }
}
