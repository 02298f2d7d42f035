use proptest::prelude::*;

use super::*;

fn parse(value: &str) -> Option<RangeRequest> {
    RangeRequest::parse(value.as_bytes())
}

/// Ranges as `first-last`, or the other outcome as a word.
fn resolved(value: &str, length: u64) -> String {
    match parse(value).unwrap().resolve(length) {
        Resolved::Partial(parts) => parts
            .iter()
            .map(ByteRange::to_string)
            .collect::<Vec<_>>()
            .join(","),
        Resolved::Whole => "whole".to_owned(),
        Resolved::Unsatisfiable => "416".to_owned(),
    }
}

#[test]
fn rfc9110_s14_1_2_byte_ranges_of_a_representation_of_10000_bytes() {
    for (value, expected) in [
        ("bytes=0-499", "0-499"),
        ("bytes=500-999", "500-999"),
        ("bytes=-500", "9500-9999"),
        ("bytes=9500-", "9500-9999"),
        ("bytes=0-0,-1", "0-0,9999-9999"),
        ("Bytes= 0-9, , 4500-5499 ,\t-1000", "0-9,4500-5499,9000-9999"),
        ("bytes=9999-10000", "9999-9999"),
        ("bytes=0-99999999999999999999999", "0-9999"),
        ("bytes=-99999999999999999999999", "0-9999"),
        ("bytes=10000-", "416"),
        ("bytes=10000-,-0", "416"),
        ("bytes=10000-,5-5", "5-5"),
        ("bytes=-0", "416"),
    ] {
        assert_eq!(resolved(value, 10_000), expected, "{value}");
    }
    assert_eq!(resolved("bytes=0-", 0), "416");
    assert_eq!(resolved("bytes=-1", 0), "416");
}

#[test]
fn rfc9110_s14_2_what_is_no_valid_byte_range_is_ignored() {
    let many = format!("bytes={}", vec!["0-0"; MAX_RANGES + 1].join(","));
    for value in [
        "items=0-1",
        "bytes 0-1",
        "bytes=",
        "bytes=-",
        "bytes=1-0",
        "bytes=a-b",
        "bytes=0-1;",
        "bytes=0-1,x",
        "bytes=+1-2",
        &many,
    ] {
        assert_eq!(parse(value), None, "{value}");
    }
}

#[test]
fn rfc9110_s14_2_range_is_defined_for_get_alone_and_repeated_fields_are_ignored() {
    let mut headers = HeaderMap::new();
    headers.append(header::RANGE, HeaderValue::from_static("bytes=0-1"));
    assert!(RangeRequest::of(&Method::GET, &headers).is_some());
    assert!(RangeRequest::of(&Method::HEAD, &headers).is_none());
    headers.append(header::RANGE, HeaderValue::from_static("bytes=5-6"));
    assert!(RangeRequest::of(&Method::GET, &headers).is_none());
}

#[test]
fn rfc9110_s15_3_7_2_overlapping_and_near_ranges_are_joined_where_the_first_stood() {
    for (value, expected) in [
        ("bytes=0-9,5-20", "0-20"),
        ("bytes=0-9,10-20", "0-20"),
        ("bytes=0-9,90-99", "0-99"),
        ("bytes=0-9,91-99", "0-9,91-99"),
        ("bytes=5000-5009,0-9,5005-6000", "5000-6000,0-9"),
        ("bytes=0-9,200-209,5-205", "0-209"),
        ("bytes=0-,0-,0-", "whole"),
        ("bytes=0-4999,5000-9999", "whole"),
        ("bytes=0-9999", "0-9999"),
    ] {
        assert_eq!(resolved(value, 10_000), expected, "{value}");
    }
}

#[test]
fn rfc9110_s14_4_content_range_with_and_without_the_complete_length() {
    let range = ByteRange::new(42, 1233).unwrap();
    assert_eq!(range.content_range(Some(1234)), "bytes 42-1233/1234");
    assert_eq!(range.content_range(None), "bytes 42-1233/*");
    assert_eq!(unsatisfied_content_range(1234), "bytes */1234");
    assert_eq!(ByteRange::new(2, 1), None);
    assert_eq!(ByteRange::new(0, u64::MAX).unwrap().size(), u64::MAX);
}

#[test]
fn rfc9110_s14_1_2_while_the_length_is_unknown_only_a_closed_range_can_be_answered() {
    for (value, expected) in [
        ("bytes=5-9", Growing::Within(ByteRange::new(5, 9).unwrap())),
        ("bytes=5-", Growing::NeedsLength),
        ("bytes=-5", Growing::NeedsLength),
        ("bytes=0-1,500-501", Growing::NeedsLength),
    ] {
        assert_eq!(parse(value).unwrap().resolve_growing(), expected, "{value}");
    }
}

proptest! {
    #[test]
    fn rfc9110_s17_15_parts_are_inside_disjoint_and_together_no_more_than_the_whole(
        specs in proptest::collection::vec("([0-9]{1,4}-[0-9]{0,4}|-[0-9]{1,4})", 1..20), length in 0_u64..3000,
    ) {
        let Some(request) = parse(&format!("bytes={}", specs.join(","))) else { return Ok(()) };
        let Resolved::Partial(parts) = request.resolve(length) else { return Ok(()) };
        prop_assert!(!parts.is_empty());
        prop_assert!(parts.iter().map(|part| part.size()).sum::<u64>() <= length);
        for (index, part) in parts.iter().enumerate() {
            prop_assert!(part.last() < length);
            for other in &parts[..index] {
                prop_assert!(part.last() < other.first() || other.last() < part.first());
            }
        }
    }

    #[test]
    fn rfc9110_s14_2_every_byte_asked_for_is_sent(
        specs in proptest::collection::vec((0_u64..2000, 0_u64..100), 1..10), length in 1_u64..2000,
    ) {
        let text: Vec<_> = specs.iter().map(|(first, more)| format!("{first}-{}", first + more)).collect();
        let resolved = parse(&format!("bytes={}", text.join(","))).unwrap().resolve(length);
        let sent = |at: u64| match &resolved {
            Resolved::Partial(parts) => parts.iter().any(|part| (part.first()..=part.last()).contains(&at)),
            Resolved::Whole => true,
            Resolved::Unsatisfiable => false,
        };
        for (first, more) in specs {
            for at in first..=(first + more) {
                prop_assert!(at >= length || sent(at), "byte {} of {:?}", at, text);
            }
        }
    }
}

#[test]
fn rfc9110_s14_4_content_ranges_are_read_and_nonsense_is_not() {
    assert_eq!(parse_content_range("bytes 5-9/10"), Some((5, 9, Some(10))));
    assert_eq!(parse_content_range("bytes 5-9/*"), Some((5, 9, None)));
    for text in [
        "bytes */10",
        "bytes 9-5/10",
        "bytes 5-10/10",
        "items 1-2/3",
        "bytes 5-9",
        "",
    ] {
        assert_eq!(parse_content_range(text), None, "{text}");
    }
}
