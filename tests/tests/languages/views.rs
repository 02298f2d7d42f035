//! What a client sees of a rewritten document, request by request.

use anyhow::Result;
use integration_tests::origin::Resource;

use crate::site::{Site, document, sha256};

const PIP_24: &str =
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01";
const PIP_22: &str =
    "application/vnd.pypi.simple.v1+json,application/vnd.pypi.simple.v1+html;q=0.2,text/html;q=0.01";

/// A page whose link changes.
fn page(site: &Site) -> (String, String) {
    let page = |link: &str| format!("<a href=\"{link}#sha256=00\" data-yanked>a</a>");
    let link = site.files.url("/a-1.whl");
    let ours = format!("/{}", link.replace("://", "/"));
    (page(&link), page(&ours))
}

#[tokio::test]
async fn p21_every_version_of_pip_shares_one_stored_page_and_conditions_are_about_what_is_shown() -> Result<()>
{
    let site = Site::start("pypi", "pypi").await?;
    let (stored, shown) = page(&site);
    let resource = Resource::cacheable(stored.clone())
        .header("content-type", "text/html")
        .header("vary", "Accept, Accept-Encoding");
    site.index.serve("/simple/a/", resource);
    let client = site.proxy.client();
    let mut tags = Vec::new();
    for (accept, coding) in [(PIP_24, "gzip, deflate"), (PIP_22, "gzip, deflate, br, zstd")] {
        let get = client.get("/pypi/simple/a/").header("accept", accept);
        let (response, body) = get.header("accept-encoding", coding).fetch().await?;
        assert_eq!(String::from_utf8(body)?, shown);
        assert_eq!(response.header("vary"), Some("accept"));
        tags.push(response.header("etag").unwrap_or_default().to_owned());
    }
    assert_eq!(site.index.requests("/simple/a/").len(), 1);
    assert!(tags[0].starts_with('"') && tags[0] != "\"v1\"", "{tags:?}");
    assert_eq!(tags[0], tags[1]);

    let again = client.get("/pypi/simple/a/").header("accept", PIP_24);
    let (response, _) = again.clone().header("if-none-match", &tags[0]).fetch().await?;
    assert_eq!(response.status, 304);
    // The origin's own tag is about other bytes.
    let (response, _) = again.clone().header("if-none-match", "\"v1\"").fetch().await?;
    assert_eq!(response.status, 200);
    let (response, body) = again.header("range", "bytes=0-1").fetch().await?;
    assert_eq!((response.status, body.as_slice()), (206, &b"<a"[..]));
    let head = client.request("HEAD", "/pypi/simple/a/").header("accept", PIP_24);
    let (response, body) = head.fetch().await?;
    assert_eq!(
        response.header("content-length"),
        Some(shown.len().to_string().as_str())
    );
    assert!(body.is_empty());
    Ok(())
}

#[tokio::test]
async fn by_the_forward_proxy_a_document_is_what_its_origin_sent() -> Result<()> {
    let site = Site::start("pypi", "pypi").await?;
    let (stored, shown) = page(&site);
    let resource = Resource::cacheable(stored.clone()).header("content-type", "text/html");
    site.index.serve("/simple/a/", resource);
    let client = site.proxy.client();
    // In turn, so that neither is answered with what was made for the other.
    for _ in 0..2 {
        let (_, body) = client.fetch(&site.index.url("/simple/a/")).await?;
        assert_eq!(String::from_utf8(body)?, stored);
        let (_, body) = client.fetch("/pypi/simple/a/").await?;
        assert_eq!(String::from_utf8(body)?, shown);
    }
    Ok(())
}

#[tokio::test]
async fn rewrite_links_false_passes_documents_on() -> Result<()> {
    let site = Site::with("npm", "npm", "rewrite_links = false").await?;
    let packument = format!(
        r#"{{"versions":{{"1.0.0":{{"dist":{{"tarball":"{}"}}}}}}}}"#,
        site.files.url("/a.tgz")
    );
    site.index
        .serve("/a", document(packument.clone(), "application/json"));
    let (_, body) = site.proxy.client().fetch("/npm/a").await?;
    assert_eq!(String::from_utf8(body)?, packument);
    Ok(())
}

