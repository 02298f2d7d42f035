//! Parts of what is stored, and the preconditions of clients: answered without the origin.

use anyhow::Result;
use integration_tests::{client::Response, origin::Resource};

use crate::{MIB, Setup, assert_same, content};

const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// 100 000 stored bytes with both validators.
async fn stored() -> Result<(Setup, Vec<u8>)> {
    let setup = Setup::start().await?;
    let body = content(100_000, 31);
    let resource = Resource::cacheable(body.clone())
        .header("last-modified", MODIFIED)
        .header("content-type", "text/x-test");
    setup.stored(resource).await?;
    Ok((setup, body))
}

async fn with(setup: &Setup, fields: &[(&str, &str)]) -> Result<(Response, Vec<u8>)> {
    let request = setup.client().get("/files/a");
    fields
        .iter()
        .fold(request, |request, (name, value)| request.header(name, value))
        .fetch()
        .await
}

#[tokio::test]
async fn rfc9110_s14_a_range_of_a_stored_response_is_answered_from_the_store() -> Result<()> {
    let (setup, body) = stored().await?;
    for (range, part, content_range) in [
        ("bytes=0-0", 0..1, "bytes 0-0/100000"),
        ("bytes=500-999", 500..1000, "bytes 500-999/100000"),
        ("bytes=99000-", 99_000..100_000, "bytes 99000-99999/100000"),
        ("bytes=-10", 99_990..100_000, "bytes 99990-99999/100000"),
        ("bytes=99999-200000", 99_999..100_000, "bytes 99999-99999/100000"),
    ] {
        let (response, got) = with(&setup, &[("range", range)]).await?;
        assert_eq!(response.status, 206, "{range}");
        assert_eq!(response.header("content-range"), Some(content_range));
        assert_eq!(
            response.header("content-length"),
            Some(part.len().to_string().as_str())
        );
        assert_same(&got, &body[part], range);
        assert!(
            response.cache_status().contains("hit"),
            "{}",
            response.cache_status()
        );
    }
    assert_eq!(setup.asked("/a"), 1);
    Ok(())
}

#[tokio::test]
async fn rfc9110_s15_5_17_a_range_beyond_the_end_is_416_with_the_length() -> Result<()> {
    let (setup, _) = stored().await?;
    let (response, _) = with(&setup, &[("range", "bytes=100000-")]).await?;
    assert_eq!(response.status, 416);
    assert_eq!(response.header("content-range"), Some("bytes */100000"));
    Ok(())
}

#[tokio::test]
async fn rfc9110_s14_6_several_ranges_are_a_multipart_of_the_right_length() -> Result<()> {
    let (setup, body) = stored().await?;
    let (response, got) = with(&setup, &[("range", "bytes=0-9,5000-5009")]).await?;
    assert_eq!(response.status, 206);
    let kind = response.header("content-type").unwrap_or_default();
    let boundary = kind
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap_or_default();
    assert!(!boundary.is_empty(), "{kind}");
    assert_eq!(response.header("content-range"), None);
    let mut expected = Vec::new();
    for (lead, first, last) in [("", 0, 9), ("\r\n", 5000, 5009)] {
        let head = format!(
            "{lead}--{boundary}\r\nContent-Type: text/x-test\r\nContent-Range: bytes {first}-{last}/100000\r\n\r\n"
        );
        expected.extend_from_slice(head.as_bytes());
        expected.extend_from_slice(&body[first..=last]);
    }
    expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(&expected));
    Ok(())
}

#[tokio::test]
async fn rfc9110_s13_1_5_if_range_gives_the_part_only_of_the_same_representation() -> Result<()> {
    let (setup, body) = stored().await?;
    for (validator, status, length) in [
        ("\"v1\"", 206, 10),
        (MODIFIED, 206, 10),
        ("\"v0\"", 200, body.len()),
        ("W/\"v1\"", 200, body.len()),
        ("Sun, 06 Nov 1994 08:49:38 GMT", 200, body.len()),
    ] {
        let (response, got) = with(&setup, &[("range", "bytes=0-9"), ("if-range", validator)]).await?;
        assert_eq!((response.status, got.len()), (status, length), "{validator}");
    }
    assert_eq!(setup.asked("/a"), 1);
    Ok(())
}

#[tokio::test]
async fn rfc9110_s13_1_a_client_that_has_it_gets_304_from_the_store() -> Result<()> {
    let (setup, body) = stored().await?;
    for (field, value, status) in [
        ("if-none-match", "\"v0\", W/\"v1\"", 304),
        ("if-none-match", "\"v0\"", 200),
        ("if-modified-since", MODIFIED, 304),
        ("if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT", 200),
        ("if-match", "\"v0\"", 412),
    ] {
        let (response, got) = with(&setup, &[(field, value)]).await?;
        assert_eq!(response.status, status, "{field}: {value}");
        match status {
            304 => assert_eq!((response.header("etag"), got.len()), (Some("\"v1\""), 0)),
            200 => assert_same(&got, &body, field),
            _ => {}
        }
    }
    assert_eq!(setup.asked("/a"), 1);
    Ok(())
}

#[tokio::test]
async fn rfc9110_s9_3_2_head_is_answered_from_the_stored_get_without_content() -> Result<()> {
    let (setup, _) = stored().await?;
    let (response, got) = setup.client().request("HEAD", "/files/a").fetch().await?;
    assert_eq!((response.status, got.len()), (200, 0));
    assert_eq!(response.header("content-length"), Some("100000"));
    assert_eq!(setup.asked("/a"), 1);
    Ok(())
}

#[tokio::test]
async fn row_d_p16_a_range_of_something_not_stored_is_right_and_never_stored_as_the_whole() -> Result<()> {
    let setup = Setup::start().await?;
    let body = content(4 * MIB, 32);
    setup.origin.serve("/a", Resource::cacheable(body.clone()));
    let wanted = 2 * MIB..2 * MIB + 1000;
    let range = format!("bytes={}-{}", wanted.start, wanted.end - 1);
    let (response, got) = with(&setup, &[("range", &range)]).await?;
    match response.status {
        206 => assert_same(&got, &body[wanted], "the part"),
        200 => assert_same(&got, &body, "the whole in place of the part"),
        other => panic!("status {other}"),
    }
    let (_, got) = with(&setup, &[]).await?;
    assert_same(&got, &body, "the whole afterwards");
    assert!(setup.asked("/a") <= 2, "{} requests", setup.asked("/a"));
    Ok(())
}

#[tokio::test]
async fn rfc9111_s3_a_206_that_nobody_asked_for_is_not_stored_as_the_whole() -> Result<()> {
    let setup = Setup::start().await?;
    let partial = Resource::cacheable("part")
        .status(206)
        .header("content-range", "bytes 0-3/100");
    setup.origin.serve("/a", partial);
    // Whatever the client is told, it is not a 200 with four bytes.
    if let Ok(mut response) = setup.client().get("/files/a").send().await {
        let got = response.finish().await?;
        assert!(
            response.status != 200 || !got.looks_whole,
            "a part was served as the whole"
        );
    }
    setup.origin.serve("/a", Resource::cacheable("the whole"));
    assert_eq!(with(&setup, &[]).await?.1, b"the whole");
    Ok(())
}
