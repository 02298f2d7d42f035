//! Interim responses of an origin, on raw sockets: no HTTP client shows them.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
    time::timeout,
};

use crate::{DEADLINE, Proxy};

const HINT: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x\r\nX: 1\r\n\r\n";
const FINAL: &str = "HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nContent-Length: 5\r\n\r\nhello";

/// Reads until what was read ends with `end`.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    let reading = async {
        while !read.ends_with(end.as_bytes()) {
            read.push(stream.read_u8().await.unwrap());
        }
    };
    let in_time = timeout(DEADLINE, reading).await.is_ok();
    let read = String::from_utf8_lossy(&read).into_owned();
    assert!(in_time, "no {end:?} after {read:?}");
    read.to_ascii_lowercase()
}

async fn ask(client: &mut TcpStream, version: &str) {
    let request = format!("GET /o/a {version}\r\nHost: proxy\r\nConnection: keep-alive\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
}

/// An origin that hints at once, and answers one request when it is told to.
pub async fn origin() -> (std::net::SocketAddr, oneshot::Sender<()>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (answer, told) = oneshot::channel();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(HINT.as_bytes()).await.unwrap();
        told.await.unwrap();
        stream.write_all(FINAL.as_bytes()).await.unwrap();
        // Open until the test ends: nobody asks again.
        std::future::pending::<()>().await;
    });
    (address, answer, serving)
}

#[tokio::test]
async fn rfc9110_s15_2_an_interim_response_comes_before_the_answer_and_is_not_stored() {
    let (address, answer, _serving) = origin().await;
    let proxy = Proxy::start(address).await;
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    ask(&mut client, "HTTP/1.1").await;
    // The origin has not answered yet.
    let hint = read_until(&mut client, "\r\n\r\n").await;
    assert!(hint.starts_with("http/1.1 103 early hints\r\n"), "{hint}");
    assert!(hint.contains("link: </a.css>; rel=preload\r\n") && hint.contains("via: 1.1 kato-"));
    assert!(!hint.contains("x: 1"), "{hint}");
    answer.send(()).unwrap();
    let first = read_until(&mut client, "hello").await;
    assert!(
        first.starts_with("http/1.1 200 ok\r\n") && !first.contains("link:"),
        "{first}"
    );
    // On the same connection: from the store, and without the hint.
    ask(&mut client, "HTTP/1.1").await;
    let second = read_until(&mut client, "hello").await;
    assert!(
        second.starts_with("http/1.1 200 ok\r\n") && !second.contains("link:"),
        "{second}"
    );
    assert!(second.contains("cache-status: kato; hit"), "{second}");
}

#[tokio::test]
async fn rfc9110_s15_2_a_client_of_http_1_0_gets_the_answer_alone() {
    let (address, answer, _serving) = origin().await;
    let proxy = Proxy::start(address).await;
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    ask(&mut client, "HTTP/1.0").await;
    answer.send(()).unwrap();
    let read = read_until(&mut client, "hello").await;
    assert!(read.starts_with("http/1.0 200 ok\r\n"), "{read}");
}
