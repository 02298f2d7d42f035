//! The fetcher against a scripted server on loopback: one reply per connection, so each retry is one line of a script.

mod broken;
mod hostile;

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::StreamExt as _;
use kato_shared::{Digest, api::Problem, durable, trust::TargetFile, verify::VerifyError};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tough::{Transport as _, TransportError, TransportErrorKind};
use url::Url;

use super::*;
use crate::exit::Exit;

/// What the server does with one connection.
enum Reply {
    /// Writes and closes.
    Close(Vec<u8>),
    /// Writes and falls silent.
    Silence(Vec<u8>),
    /// Writes, and then a byte every few milliseconds without end.
    Drip(Vec<u8>),
    /// Answers with what is missing of this body.
    Rest(Vec<u8>),
}

/// Answers connection n with reply n, and notes the heads of the requests.
struct Server {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&heads);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut silent = Vec::new();
            let mut drips = JoinSet::new();
            for reply in replies {
                let (mut stream, _peer) = listener.accept().await.unwrap();
                let head = head(&mut stream).await;
                noted.lock().unwrap().push(head.clone());
                match reply {
                    Reply::Close(bytes) => {
                        stream.write_all(&bytes).await.unwrap();
                        stream.shutdown().await.unwrap();
                    }
                    Reply::Silence(bytes) => {
                        stream.write_all(&bytes).await.unwrap();
                        silent.push(stream);
                    }
                    Reply::Rest(body) => {
                        let range = head.lines().find_map(|line| line.strip_prefix("range: bytes="));
                        let start = range.and_then(|range| range.strip_suffix('-')?.parse().ok());
                        if let Reply::Close(bytes) = partial(&body, start.unwrap()) {
                            stream.write_all(&bytes).await.unwrap();
                        }
                    }
                    Reply::Drip(bytes) => {
                        stream.write_all(&bytes).await.unwrap();
                        drips.spawn(drip(stream));
                    }
                }
            }
            // Keeps silent connections open; a request too many waits for ever and fails the test by its timeout.
            std::future::pending::<()>().await;
        });
        Self {
            address,
            heads,
            _tasks: tasks,
        }
    }

    fn url(&self) -> Url {
        Url::parse(&format!("http://{}/targets/x", self.address)).unwrap()
    }

    /// The values of `name` in the requests so far; an empty text where it is missing.
    fn header(&self, name: &str) -> Vec<String> {
        let heads = self.heads.lock().unwrap();
        heads
            .iter()
            .map(|head| {
                head.lines()
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                    .unwrap_or_default()
                    .to_owned()
            })
            .collect()
    }

    fn requests(&self) -> usize {
        self.heads.lock().unwrap().len()
    }

    fn as_cache(&self) -> Fetcher {
        Fetcher::new(Route::Cache(
            Url::parse(&format!("http://{}/", self.address)).unwrap(),
        ))
        .unwrap()
    }
}

/// A byte every 20 ms, until nobody takes it.
async fn drip(mut stream: TcpStream) {
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    loop {
        tick.tick().await;
        if stream.write_all(b"x").await.is_err() {
            return;
        }
    }
}

async fn head(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(bytes).unwrap()
}

