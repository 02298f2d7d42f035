//! HTTP/2 to clients: what real clients do not do on purpose.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use reqwest::{Method, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use crate::{
    DEADLINE, Proxy, content, interim,
    origin::{Asked, Origin, reply},
};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");

type Request = hyper::Request<Empty<Bytes>>;

/// A connection with prior knowledge, whose windows are as small as `window`; its end is the end of the task.
struct Client {
    send: SendRequest<Empty<Bytes>>,
    running: JoinSet<()>,
}

impl Client {
    async fn connect(proxy: &Proxy, window: u32) -> Self {
        let stream = TcpStream::connect(proxy.address).await.unwrap();
        let (send, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(window)
            .handshake(TokioIo::new(stream))
            .await
            .unwrap();
        let mut running = JoinSet::new();
        running.spawn(async move { drop(connection.await) });
        Self { send, running }
    }

    async fn ask(&mut self, request: Request) -> hyper::Response<hyper::body::Incoming> {
        timeout(DEADLINE, self.send.send_request(request))
            .await
            .unwrap()
            .unwrap()
    }
}

fn get(uri: &str) -> Request {
    hyper::Request::builder().uri(uri).body(Empty::new()).unwrap()
}

#[tokio::test]
async fn rfc9113_s8_3_1_mirror_paths_and_targets_of_upstreams_share_what_is_stored() {
    let origin = Origin::start(|_| reply("200 OK", &[FRESH], b"content")).await;
    let proxy = Proxy::start(origin.address).await;
    let mut client = Client::connect(&proxy, 1 << 16).await;
    for uri in [
        format!("http://{}/o/a", proxy.address),
        "https://cache.example/o/a".to_owned(),
        format!("http://{}/a", origin.address),
    ] {
        let answer = client.ask(get(&uri)).await;
        assert_eq!(answer.status(), 200, "{uri}");
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "content");
    }
    assert_eq!(origin.asked().len(), 1);
    let mut other = get(&format!("http://{}/o/a", proxy.address));
    other
        .headers_mut()
        .insert("host", "elsewhere.example".parse().unwrap());
    assert_eq!(client.ask(other).await.status(), StatusCode::BAD_REQUEST);
}

/// Interim responses are passed over HTTP/1.1 in clear alone; whoever waits for the answer gets it here all the same.
#[tokio::test]
async fn rfc9110_s15_2_an_interim_response_of_the_origin_ends_here_and_the_answer_comes() {
    let (address, answer, _serving) = interim::origin().await;
    let proxy = Proxy::start(address).await;
    let mut client = Client::connect(&proxy, 1 << 16).await;
    answer.send(()).unwrap();
    for _ in 0..2 {
        let said = client.ask(get(&format!("http://{}/o/a", proxy.address))).await;
        assert_eq!(said.status(), 200);
        assert!(said.headers().get("link").is_none());
        assert_eq!(said.into_body().collect().await.unwrap().to_bytes(), "hello");
    }
}

/// Who asks whether to go on with its content, and does not wait for ever, is answered, and the origin gets the content.
#[tokio::test]
async fn rfc9110_s10_1_1_a_client_that_expects_100_is_answered() {
    let length = |asked: &Asked| asked.field("content-length").unwrap_or("none").to_owned();
    let origin = Origin::start(move |asked| reply("200 OK", &[], length(asked).as_bytes())).await;
    let proxy = Proxy::start(origin.address).await;
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let (mut send, connection) = http2::Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let mut running = JoinSet::new();
    running.spawn(async move { drop(connection.await) });
    let request = hyper::Request::post(format!("http://{}/o/a", proxy.address))
        .header("expect", "100-continue")
        .body(Full::new(Bytes::from_static(b"content")))
        .unwrap();
    let said = timeout(DEADLINE, send.send_request(request))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(said.status(), 200);
    assert_eq!(said.into_body().collect().await.unwrap().to_bytes(), "7");
}

