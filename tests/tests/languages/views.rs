//! What a client sees of a rewritten document, request by request.

use anyhow::Result;
use integration_tests::origin::Resource;

use crate::site::{Site, document};

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