#[tokio::test]
async fn a_document_that_is_none_is_a_502_and_an_unknown_host_of_archives_is_named() -> Result<()> {
    let site = Site::start("crates", "cargo").await?;
    let client = site.proxy.client();
    let config = document(r#"{"dl":"https://elsewhere.example/c"}"#, "application/json");
    site.index.serve("/config.json", config);
    let (response, body) = client.fetch("/crates/config.json").await?;
    let said = String::from_utf8(body)?;
    assert_eq!(response.status, 502);
    assert!(
        said.contains("elsewhere.example") && said.contains("hint"),
        "{said}"
    );
    site.index
        .serve("/sub/config.json", document("<html>", "text/html"));
    let (response, _) = client.fetch("/crates/sub/config.json").await?;
    assert_eq!(response.status, 502);
    Ok(())
}

#[tokio::test]
async fn a_document_too_large_to_be_rewritten_is_a_502_with_the_reason() -> Result<()> {
    let site = Site::start("npm", "npm").await?;
    let huge = format!("{{\"readme\":\"{}\"}}", "x".repeat(33 << 20));
    site.index.serve("/huge", document(huge, "application/json"));
    let (response, body) = site.proxy.client().fetch("/npm/huge").await?;
    let said = String::from_utf8(body)?;
    assert_eq!(response.status, 502);
    assert!(said.contains("33554432"), "{said}");
    Ok(())
}

/// `<base href>` and a redirect both say against what the links of a page are resolved.
#[tokio::test]
async fn pep503_links_and_digests_hold_against_the_base_element_and_where_a_redirect_led() -> Result<()> {
    let site = Site::start("pypi", "pypi").await?;
    let client = site.proxy.client();
    site.files.serve("/b/a-1.whl", Resource::cacheable("by the base"));
    site.index
        .serve("/moved/q/b-1.whl", Resource::cacheable("by the redirect"));
    let base = format!(
        "<base href=\"{}\"><a href=\"a-1.whl#sha256={}\">a</a>",
        site.files.url("/b/"),
        sha256(b"other than the file")
    );
    site.index.serve("/simple/a/", document(base, "text/html"));
    let moved = Resource::new("")
        .status(302)
        .header("location", "/moved/simple-b/?signature=secret");
    site.index.serve("/simple/b/", moved);
    site.index.serve(
        "/moved/simple-b/?signature=secret",
        document(
            format!(
                "<a href=\"../q/b-1.whl#sha256={}\">b</a>",
                sha256(b"other than the file")
            ),
            "text/html",
        ),
    );
    for (project, path) in [
        ("a", site.files.url("/b/a-1.whl")),
        ("b", site.index.url("/moved/q/b-1.whl")),
    ] {
        // Twice: from the origin, and from the store.
        for _ in 0..2 {
            let (response, page) = client.fetch(&format!("/pypi/simple/{project}/")).await?;
            let page = String::from_utf8(page)?;
            assert_eq!(response.status, 200, "{page}");
            let ours = format!("href=\"/{}#", path.replace("://", "/"));
            assert!(
                page.contains(&ours) && !page.contains("<base"),
                "no {ours} in {page}"
            );
            assert!(!page.contains("secret"), "{page}");
        }
        // The digests were learned for the same URLs.
        let (response, body) = client.fetch(&path).await?;
        assert_eq!(response.status, 502, "{}", String::from_utf8_lossy(&body));
    }
    Ok(())
}

#[tokio::test]
async fn a_page_that_is_no_utf_8_is_shown_byte_for_byte_but_for_its_links() -> Result<()> {
    let site = Site::start("pypi", "pypi").await?;
    let link = site.files.url("/a.whl");
    let around = |link: &str| {
        [
            b"<title>caf\xe9 \xff</title><a href=\"",
            link.as_bytes(),
            b"\">\xc3(</a>",
        ]
        .concat()
    };
    site.index.serve(
        "/simple/a/",
        document(around(&link), "text/html; charset=iso-8859-1"),
    );
    let (response, body) = site.proxy.client().fetch("/pypi/simple/a/").await?;
    assert_eq!(response.status, 200);
    assert_eq!(body, around(&format!("/{}", link.replace("://", "/"))));
    Ok(())
}
