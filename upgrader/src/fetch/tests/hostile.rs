//! Servers that hold us up or send us around.

use super::*;

/// As [`direct`], with a floor that a drip does not reach within half a second.
fn impatient() -> Fetcher {
    let timeouts = Timeouts {
        read: Duration::from_millis(800),
        floor: Floor {
            bytes: 1000,
            window: Duration::from_millis(400),
        },
        document: Duration::from_millis(600),
        ..Timeouts::default()
    };
    Fetcher::with_timeouts(Route::Direct, timeouts).unwrap()
}

#[tokio::test]
async fn c15_a_server_that_drips_is_cut_off_and_another_goes_on_from_there() {
    // The drips are the body's own bytes.
    let body = vec![b'x'; 400_000];
    let staging = tempfile::tempdir().unwrap();
    let server = Server::start(vec![Reply::Drip(ok(&body, 100_000)), Reply::Rest(body.clone())]).await;
    let received = get(&impatient(), &file(server.url(), &body), staging.path()).await;
    assert_eq!(received.unwrap(), body);
    // The first window had the 100 000 bytes, the second only drips.
    let range = server.header("range").pop().unwrap();
    let start: u64 = range
        .strip_prefix("bytes=")
        .unwrap()
        .strip_suffix('-')
        .unwrap()
        .parse()
        .unwrap();
    assert!((100_001..101_000).contains(&start), "{range}");
}

#[tokio::test]
async fn c15_one_that_only_drips_ends_the_run_soon_with_what_to_do() {
    let body = vec![b'x'; 400_000];
    let staging = tempfile::tempdir().unwrap();
    let weak = |_| {
        Reply::Drip(reply(
            "200 OK",
            &format!("Content-Length: {}\r\n", body.len()),
            b"",
        ))
    };
    let server = Server::start((0..3).map(weak).collect()).await;
    let error = get(&impatient(), &file(server.url(), &body), staging.path())
        .await
        .unwrap_err();
    assert!(
        matches!(error, FetchError::TooSlow { received, expected: Some(1000), .. } if received < 100),
        "{error}"
    );
    assert_eq!(server.requests(), 3);
    assert_eq!(error.exit(), Exit::TryAgain);
    assert!(
        error
            .to_string()
            .contains("bytes in 400ms, expected at least 1000"),
        "{error}"
    );
    assert!(error.hint().contains("`min_speed`"), "{}", error.hint());
}

#[tokio::test]
async fn c15_a_thin_line_above_the_floor_is_no_error() {
    let body = vec![b'x'; 60];
    let staging = tempfile::tempdir().unwrap();
    let server = Server::start(vec![Reply::Drip(ok(&body, 0))]).await;
    let timeouts = Timeouts {
        floor: Floor {
            bytes: 2,
            window: Duration::from_millis(400),
        },
        ..Timeouts::default()
    };
    let fetcher = Fetcher::with_timeouts(Route::Direct, timeouts).unwrap();
    assert_eq!(
        get(&fetcher, &file(server.url(), &body), staging.path())
            .await
            .unwrap(),
        body
    );
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn c15_a_document_that_drips_has_a_deadline_with_all_its_attempts() {
    let server = Server::start(vec![Reply::Drip(ok(&vec![b'x'; 60_000], 10))]).await;
    let mut url = server.url();
    url.set_path("/metadata/timestamp.json");
    let failed = impatient().fetch(url.clone()).await.map(|_| ()).unwrap_err();
    assert_eq!(failed.kind(), TransportErrorKind::Other);
    let failure = trust_failure(TrustError::Unreachable {
        url: url.into(),
        source: Box::new(failed),
    });
    assert_eq!(failure.exit, Exit::TryAgain);
    let text = failure.source.to_string();
    assert!(
        text.contains("comes too slowly: ") && text.ends_with("bytes in 600ms, expected all of it"),
        "{text}"
    );
    assert!(failure.hint.unwrap().contains("`document_timeout`"));
}

#[tokio::test]
async fn c15_a_head_that_drips_is_a_server_that_does_not_answer() {
    let staging = tempfile::tempdir().unwrap();
    let heads = (0..5).map(|_| Reply::Drip(b"HTTP/1.1 200 OK\r\nx: ".to_vec()));
    let server = Server::start(heads.collect()).await;
    let error = get(&direct(), &file(server.url(), b"x"), staging.path())
        .await
        .unwrap_err();
    assert!(matches!(error, FetchError::Unreachable { .. }), "{error}");
    assert_eq!(server.requests(), 5);
}

fn redirect(to: &str) -> Reply {
    Reply::Close(reply(
        "302 Found",
        &format!("Location: {to}\r\nContent-Length: 0\r\n"),
        b"",
    ))
}

#[tokio::test]
async fn r55_a_redirect_is_followed_and_an_error_behind_it_says_who_answered() {
    let body = body();
    let staging = tempfile::tempdir().unwrap();
    let absent = || Reply::Close(reply("404 Not Found", "Content-Length: 0\r\n", b""));
    let mirror = Server::start(vec![Reply::Close(ok(&body, body.len())), absent()]).await;
    let away = || redirect(&format!("http://{}/elsewhere", mirror.address));
    let server = Server::start(vec![away(), away()]).await;
    let target = file(server.url(), &body);
    assert_eq!(get(&direct(), &target, staging.path()).await.unwrap(), body);
    std::fs::remove_file(staging.path().join(target.digest.hex())).unwrap();
    let error = get(&direct(), &target, staging.path()).await.unwrap_err();
    let text = error.to_string();
    let from_to = format!(
        "{} (redirected to http://{}/elsewhere) was answered with status 404",
        server.url(),
        mirror.address
    );
    assert!(text.contains(&from_to), "{text}");
    assert!(
        error
            .hint()
            .contains(&format!("it was {} that answered", mirror.address)),
        "{}",
        error.hint()
    );
}

#[tokio::test]
async fn r55_a_redirect_to_a_host_that_is_not_there_names_that_host() {
    let staging = tempfile::tempdir().unwrap();
    let gone = Server::start(Vec::new()).await;
    let address = gone.address;
    drop(gone);
    let server = Server::start((0..5).map(|_| redirect(&format!("http://{address}/x"))).collect()).await;
    let error = get(&direct(), &file(server.url(), b"x"), staging.path())
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with(&format!("the server {address} does not answer")),
        "{error}"
    );
    assert!(
        error.hint().contains(&format!("sends its clients to {address}")),
        "{}",
        error.hint()
    );
}

