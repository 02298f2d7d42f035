use url::Url;

use super::*;
use crate::{
    route::{Route, Router},
    settings::Settings,
};

fn settings() -> Settings {
    let upstream = |name: &str, kind, urls: &str| {
        let mut upstream: crate::settings::Upstream = format!("{name}={urls}").parse().unwrap();
        upstream.kind = kind;
        upstream
    };
    let mut pypi = upstream(
        "pypi",
        Kind::Pypi,
        "https://index.example/,https://second.example/pypi/",
    );
    pypi.file_urls = vec!["https://files.example:8443/".to_owned().try_into().unwrap()];
    Settings {
        upstreams: vec![
            pypi,
            upstream("npm", Kind::Npm, "https://npm.example/"),
            upstream("crates", Kind::Cargo, "https://crates.example/index/"),
        ],
        ..Settings::default()
    }
}

fn target(router: &Router, path: &str) -> std::sync::Arc<Target> {
    match router.route(&http::Method::GET, &path.parse().unwrap()).unwrap() {
        Route::Target(target) => target,
        Route::Intercept { .. } | Route::Tunnel { .. } | Route::RegistryBase => panic!("no target"),
    }
}

fn fields(fields: &[(HeaderName, &'static str)]) -> HeaderMap {
    let fields = fields.iter().cloned();
    fields
        .map(|(name, value)| (name, HeaderValue::from_static(value)))
        .collect()
}

/// The view of `document` at `path`, as somebody sees it who knows us as `http://cache:3180`.
fn shown(path: &str, content_type: &'static str, document: &str) -> Result<String, ViewError> {
    let router = Router::new(&settings());
    let target = target(&router, path);
    let view = View::of(&target).unwrap();
    let url = Url::parse(target.key.uri()).unwrap();
    let links = Links {
        router: &router,
        upstream: &target.upstream,
        document: &url,
    };
    let base = ServerBase::configured(&Url::parse("http://cache:3180").unwrap());
    let headers = fields(&[(header::CONTENT_TYPE, content_type)]);
    let rewritten = view.rewrite((&headers, document.as_bytes()), links, Some(&base))?;
    Ok(rewritten.map_or_else(|| document.to_owned(), |bytes| String::from_utf8(bytes).unwrap()))
}

#[test]
fn only_documents_with_links_have_a_view() {
    let router = Router::new(&settings());
    for (path, view) in [
        ("/pypi/simple/a/", Some(View::Simple)),
        ("/pypi/simple/zope.interface", Some(View::Simple)),
        ("/https/index.example/simple/a/", Some(View::Simple)),
        ("/pypi/packages/a-1.whl", None),
        ("/npm/a", Some(View::Packument)),
        ("/npm/@s%2fa", Some(View::Packument)),
        ("/npm/a/-/a-1.0.0.tgz", None),
        ("/npm/-/v1/search?text=a", None),
        ("/crates/config.json", Some(View::CrateConfig)),
        ("/crates/se/rd/serde", None),
    ] {
        assert_eq!(View::of(&target(&router, path)), view, "{path}");
    }
}

#[test]
fn p19_links_lead_to_us_where_an_upstream_has_their_host_and_stay_elsewhere() {
    let page = "<a href=\"https://files.example:8443/p/a.whl?x=1&amp;y=2#sha256=00\" data-yanked=\"a &amp; b\">a</a>\
                <a href='../../p/a.zip'>b</a><a href=\"https://elsewhere.example/a\">c</a>\
                <a href=\"https://second.example/pypi/p/c\">d</a><a href=\"https://user@index.example/e\">e</a>";
    let expected = "<a href=\"/https/files.example:8443/p/a.whl?x=1&amp;y=2#sha256=00\" data-yanked=\"a &amp; b\">a</a>\
                    <a href='/https/index.example/p/a.zip'>b</a><a href=\"https://elsewhere.example/a\">c</a>\
                    <a href=\"/https/second.example/pypi/p/c\">d</a><a href=\"https://user@index.example/e\">e</a>";
    assert_eq!(
        shown("/pypi/simple/a/", "text/html; charset=utf-8", page).unwrap(),
        expected
    );
}

#[test]
fn pep503_a_base_element_goes_and_what_was_relative_to_it_stays_right() {
    let page = "<base href=\"https://files.example:8443/p/\"><a href=\"a.whl\">a</a><a href=\"/b.whl\">b</a>";
    assert_eq!(
        shown("/pypi/simple/a/", "text/html", page).unwrap(),
        "<a href=\"/https/files.example:8443/p/a.whl\">a</a><a href=\"/https/files.example:8443/b.whl\">b</a>"
    );
    let page = "<a href=\"#top\"><base href=\"https://elsewhere.example/p/\"><a href=\"a.whl#x\">a</a>";
    assert_eq!(
        shown("/pypi/simple/a/", "text/html", page).unwrap(),
        "<a href=\"https://elsewhere.example/p/#top\"><a href=\"https://elsewhere.example/p/a.whl#x\">a</a>"
    );
}

#[test]
fn a_link_to_a_host_of_several_upstreams_says_of_which_it_is() {
    let mut settings = settings();
    let mut other: crate::settings::Upstream = "other=https://other.example/".parse().unwrap();
    other.kind = Kind::Pypi;
    other.file_urls = settings.upstreams[0].file_urls.clone();
    settings.upstreams.push(other);
    let router = Router::new(&settings);
    for name in ["pypi", "other"] {
        let target = target(&router, &format!("/{name}/simple/a/"));
        let url = Url::parse(target.key.uri()).unwrap();
        let links = Links {
            router: &router,
            upstream: &target.upstream,
            document: &url,
        };
        let path = links.path("https://files.example:8443/a.whl#x").unwrap();
        assert_eq!(path, format!("/~{name}/https/files.example:8443/a.whl#x"));
        let led = self::target(&router, path.split('#').next().unwrap());
        assert_eq!(led.upstream.name.as_str(), name);
        assert!(led.shared_with.is_empty());
        assert_eq!(led.key.uri(), "https://files.example:8443/a.whl");
    }
    let unsaid = target(&router, "/https/files.example:8443/a.whl");
    assert_eq!(unsaid.owners().count(), 2);
}

#[test]
fn a_page_that_is_no_utf_8_keeps_every_byte_but_its_links() {
    let page = b"<title>caf\xe9 \xff</title><a href=\"../../p/\xe9.zip\" title='\xe8'>\xc3\x28</a>";
    let router = Router::new(&settings());
    let target = target(&router, "/pypi/simple/a/");
    let url = Url::parse(target.key.uri()).unwrap();
    let links = Links {
        router: &router,
        upstream: &target.upstream,
        document: &url,
    };
    let headers = fields(&[(header::CONTENT_TYPE, "text/html; charset=iso-8859-1")]);
    let rewritten = View::Simple.rewrite((&headers, page), links, None).unwrap();
    let expected =
        b"<title>caf\xe9 \xff</title><a href=\"/https/index.example/p/%C3%A9.zip\" title='\xe8'>\xc3\x28</a>";
    assert!(rewritten.as_deref() == Some(&expected[..]), "{rewritten:?}");
}

#[test]
fn pep691_a_json_page_changes_in_its_addresses_alone() {
    let page =
        r#"{ "files" : [ {"z":1.0,"url":"https://files.example:8443/a.whl" , "hashes":{}} ],  "name":"a"}"#;
    let shown = shown("/pypi/simple/a/", "application/vnd.pypi.simple.v1+json", page).unwrap();
    let expected = page.replace("https://files.example:8443/", "/https/files.example:8443/");
    assert_eq!(shown, expected);
}

#[test]
fn a_packument_changes_in_its_tarballs_alone() {
    let document = r#"{"versions":{"2.0.0":{"dist":{"tarball":"https://npm.example/a/-/a-2.0.0.tgz"}},"1.0.0":{"dist":{"integrity":"sha512-AA==","tarball":"https://npm.example/a/-/a-1.0.0.tgz"}}},"readme":"https://npm.example/"}"#;
    let shown = shown("/npm/a", "application/vnd.npm.install-v1+json", document).unwrap();
    let expected = document.replace("https://npm.example/a", "http://cache:3180/https/npm.example/a");
    assert_eq!(shown, expected);
}

#[test]
fn crates_are_downloaded_through_us_and_nothing_is_published() {
    let config = |dl: &str| {
        let document = format!(r#"{{"dl":"{dl}","api":"https://crates.example"}}"#);
        shown("/crates/config.json", "application/json", &document)
    };
    for (dl, expected) in [
        (
            "https://files.example:8443",
            "http://cache:3180/https/files.example:8443",
        ),
        (
            "https://files.example:8443/c/",
            "http://cache:3180/https/files.example:8443/c/",
        ),
        (
            "https://files.example:8443/c/{crate}/{version}",
            "http://cache:3180/https/files.example:8443/c/{crate}/{version}",
        ),
    ] {
        assert_eq!(config(dl).unwrap(), format!(r#"{{"dl":"{expected}"}}"#));
    }
    assert_eq!(
        config("https://elsewhere.example/c").unwrap_err(),
        ViewError::UnknownHost("https://elsewhere.example/c".to_owned())
    );
}

#[test]
fn what_is_no_document_of_its_kind_is_an_error_or_shown_as_it_is() {
    assert_eq!(shown("/pypi/simple/a/", "text/plain", "hello").unwrap(), "hello");
    assert!(matches!(
        shown("/npm/a", "application/json", "<html>"),
        Err(ViewError::Unreadable { .. })
    ));
}

#[test]
fn a_view_is_asked_for_whole_and_says_nothing_about_the_bytes_it_was_made_of() {
    let asked = fields(&[
        (header::IF_NONE_MATCH, "\"a\""),
        (header::RANGE, "bytes=0-1"),
        (header::ACCEPT_ENCODING, "gzip"),
        (header::AUTHORIZATION, "Basic x"),
    ]);
    let wishes = View::Simple.wishes(&asked);
    assert_eq!(
        wishes,
        fields(&[
            (header::AUTHORIZATION, "Basic x"),
            (header::ACCEPT, "text/html"),
            (header::ACCEPT_ENCODING, "identity"),
        ])
    );
    let stored = fields(&[
        (header::ETAG, "\"origin\""),
        (header::LAST_MODIFIED, "Mon, 01 Jan 2024 00:00:00 GMT"),
        (header::CACHE_CONTROL, "max-age=600"),
    ]);
    let head = View::Packument.head(stored, HeaderValue::from_static("\"ours\""));
    assert_eq!(
        head,
        fields(&[
            (header::CACHE_CONTROL, "max-age=600"),
            (header::ETAG, "\"ours\""),
            (header::VARY, "accept"),
        ])
    );
}
