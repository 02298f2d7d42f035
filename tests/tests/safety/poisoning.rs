//! Answers of an attacker's own making that would be stored for everybody.
//!
//! The origin shows in each answer the head that it received, so that whatever reaches it unkeyed is seen by the next client.

use anyhow::Result;

use crate::Setup;

/// Fields that some servers obey and no cache key names.
const UNKEYED: &[&str] = &[
    "X-Forwarded-Host: evil.example",
    "X-Forwarded-Host: a\r\nX-Forwarded-Host: evil.example",
    "X-Forwarded-Server: evil.example",
    "X-Forwarded-Scheme: evil",
    "X-Forwarded-Proto: evil",
    "X-Forwarded-Port: 31337evil",
    "X-Forwarded-Prefix: /evil",
    "X-Forwarded-For: evil",
    "X-Host: evil.example",
    "X-HTTP-Host-Override: evil.example",
    "X-Original-Host: evil.example",
    "X-Original-URL: /evil",
    "X-Rewrite-URL: /evil",
    "X-Override-URL: /evil",
    "X-HTTP-Method-Override: EVIL",
    "X-HTTP-Method: EVIL",
    "X-Method-Override: EVIL",
    "Forwarded: for=1;host=evil.example",
    "X-Real-IP: evil",
    "Connection: X-Hop\r\nX-Hop: evil",
    "TE: evil",
    "Upgrade: evil",
    "Keep-Alive: evil",
    "Proxy-Connection: evil",
    "Proxy-Authorization: evil",
    "Expect: evil",
    "Content-Type: evil/evil",
    "Range: bytes=0-0",
    "If-None-Match: \"evil\"",
    "If-Match: *\r\nIf-Modified-Since: evil",
];

#[tokio::test]
async fn fields_that_no_key_names_do_not_reach_the_origin_with_a_retrieval() -> Result<()> {
    let setup = Setup::start().await?;
    for (nth, fields) in UNKEYED.iter().enumerate() {
        let path = format!("/files/{nth}");
        setup
            .send(format!(
                "GET {path} HTTP/1.1\r\nHost: evil.example\r\n{fields}\r\n\r\n"
            ))
            .await?;
        let victim = setup.get(&path).await?;
        let text = victim.text().to_ascii_lowercase();
        assert_eq!(victim.status, 200, "{fields}");
        assert!(
            !text.contains("evil") && !text.contains("31337"),
            "{fields}: {text}"
        );
        assert!(!text.contains("range:"), "{fields}: {text}");
        assert!(text.contains(&setup.origin.address.to_string()), "{text}");
    }
    assert_eq!(
        setup.origin.asked().len(),
        UNKEYED.len(),
        "each was stored for the victim"
    );
    Ok(())
}

#[tokio::test]
async fn a_head_learns_nothing_from_fields_that_no_key_names() -> Result<()> {
    let setup = Setup::start().await?;
    setup.get("/files/a").await?;
    setup
        .send("HEAD /files/a HTTP/1.1\r\nHost: c\r\nCache-Control: no-cache\r\nX-Forwarded-Host: evil.example\r\n\r\n")
        .await?;
    let heads = setup.origin.heads().concat();
    assert!(!heads.contains("evil"), "{heads}");
    Ok(())
}

#[tokio::test]
async fn content_of_a_get_and_a_method_in_the_query_change_nothing() -> Result<()> {
    let setup = Setup::start().await?;
    let fat = "GET /files/a?x=1 HTTP/1.1\r\nHost: c\r\nContent-Type: application/x-www-form-urlencoded\r\n\
               Content-Length: 6\r\n\r\nx=evil";
    let answers = setup.send(fat).await?;
    assert_eq!(answers[0].status, 200);
    assert!(!answers[0].text().contains("ontent-"), "{}", answers[0].text());
    let victim = setup.get("/files/a?x=1").await?;
    assert!(victim.text().starts_with("GET /a?x=1 HTTP/1.1\r\n") && !victim.text().contains("evil"));
    // Another query is another resource, whatever it means to the origin.
    let overridden = setup.get("/files/a?x=1&_method=DELETE").await?;
    assert!(overridden.text().starts_with("GET /a?x=1&_method=DELETE "));
    Ok(())
}