fn reply(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A whole answer with an entity tag, of which only `sent` bytes of the body arrive.
fn ok(body: &[u8], sent: usize) -> Vec<u8> {
    let headers = format!("ETag: \"v1\"\r\nContent-Length: {}\r\n", body.len());
    reply("200 OK", &headers, &body[..sent])
}

fn partial(body: &[u8], start: usize) -> Reply {
    let (last, size) = (body.len() - 1, body.len());
    let headers = format!(
        "ETag: \"v1\"\r\nContent-Range: bytes {start}-{last}/{size}\r\nContent-Length: {}\r\n",
        size - start
    );
    Reply::Close(reply("206 Partial Content", &headers, &body[start..]))
}

fn problem(status: &str, kind: &str) -> Reply {
    let problem = Problem {
        kind: kind.into(),
        title: "t".into(),
        status: 504,
        detail: "no route to h.example".into(),
        hint: None,
    };
    let body = serde_json::to_vec(&problem).unwrap();
    let headers = format!(
        "Content-Type: application/problem+json\r\nContent-Length: {}\r\n",
        body.len()
    );
    Reply::Close(reply(status, &headers, &body))
}

fn body() -> Vec<u8> {
    (0..100_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn file(url: Url, body: &[u8]) -> TargetFile {
    TargetFile {
        name: "x".into(),
        digest: Digest::of(body),
        size: body.len() as u64,
        url,
    }
}

fn direct() -> Fetcher {
    let timeouts = Timeouts {
        connect: Duration::from_secs(5),
        read: Duration::from_millis(300),
        ..Timeouts::default()
    };
    Fetcher::with_timeouts(Route::Direct, timeouts).unwrap()
}

async fn get(fetcher: &Fetcher, file: &TargetFile, staging: &Path) -> Result<Vec<u8>, FetchError> {
    let path = fetcher.download(file, staging, &|_, _| ()).await?;
    // Nothing but the file is left.
    assert_eq!(std::fs::read_dir(staging).unwrap().count(), 1);
    Ok(std::fs::read(path).unwrap())
}

#[tokio::test]
async fn r42_a_download_that_breaks_off_is_continued_where_it_stopped() {
    let body = body();
    let staging = tempfile::tempdir().unwrap();
    let server = Server::start(vec![Reply::Close(ok(&body, 150_000)), partial(&body, 150_000)]).await;
    let received = get(&direct(), &file(server.url(), &body), staging.path())
        .await
        .unwrap();
    assert_eq!(received, body);
    assert_eq!(server.header("range"), ["", "bytes=150000-"]);
    assert_eq!(server.header("if-range"), ["", "\"v1\""]);
    assert_eq!(server.header("accept-encoding"), ["identity", "identity"]);
}

#[tokio::test]
async fn c15_a_partial_file_of_an_earlier_process_is_continued() {
    let body = body();
    let staging = tempfile::tempdir().unwrap();
    let part = staging.path().join(format!("{}.part", Digest::of(&body).hex()));
    durable::write(&part, &body[..100_000], 0o644).unwrap();
    let server = Server::start(vec![partial(&body, 100_000)]).await;
    let received = get(&direct(), &file(server.url(), &body), staging.path())
        .await
        .unwrap();
    assert_eq!(received, body);
    assert_eq!(server.header("range"), ["bytes=100000-"]);
}

#[tokio::test]
async fn c15_a_server_that_sends_all_of_it_again_is_followed() {
    let body = body();
    let staging = tempfile::tempdir().unwrap();
    let server = Server::start(vec![
        Reply::Close(ok(&body, 1_000)),
        Reply::Close(ok(&body, body.len())),
    ])
    .await;
    let received = get(&direct(), &file(server.url(), &body), staging.path())
        .await
        .unwrap();
    assert_eq!(received, body);
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn c15_a_prefix_that_was_damaged_on_disk_costs_one_fresh_start() {
    let body = body();
    let staging = tempfile::tempdir().unwrap();
    let part = staging.path().join(format!("{}.part", Digest::of(&body).hex()));
    durable::write(&part, &vec![7; 100_000], 0o644).unwrap();
    let server = Server::start(vec![partial(&body, 100_000), Reply::Close(ok(&body, body.len()))]).await;
    let received = get(&direct(), &file(server.url(), &body), staging.path())
        .await
        .unwrap();
    assert_eq!(received, body);
    assert_eq!(server.header("range"), ["bytes=100000-", ""]);
}

#[tokio::test]
async fn a_range_that_cannot_be_satisfied_is_a_fresh_start() {
    let body = body();
    let staging = tempfile::tempdir().unwrap();
    let part = staging.path().join(format!("{}.part", Digest::of(&body).hex()));
    durable::write(&part, &body[..10], 0o644).unwrap();
    let refused = reply("416 Range Not Satisfiable", "Content-Length: 0\r\n", b"");
    let server = Server::start(vec![Reply::Close(refused), Reply::Close(ok(&body, body.len()))]).await;
    let received = get(&direct(), &file(server.url(), &body), staging.path())
        .await
        .unwrap();
    assert_eq!(received, body);
    assert_eq!(server.header("range"), ["bytes=10-", ""]);
}

#[tokio::test]
async fn a_file_that_is_there_and_good_costs_no_request_and_a_bad_one_is_replaced() {
    let body = body();
    let staging = tempfile::tempdir().unwrap();
    let server = Server::start(vec![Reply::Close(ok(&body, body.len()))]).await;
    let target = file(server.url(), &body);
    let path = staging.path().join(target.digest.hex());
    durable::write(&path, &vec![0; body.len()], 0o644).unwrap();
    assert_eq!(get(&direct(), &target, staging.path()).await.unwrap(), body);
    assert_eq!(get(&direct(), &target, staging.path()).await.unwrap(), body);
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn r42_a_line_that_falls_silent_is_given_up_and_continued() {
    let body = body();
    let staging = tempfile::tempdir().unwrap();
    let server = Server::start(vec![Reply::Silence(ok(&body, 200_000)), partial(&body, 200_000)]).await;
    let received = get(&direct(), &file(server.url(), &body), staging.path())
        .await
        .unwrap();
    assert_eq!(received, body);
}

#[tokio::test]
async fn r55_wrong_bytes_from_the_cache_name_both_digests_the_url_and_the_remedy() {
    let (body, mut wrong) = (body(), body());
    wrong[0] ^= 1;
    let staging = tempfile::tempdir().unwrap();
    let server = Server::start(vec![Reply::Close(ok(&wrong, wrong.len()))]).await;
    let origin: Url = "https://h.example/targets/x".parse().unwrap();
    let error = get(&server.as_cache(), &file(origin.clone(), &body), staging.path())
        .await
        .unwrap_err();
    let text = error.to_string();
    for part in [
        Digest::of(&body).to_string(),
        Digest::of(&wrong).to_string(),
        format!("http://{}/https/h.example/targets/x", server.address),
    ] {
        assert!(text.contains(&part), "{text}");
    }
    assert_eq!(error.exit(), Exit::Trust);
    assert!(
        error
            .hint()
            .contains(&format!("kato-proxy purge --prefix {origin}")),
        "{}",
        error.hint()
    );
    assert_eq!(server.requests(), 1);
    assert_eq!(std::fs::read_dir(staging.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn more_bytes_than_promised_are_refused_announced_or_not() {
    let body = body();
    let longer = [body.as_slice(), b"!"].concat();
    for answer in [ok(&longer, 0), reply("200 OK", "", &longer)] {
        let staging = tempfile::tempdir().unwrap();
        let server = Server::start(vec![Reply::Close(answer)]).await;
        let error = get(&direct(), &file(server.url(), &body), staging.path())
            .await
            .unwrap_err();
        let FetchError::Size { source, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(source, &VerifyError::TooLong { expected: 400_000 });
        assert_eq!(error.exit(), Exit::Trust);
    }
}

#[tokio::test]
async fn r42_no_means_no_and_not_now_means_again() {
    let body = body();
    let staging = tempfile::tempdir().unwrap();
    let empty =
        |status: &str, more: &str| Reply::Close(reply(status, &format!("Content-Length: 0\r\n{more}"), b""));
    let server = Server::start(vec![empty("404 Not Found", "")]).await;
    let error = get(&direct(), &file(server.url(), &body), staging.path())
        .await
        .unwrap_err();
    assert!(matches!(error, FetchError::Status { status: 404, .. }), "{error}");
    let server = Server::start(vec![
        empty("503 Service Unavailable", ""),
        empty("429 Too Many Requests", "Retry-After: 0\r\n"),
        Reply::Close(ok(&body, body.len())),
    ])
    .await;
    get(&direct(), &file(server.url(), &body), staging.path())
        .await
        .unwrap();
    assert_eq!(server.requests(), 3);
}

#[tokio::test]
async fn r55_a_dead_cache_a_cache_that_may_not_ask_and_a_dead_upstream_are_three_errors() {
    let body = body();
    let origin: Url = "https://h.example/x".parse().unwrap();
    let staging = tempfile::tempdir().unwrap();
    let server = Server::start(vec![problem("504 Gateway Timeout", Problem::OFFLINE)]).await;
    let not_held = get(&server.as_cache(), &file(origin.clone(), &body), staging.path())
        .await
        .unwrap_err();
    assert!(matches!(not_held, FetchError::NotInCache { .. }), "{not_held}");
    assert!(not_held.hint().contains("--prepare"));

    let replies = (0..5).map(|_| problem("502 Bad Gateway", "urn:kato:problem:upstream-unreachable"));
    let server = Server::start(replies.collect()).await;
    let upstream = get(&server.as_cache(), &file(origin.clone(), &body), staging.path())
        .await
        .unwrap_err();
    assert!(
        matches!(&upstream, FetchError::Upstream { detail, .. } if detail == "no route to h.example"),
        "{upstream}"
    );

    let fetcher = server.as_cache();
    drop(server);
    let dead = get(&fetcher, &file(origin, &body), staging.path())
        .await
        .unwrap_err();
    assert!(
        matches!(&dead, FetchError::Unreachable { is_cache: true, .. }),
        "{dead}"
    );
    for error in [&not_held, &upstream, &dead] {
        assert_eq!(error.exit(), Exit::TryAgain);
    }
    assert!(not_held.hint() != upstream.hint() && upstream.hint() != dead.hint());
}

#[tokio::test]
async fn c13_a_file_larger_than_the_disk_is_refused_before_any_request() {
    let staging = tempfile::tempdir().unwrap();
    let server = Server::start(Vec::new()).await;
    let target = TargetFile {
        size: u64::MAX / 2,
        ..file(server.url(), b"")
    };
    let error = direct()
        .download(&target, staging.path(), &|_, _| ())
        .await
        .unwrap_err();
    assert!(matches!(error, FetchError::DiskFull { .. }), "{error}");
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn progress_never_goes_beyond_the_size_and_ends_there() {
    let body = body();
    let staging = tempfile::tempdir().unwrap();
    let server = Server::start(vec![Reply::Close(ok(&body, 150_000)), partial(&body, 150_000)]).await;
    let seen = Mutex::new(Vec::new());
    let progress = |received, size| seen.lock().unwrap().push((received, size));
    direct()
        .download(&file(server.url(), &body), staging.path(), &progress)
        .await
        .unwrap();
    let seen = seen.into_inner().unwrap();
    assert!(seen.is_sorted() && seen.iter().all(|(received, size)| received <= size));
    assert_eq!(seen.last(), Some(&(400_000, 400_000)));
}

#[tokio::test]
async fn rfc9111_s5_2_1_1_timestamp_and_next_root_must_be_new_and_for_a_fill_the_newest() {
    let answers = (0..4).map(|_| Reply::Close(ok(b"{}", 2)));
    let server = Server::start(answers.collect()).await;
    let at = |path: &str| Url::parse(&format!("http://{}/metadata/{path}", server.address)).unwrap();
    let (node, fill) = (direct(), direct().revalidating());
    for (fetcher, name) in [
        (&node, "timestamp.json"),
        (&fill, "timestamp.json"),
        (&fill, "2.root.json"),
        (&fill, "2.snapshot.json"),
    ] {
        drop(fetcher.fetch(at(name)).await.unwrap());
    }
    assert_eq!(
        server.header("cache-control"),
        ["max-age=60", "max-age=0", "max-age=0", "max-stale"]
    );
}

#[tokio::test]
async fn metadata_that_breaks_off_is_continued_and_absence_is_told_from_refusal() {
    let body = body();
    let server = Server::start(vec![Reply::Close(ok(&body, 150_000)), partial(&body, 150_000)]).await;
    let stream = direct().fetch(server.url()).await.unwrap();
    let pieces: Vec<_> = stream.map(Result::unwrap).collect().await;
    assert_eq!(pieces.concat(), body);

    let absent = Reply::Close(reply("404 Not Found", "Content-Length: 0\r\n", b""));
    let forbidden = Reply::Close(reply("403 Forbidden", "Content-Length: 0\r\n", b""));
    let refused = problem("403 Forbidden", "urn:kato:problem:not-configured");
    let server = Server::start(vec![absent, forbidden, refused]).await;
    let mut kinds = Vec::new();
    for _ in 0..3 {
        kinds.push(direct().fetch(server.url()).await.map(|_| ()).unwrap_err().kind());
    }
    let absent = TransportErrorKind::FileNotFound;
    assert_eq!(kinds, [absent, absent, TransportErrorKind::Other]);
}