#[tokio::test]
async fn rfc9113_s8_5_connect_tunnels_to_configured_hosts_alone() {
    let origin = Origin::start(|_| reply("200 OK", &[], b"through")).await;
    let proxy = Proxy::start(origin.address).await;
    let mut client = Client::connect(&proxy, 1 << 16).await;
    let connect = |authority: &str| {
        let mut request = get(authority);
        *request.method_mut() = Method::CONNECT;
        request
    };
    let refused = client.ask(connect("elsewhere.example:443")).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let answer = client.ask(connect(&origin.address.to_string())).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let tunnel = timeout(DEADLINE, hyper::upgrade::on(answer))
        .await
        .unwrap()
        .unwrap();
    let mut tunnel = TokioIo::new(tunnel);
    tunnel
        .write_all(b"GET /inside HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut inside = [0; 15];
    timeout(DEADLINE, tunnel.read_exact(&mut inside))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&inside, b"HTTP/1.1 200 OK");
    // Other streams of the connection go on beside the tunnel.
    let beside = client
        .ask(get(&format!("http://{}/o/beside", proxy.address)))
        .await;
    assert_eq!(beside.status(), 200);
}

#[tokio::test]
async fn a_stream_whose_client_takes_nothing_is_reset_and_the_others_go_on() {
    let whole = content(1 << 20);
    let sent = whole.clone();
    let origin = Origin::start(move |_| reply("200 OK", &[FRESH], &sent)).await;
    let proxy = Proxy::with(origin.address, |settings| {
        settings.limits.client_progress_timeout = "500ms".parse().unwrap();
        settings.limits.requests = 1;
    })
    .await;
    let mut client = Client::connect(&proxy, 1 << 14).await;
    let uri = format!("http://{}/o/a", proxy.address);
    let stopped = client.ask(get(&uri)).await;
    // The one place is its. Nothing of it is read, and its window stays shut; refusals until it has lost its place.
    let served = async {
        loop {
            let next = client.ask(get(&uri)).await;
            if next.status() == 200 {
                return next.into_body().collect().await.unwrap().to_bytes();
            }
        }
    };
    assert!(timeout(DEADLINE, served).await.unwrap() == whole);
    assert!(stopped.into_body().collect().await.is_err());
}

#[tokio::test]
async fn an_idle_connection_gets_goaway_and_one_with_a_stream_does_not() {
    let origin = Origin::start(|_| reply("200 OK", &[FRESH], b"content")).await;
    let proxy = Proxy::with(origin.address, |settings| {
        settings.limits.idle_timeout = "300ms".parse().unwrap();
        settings.limits.connections = 1;
    })
    .await;
    let mut client = Client::connect(&proxy, 1 << 16).await;
    let answer = client.ask(get(&format!("http://{}/o/a", proxy.address))).await;
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "content");
    timeout(DEADLINE, client.running.join_next()).await.unwrap();
    assert_eq!(proxy.get("/a").await.status(), 200, "the permit came back");
}

/// A frame of HTTP/2 (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[tokio::test]
async fn cve_2023_44487_a_client_that_resets_what_it_asks_for_is_cut_off() {
    const ENHANCE_YOUR_CALM: [u8; 4] = 0xb_u32.to_be_bytes();
    let origin = Origin::start(|_| reply("200 OK", &[FRESH], b"content")).await;
    let proxy = Proxy::start(origin.address).await;
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    let mut flood = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    flood.extend(frame(4, 0, 0, &[]));
    for stream in (1..400).step_by(2) {
        // GET http://a/ from the static table, and its reset.
        flood.extend(frame(1, 0x5, stream, &[0x82, 0x86, 0x84, 0x41, 1, b'a']));
        flood.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
    }
    client.write_all(&flood).await.unwrap();
    let told = async {
        loop {
            let mut head = [0; 9];
            client.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            client.read_exact(&mut payload).await.unwrap();
            if head[3] == 7 {
                return payload;
            }
        }
    };
    let goaway = timeout(DEADLINE, told).await.unwrap();
    assert_eq!(goaway[4..8], ENHANCE_YOUR_CALM);
    assert!(origin.asked().is_empty());
    assert_eq!(proxy.get("/a").await.status(), 200);
}