#[tokio::test]
async fn r55_redirects_in_a_circle_on_and_on_and_to_nowhere_are_said_to_be_so() {
    let staging = tempfile::tempdir().unwrap();
    let endless = (1..=6).map(|n| redirect(&format!("/{n}"))).collect();
    for (script, requests, why) in [
        (
            vec![redirect("/b"), redirect("/targets/x")],
            2,
            "/targets/x, where it came from, in a circle",
        ),
        (endless, 6, "/6, and on and on"),
        (
            vec![redirect("file:///etc/passwd")],
            1,
            "file:///etc/passwd, which is no address that can be asked",
        ),
    ] {
        let server = Server::start(script).await;
        let error = get(&direct(), &file(server.url(), b"x"), staging.path())
            .await
            .unwrap_err();
        assert!(
            matches!(error, FetchError::Redirects { .. }) && error.to_string().ends_with(why),
            "{error}"
        );
        assert_eq!((server.requests(), error.exit()), (requests, Exit::TryAgain));
    }
}

/// A status, its fields, how often it is asked for, and what the operator is told to do.
#[rustfmt::skip]
const REMEDIES: &[(&str, &str, usize, &str)] = &[
    ("300 Multiple Choices", "", 1, "without saying where to"),
    ("302 Found", "", 1, "without saying where to"),
    ("401 Unauthorized", "", 1, "who may read it"),
    ("403 Forbidden", "", 1, "who may read it"),
    ("404 Not Found", "", 1, "a publication may be under way"),
    ("407 Proxy Authentication Required", "", 1, "the proxy of the environment wants credentials"),
    ("410 Gone", "", 1, "a publication may be under way"),
    ("429 Too Many Requests", "Retry-After: 0\r\n", 5, "run the same command again later"),
    ("429 Too Many Requests", "Retry-After: 3600\r\n", 1, "run the same command again after 20"),
    ("500 Internal Server Error", "", 5, "run the same command again later"),
    ("502 Bad Gateway", "", 5, "run the same command again later"),
    ("503 Service Unavailable", "", 5, "run the same command again later"),
    ("503 Service Unavailable", "Retry-After: 86400\r\n", 1, "run the same command again after 20"),
    ("503 Service Unavailable", "Retry-After: Fri, 31 Dec 2399 23:59:59 GMT\r\n", 1, "after 2399-12-31T"),
    ("503 Service Unavailable", "Retry-After: 18446744073709551615\r\n", 1, "after 9999-12-"),
];

#[tokio::test]
async fn r55_each_answer_has_its_remedy() {
    let staging = tempfile::tempdir().unwrap();
    for (status, fields, requests, remedy) in REMEDIES {
        let answer = || Reply::Close(reply(status, &format!("Content-Length: 0\r\n{fields}"), b""));
        let server = Server::start((0..*requests).map(|_| answer()).collect()).await;
        let error = get(&direct(), &file(server.url(), b"x"), staging.path())
            .await
            .unwrap_err();
        assert!(error.hint().contains(remedy), "{status}: {}", error.hint());
        assert!(
            error
                .to_string()
                .contains(&format!("with status {}", &status[..3])),
            "{error}"
        );
        assert_eq!(
            (server.requests(), error.exit()),
            (*requests, Exit::TryAgain),
            "{status} {fields}"
        );
    }
}

#[tokio::test]
async fn c11_a_page_in_the_place_of_a_file_is_called_one_and_not_an_altered_file() {
    let body = vec![b'x'; 400_000];
    let html = b"<!DOCTYPE html><title>Sign in to the guest network</title>".to_vec();
    let of_same_size = [html.clone(), vec![b' '; body.len() - html.len()]].concat();
    let typed = |page: &[u8]| {
        let head = format!("Content-Type: text/html\r\nContent-Length: {}\r\n", page.len());
        Reply::Close(reply("200 OK", &head, page))
    };
    let untyped = Reply::Close(reply("200 OK", "", &html));
    for answer in [typed(&html), typed(&of_same_size), untyped] {
        let staging = tempfile::tempdir().unwrap();
        let server = Server::start(vec![answer, Reply::Close(ok(&body, body.len()))]).await;
        let file = file(server.url(), &body);
        let error = get(&impatient(), &file, staging.path()).await.unwrap_err();
        assert!(
            matches!(error, FetchError::Page { is_cache: false, .. }),
            "{error:?}"
        );
        assert_eq!(error.exit(), Exit::TryAgain);
        assert!(error.hint().contains("captive portal"), "{}", error.hint());
        // The same command again, behind the login.
        assert_eq!(get(&impatient(), &file, staging.path()).await.unwrap(), body);
    }
    let server = Server::start(vec![typed(&html)]).await;
    let url = server.url().join("metadata/timestamp.json").unwrap();
    let error = impatient().fetch(url).await.map(|_| ()).unwrap_err();
    assert!(
        kato_shared::chain::Chain(&error)
            .to_string()
            .contains("answered with a page"),
        "{error:?}"
    );
}
