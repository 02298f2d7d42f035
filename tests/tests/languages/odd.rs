//! An index that answers oddly for a moment, and is off afterwards: what is held is served.

use anyhow::Result;
use integration_tests::origin::Resource;

use crate::site::Site;

/// The page of a login, as networks give it out in everybody's place.
const LOGIN: &str =
    "<html><title>Login</title><a href=\"/help/\">help</a><form action=/login><input type=password></form>";

/// Status code, type and content of an answer, and the status code that the client is given at once: the held one's, or that of the answer.
const CASES: [(u16, &str, &str, u16); 12] = [
    (200, "text/html", LOGIN, 200),
    (200, "text/html", "<html>", 200),
    (200, "text/html", "", 200),
    (200, "application/json", "", 200),
    (200, "application/json", r#"{"login":"/"}"#, 200),
    (204, "text/html", "", 200),
    (301, "text/html", LOGIN, 200),
    (405, "text/html", LOGIN, 200),
    (501, "text/html", LOGIN, 200),
    (404, "text/html", LOGIN, 404),
    (410, "text/html", LOGIN, 410),
    (403, "text/html", LOGIN, 403),
];

/// Kind of an upstream; what stands before and behind the name of a document; its type and content.
const DOCUMENTS: [(&str, &str, &str, &str, &str); 4] = [
    ("npm", "", "", "application/json", r#"{"name":"a","versions":{}}"#),
    (
        "cargo",
        "ab/cd/",
        "",
        "application/json",
        "{\"name\":\"abcd\",\"vers\":\"1.0.0\",\"cksum\":\"0\",\"deps\":[],\"features\":{},\"yanked\":false}\n",
    ),
    (
        "pypi",
        "simple/",
        "/",
        "text/html",
        "<title>Links for abcd</title><a href=\"/abcd-1-py3-none-any.whl\">abcd</a>",
    ),
    (
        "pypi",
        "simple/",
        "/",
        "application/vnd.pypi.simple.v1+json",
        r#"{"meta":{"api-version":"1.0"},"name":"abcd","files":[]}"#,
    ),
];

#[tokio::test]
async fn p10_what_an_index_denies_for_a_moment_is_served_once_it_is_off() -> Result<()> {
    for (kind, folder, end, kept_as, document) in DOCUMENTS {
        let mut site = Site::start("up", kind).await?;
        let client = site.proxy.client();
        let path = |nth: usize| format!("/{folder}abcd{nth}{end}");
        for (nth, (status, as_kind, body, expected)) in CASES.into_iter().enumerate() {
            let good = Resource::new(document).header("content-type", kept_as);
            site.index.serve(&path(nth), good);
            let target = format!("/up{}", path(nth));
            let (_, held) = client.fetch(&target).await?;
            let odd = Resource::new(body).status(status).header("content-type", as_kind);
            site.index.serve(&path(nth), odd);
            for _ in 0..2 {
                let (said, got) = client.fetch(&target).await?;
                assert_eq!(
                    said.status,
                    expected,
                    "{kind} {status} {body}: {}",
                    said.cache_status()
                );
                assert!(expected != 200 || got == held, "{kind} {status} {body}");
            }
        }
        site.cut_off().await;
        for (nth, (status, _, said_then, _)) in CASES.into_iter().enumerate() {
            let (said, body) = client.fetch(&format!("/up{}", path(nth))).await?;
            assert_eq!(
                said.status,
                200,
                "{kind} {status} {said_then}: {}",
                said.cache_status()
            );
            assert!(
                body.starts_with(&document.as_bytes()[..2]),
                "{kind} {status} {said_then}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn p10_after_an_error_of_a_moment_the_next_document_is_stored() -> Result<()> {
    let mut site = Site::start("up", "npm").await?;
    let client = site.proxy.client();
    let packument = |version: &str| {
        let text = format!(r#"{{"name":"a","versions":{{"{version}":{{}}}}}}"#);
        Resource::new(text).header("content-type", "application/json")
    };
    site.index.serve("/a", packument("1.0.0"));
    assert_eq!(client.fetch("/up/a").await?.0.status, 200);
    site.index.serve("/a", Resource::new("no").status(403));
    assert_eq!(client.fetch("/up/a").await?.0.status, 403);
    site.index.serve("/a", packument("1.0.1"));
    let (said, new) = client.fetch("/up/a").await?;
    assert!(
        said.status == 200 && String::from_utf8_lossy(&new).contains("1.0.1"),
        "{}",
        said.cache_status()
    );
    site.index.serve("/a", Resource::new("").status(503));
    let (said, held) = client.fetch("/up/a").await?;
    assert_eq!((said.status, &held), (200, &new), "{}", said.cache_status());
    site.cut_off().await;
    assert_eq!(client.fetch("/up/a").await?.1, new);
    Ok(())
}
