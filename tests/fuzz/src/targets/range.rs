//! `Range` against a length: RFC 9110 §14.

use http::{HeaderMap, HeaderValue, Method, header};
use kato_proxy::range::{
    ByteRange, Growing, MAX_RANGES, RangeRequest, Resolved, multipart::Layout, multipart::Segment,
};

use super::number;

/// Eight bytes of length, then the field's value.
pub fn range(data: &[u8]) {
    let (length, value) = number(data);
    let Ok(value) = HeaderValue::from_bytes(value) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::RANGE, value.clone());
    assert_eq!(
        RangeRequest::of(&Method::POST, &headers),
        None,
        "ranges are for GET"
    );
    let Some(request) = RangeRequest::of(&Method::GET, &headers) else {
        return;
    };
    let resolved = request.resolve(length);
    if let Growing::Within(range) = request.resolve_growing() {
        // What is promised before the length is known holds when it is: the end may come earlier, never later.
        match &resolved {
            Resolved::Partial(parts) => {
                assert_eq!(parts.len(), 1);
                assert_eq!(parts[0].first(), range.first());
                assert!(parts[0].last() <= range.last());
            }
            Resolved::Unsatisfiable => assert!(range.first() >= length),
            Resolved::Whole => panic!("a single range is answered as a part"),
        }
    }
    if let Resolved::Partial(parts) = &resolved {
        within_bounds(parts, length);
        laid_out(parts, length);
    }
    headers.append(header::RANGE, value);
    assert_eq!(
        RangeRequest::of(&Method::GET, &headers),
        None,
        "repeated fields are ignored"
    );
}

fn within_bounds(parts: &[ByteRange], length: u64) {
    assert!((1..=MAX_RANGES).contains(&parts.len()));
    let mut sum = 0_u64;
    for (nth, part) in parts.iter().enumerate() {
        assert!(part.first() <= part.last() && part.last() < length);
        sum = sum.checked_add(part.size()).expect("parts do not overlap");
        for other in &parts[..nth] {
            assert!(
                part.last() < other.first() || other.last() < part.first(),
                "overlap"
            );
        }
        assert_eq!(
            part.content_range(Some(length)).to_str().unwrap_or_default(),
            format!("bytes {}-{}/{length}", part.first(), part.last())
        );
    }
    assert!(sum <= length);
}

fn laid_out(parts: &[ByteRange], length: u64) {
    let layout = Layout::new(parts, length, None, 1);
    let content: Vec<ByteRange> = layout
        .segments()
        .iter()
        .filter_map(|segment| match segment {
            Segment::Content(range) => Some(*range),
            Segment::Text(_) => None,
        })
        .collect();
    assert_eq!(content, parts);
    // Framing is about as long as the gaps that coalescing closes: no small request makes a large answer.
    let framing = 256 * (parts.len() as u64 + 1);
    if let Some(most) = length.checked_add(framing) {
        assert!(layout.content_length() <= most);
    }
}