/// Targets in pairs, and whether both are one resource. Where they are not, each must get its own answer.
const TARGETS: &[(&str, &str, bool)] = &[
    ("/files/a", "/files//a", false),
    ("/files/a/b", "/files/a//b", false),
    ("/files/a/b", "/files/a/./b", true),
    ("/files/a/b", "/files/a/c/../b", true),
    ("/files/a/b", "/files/a/c/%2e%2e/b", true),
    ("/files/a/b", "/files/a/c/%2E./b", true),
    ("/files/a/b", "/files/a/c\\..\\b", true),
    ("/files/a/b", "/files/a%2fb", false),
    ("/files/a/b", "/files/a%5cb", false),
    ("/files/a%2fb", "/files/a%2Fb", true),
    ("/files/%7euser", "/files/~user", true),
    ("/files/a", "/files/%61", true),
    ("/files/a", "/files/A", false),
    ("/files/a", "/files/a/", false),
    ("/files/a", "/files/a;v=1", false),
    ("/files/a", "/files/a?", false),
    ("/files/a", "/files/a%3f", false),
    ("/files/a", "/files/a%00", false),
    ("/files/a", "/files/a%20", false),
    ("/files/a", "/files/a.", false),
    ("/files/a?x=1&y=2", "/files/a?y=2&x=1", false),
    ("/files/a?x=1", "/files/a?x=1&x=1", false),
    ("/files/a?x=1", "/files/a?x=1;y", false),
    ("/files/a?x=1", "/files/a?x=1%26y", false),
    ("/files/a?x", "/files/a?x=", false),
    ("/files/%c3%a9", "/files/\u{e9}", true),
    ("/files/a", "http://HOST/a", true),
    ("/files/a", "/http/HOST/a", true),
    ("/files//a", "http://HOST//a", true),
    ("/files/a", "http://HOST/files/a", false),
    ("/files/a", "http://HOST/%61?", false),
];

#[tokio::test]
async fn two_targets_share_an_answer_where_they_are_one_resource_and_nowhere_else() -> Result<()> {
    let mut wrong = Vec::new();
    for (first, second, is_one) in TARGETS {
        let setup = Setup::start().await?;
        let one = setup.get(first).await?;
        let other = setup.get(second).await?;
        let asked = setup.origin.asked();
        let shared = one.body == other.body && asked.len() == 1;
        if (one.status, other.status) != (200, 200) || shared != *is_one || asked.len() > 2 {
            wrong.push(format!(
                "{first} and {second}: {} {}, the origin heard {asked:?}",
                one.status, other.status
            ));
        }
        // Whatever is called the same was asked for as the same.
        if asked.len() == 2 && asked[0] == asked[1] {
            wrong.push(format!("{first} and {second} reach the origin alike: {asked:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[tokio::test]
async fn no_spelling_leaves_the_base_url() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let origin = crate::RawOrigin::start().await?;
    let proxy = integration_tests::proxy::Settings::new(folder.path())
        .upstream("files", &format!("http://{}/pub/", origin.address))
        .start()
        .await?;
    for (target, status) in [
        ("/files/../secret", 400),
        ("/files/%2e%2e/secret", 400),
        ("/files/.%2E/secret", 400),
        ("/files/a/../../secret", 400),
        ("/files/..\\secret", 400),
        ("/files/a/..%5c../secret", 400),
        ("/files/..%2fsecret", 400),
        ("/files/a/c%2f../b", 400),
        ("/files/a/c/..%2fb", 400),
        ("/files/%252e%252e/secret", 200),
        ("/files/..;/secret", 400),
        ("/files/..", 400),
        ("/files/.", 200),
        ("/../files/secret", 404),
        ("//files/secret", 200),
        ("/FILES/secret", 404),
        ("/%66iles/secret", 404),
        ("/-/metrics", 404),
        ("/-/api/purge?prefix=http", 404),
        ("/http/../files/a", 403),
        ("/ftp/127.0.0.1/a", 404),
        ("/https/files/a", 403),
        ("/http/evil.example%2f@127.0.0.1/a", 400),
        ("/http/evil.example@127.0.0.1/a", 400),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\r\n");
        let answers = crate::exchange(proxy.data, request.as_bytes()).await?;
        assert_eq!(answers[0].status, status, "{target}: {}", answers[0].text());
    }
    for asked in origin.asked() {
        assert!(asked.starts_with("GET /pub/"), "{asked}");
        let path = asked
            .trim_start_matches("GET ")
            .to_ascii_lowercase()
            .replace("%2e", ".");
        assert!(path.split('/').all(|segment| segment != ".."), "{asked}");
    }
    Ok(())
}
