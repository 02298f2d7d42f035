//! Answers that break off, from servers that help to go on and from servers that do not.

use super::*;

/// Fields without a strong entity tag: none at all, and what servers that compress give.
const WITHOUT_STRONG: [&str; 2] = ["", "ETag: W/\"v1\"\r\n"];

/// An answer of which only `sent` bytes of the body arrive.
fn cut(fields: &str, body: &[u8], sent: usize) -> Reply {
    let head = format!("{fields}Content-Length: {}\r\n", body.len());
    Reply::Close(reply("200 OK", &head, &body[..sent]))
}

fn document(server: &Server) -> Url {
    Url::parse(&format!("http://{}/metadata/timestamp.json", server.address)).unwrap()
}

/// All that `tough` gets; the last is an error where it fails.
async fn read(fetcher: &Fetcher, url: Url) -> Result<Vec<u8>, (Vec<u8>, TransportError)> {
    let mut stream = match fetcher.fetch(url).await {
        Ok(stream) => stream,
        Err(error) => return Err((Vec::new(), error)),
    };
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(piece) => bytes.extend_from_slice(&piece),
            Err(error) => return Err((bytes, error)),
        }
    }
    Ok(bytes)
}

#[tokio::test]
async fn r42_a_document_that_breaks_off_is_asked_for_again_whatever_its_entity_tag() {
    let body = body();
    for fields in WITHOUT_STRONG {
        let script = vec![
            cut(fields, &body, 150_000),
            cut(fields, &body, 10),
            cut(fields, &body, body.len()),
        ];
        let server = Server::start(script).await;
        let received = read(&direct(), document(&server)).await.unwrap();
        assert_eq!(received, body, "{fields}");
        // Nothing that is known to be the same bytes can be continued.
        assert_eq!(server.header("range"), ["", "", ""], "{fields}");
    }
    let server = Server::start(vec![Reply::Close(ok(&body, 150_000)), partial(&body, 150_000)]).await;
    assert_eq!(read(&direct(), document(&server)).await.unwrap(), body);
    assert_eq!(server.header("range"), ["", "bytes=150000-"]);
    assert_eq!(server.header("if-range"), ["", "\"v1\""]);
}

#[tokio::test]
async fn c15_two_documents_are_never_put_together() {
    let (old, new) = (vec![b'o'; 1000], vec![b'n'; 900]);
    for fields in WITHOUT_STRONG.into_iter().chain(["ETag: \"v1\"\r\n"]) {
        // Published anew between two connections: with a strong tag, `If-Range` has all of the new one sent.
        let script = vec![cut(fields, &old, 500), cut("ETag: \"v2\"\r\n", &new, new.len())];
        let server = Server::start(script).await;
        assert_eq!(read(&direct(), document(&server)).await.unwrap(), new, "{fields}");
    }
}

#[tokio::test]
async fn a_document_whose_rest_cannot_be_had_is_asked_for_whole() {
    let body = body();
    let refused = reply("416 Range Not Satisfiable", "Content-Length: 0\r\n", b"");
    let script = vec![
        Reply::Close(ok(&body, 150_000)),
        Reply::Close(refused),
        Reply::Close(ok(&body, body.len())),
    ];
    let server = Server::start(script).await;
    assert_eq!(read(&direct(), document(&server)).await.unwrap(), body);
    assert_eq!(server.header("range"), ["", "bytes=150000-", ""]);
}

#[tokio::test]
async fn c15_a_document_that_always_breaks_off_ends_the_run_soon_and_says_where_to_look() {
    let body = vec![b'x'; 610];
    let server = Server::start((0..5).map(|_| cut("", &body, 305)).collect()).await;
    let url = document(&server);
    let (given, error) = read(&direct(), url.clone()).await.unwrap_err();
    // Nobody got half of it, and a root that breaks off is a root that could not be had.
    assert_eq!((given, error.kind()), (Vec::new(), TransportErrorKind::Other));
    assert_eq!(server.requests(), 5);
    let failure = trust_failure(TrustError::Unreachable {
        url: url.to_string(),
        source: Box::new(error),
    });
    assert_eq!(failure.exit, Exit::TryAgain);
    let text = failure.source.to_string();
    assert!(
        text.starts_with(&format!("{url} broke off after 305 of 610 bytes")),
        "{text}"
    );
    assert!(failure.hint.unwrap().contains("look for what cuts connections"));
}

#[tokio::test]
async fn c15_a_stream_goes_on_only_where_its_beginning_is_the_same_again() {
    let body = body();
    let script = vec![
        cut("", &body, 150_000),
        cut("", &body, 100_000),
        cut("", &body, body.len()),
    ];
    let server = Server::start(script).await;
    assert_eq!(read(&direct(), server.url()).await.unwrap(), body);
    assert_eq!(server.header("range"), ["", "", ""]);

    for other in [vec![7; body.len()], body[..100_000].to_vec()] {
        let server = Server::start(vec![cut("", &body, 150_000), cut("", &other, other.len())]).await;
        let (given, error) = read(&direct(), server.url()).await.unwrap_err();
        assert_eq!(given, body[..150_000]);
        let text = kato_shared::chain::Chain(&error).to_string();
        assert!(text.contains("broke off after"), "{text}");
    }
}

#[tokio::test]
async fn a_file_that_is_too_long_to_be_held_comes_as_a_stream_and_is_continued_too() {
    let body: Vec<u8> = (0..17 * 1024 * 1024 / 4_u32).flat_map(u32::to_le_bytes).collect();
    let nearly = body.len() - 1000;
    let server = Server::start(vec![cut("", &body, nearly), cut("", &body, body.len())]).await;
    assert!(read(&direct(), document(&server)).await.unwrap() == body);
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn c15_a_download_without_ranges_and_tags_is_begun_anew_and_not_for_ever() {
    let body = body();
    let half = body.len() / 2;
    let staging = tempfile::tempdir().unwrap();
    for fields in WITHOUT_STRONG {
        let script = vec![
            cut(fields, &body, half),
            cut(fields, &body, 1000),
            cut(fields, &body, half),
            cut(fields, &body, body.len()),
        ];
        let server = Server::start(script).await;
        let file = file(server.url(), &body);
        assert_eq!(get(&direct(), &file, staging.path()).await.unwrap(), body);
        std::fs::remove_file(staging.path().join(file.digest.hex())).unwrap();

        let server = Server::start((0..5).map(|_| cut(fields, &body, half)).collect()).await;
        let file = super::file(server.url(), &body);
        let error = get(&direct(), &file, staging.path()).await.unwrap_err();
        let text = error.to_string();
        assert!(text.ends_with("broke off after 200000 of 400000 bytes"), "{text}");
        assert_eq!((server.requests(), error.exit()), (5, Exit::TryAgain));
        assert!(
            error.hint().contains("cannot continue it") && error.hint().contains("cuts connections"),
            "{}",
            error.hint()
        );
        std::fs::remove_dir_all(staging.path()).unwrap();
    }
}
