//! The short way: the same requests get the same answers on it and through hyper.

use std::collections::BTreeMap;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    DEADLINE, Proxy, body, content,
    origin::{Origin, Step, head, reply},
};

/// Makes hyper answer, and changes nothing else: the field is for one hop only.
const BY_HYPER: &str = "TE: trailers\r\n";

/// A connection on which bytes are written as they stand here.
struct Raw {
    stream: TcpStream,
    read: Vec<u8>,
}

/// An answer, its fields sorted.
#[derive(Debug, PartialEq)]
struct Received {
    status: String,
    fields: BTreeMap<String, Vec<String>>,
    body: Vec<u8>,
}

impl Raw {
    async fn to(proxy: &Proxy) -> Self {
        Self {
            stream: TcpStream::connect(proxy.address).await.unwrap(),
            read: Vec::new(),
        }
    }

    async fn ask(&mut self, head: &str) -> Received {
        self.stream.write_all(head.as_bytes()).await.unwrap();
        self.answer(head.starts_with("HEAD")).await
    }

    async fn more(&mut self) {
        let count = timeout(DEADLINE, self.stream.read_buf(&mut self.read))
            .await
            .unwrap()
            .unwrap();
        assert!(
            count > 0,
            "closed after {:?}",
            String::from_utf8_lossy(&self.read)
        );
    }

    async fn answer(&mut self, to_head: bool) -> Received {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await;
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().to_owned();
        let mut fields = BTreeMap::<String, Vec<String>>::new();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            fields.entry(name.into()).or_default().push(value.into());
        }
        if fields.contains_key("transfer-encoding") && !to_head {
            let body = self.chunks().await;
            return Received { status, fields, body };
        }
        let has_body = !to_head && !status.contains(" 304 ") && !status.contains(" 204 ");
        let announced = fields
            .get("content-length")
            .map_or(0, |length| length[0].parse().unwrap());
        let length = if has_body { announced } else { 0 };
        while self.read.len() < length {
            self.more().await;
        }
        let body = self.read.drain(..length).collect();
        Received { status, fields, body }
    }
}

impl Raw {
    /// A body in chunks, which must end as such (RFC 9112 §7.1).
    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = loop {
                if let Some(at) = self.read.windows(2).position(|two| two == b"\r\n") {
                    break self.read.drain(..at + 2).collect::<Vec<_>>();
                }
                self.more().await;
            };
            let size = std::str::from_utf8(&line).unwrap().trim_end();
            let size = usize::from_str_radix(size, 16).unwrap();
            while self.read.len() < size + 2 {
                self.more().await;
            }
            body.extend(self.read.drain(..size));
            assert_eq!(self.read.drain(..2).collect::<Vec<_>>(), b"\r\n");
            if size == 0 {
                return body;
            }
        }
    }

    /// Everything up to the end of the connection.
    async fn rest(&mut self) -> Vec<u8> {
        timeout(DEADLINE, self.stream.read_to_end(&mut self.read))
            .await
            .unwrap()
            .unwrap();
        std::mem::take(&mut self.read)
    }
}

impl Received {
    /// Without what another moment and another choice by chance may change; those are held to what they may be.
    fn timeless(mut self) -> Self {
        for (name, before) in [("age", ""), ("cache-status", "kato; hit; ttl=")] {
            if let Some(values) = self.fields.get_mut(name) {
                let value = values.last_mut().unwrap();
                let number: u64 = value.strip_prefix(before).unwrap().parse().unwrap();
                assert!(number <= 3600, "{value}");
                before.clone_into(value);
            }
        }
        self
    }
}

async fn origin() -> Origin {
    let (middle, large) = (content(70_000), content(400_000));
    Origin::start(move |asked| {
        let fields = [
            ("Cache-Control", "max-age=3600"),
            ("ETag", "\"one\""),
            ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("X-Twice", "a"),
            ("X-Twice", "b"),
            ("Cache-Status", "theirs; hit; ttl=7"),
            ("Content-Type", "text/x"),
        ];
        match asked.path.as_str() {
            "/empty" => reply("200 OK", &fields, b""),
            "/gone" => reply("404 Not Found", &fields, b"not here"),
            "/middle" => reply("200 OK", &fields, &middle),
            "/large" => reply("200 OK", &fields, &large),
            "/vary" => reply(
                "200 OK",
                &[fields[0], ("Vary", "Accept-Encoding")],
                asked.field("accept-encoding").unwrap_or("none").as_bytes(),
            ),
            _ => reply("200 OK", &fields, b"small"),
        }
    })
    .await
}

#[tokio::test]
async fn the_short_way_and_the_long_one_give_the_same_answers() {
    let origin = origin().await;
    let proxy = Proxy::start(origin.address).await;
    for path in ["/small?q", "/empty", "/gone", "/middle", "/large", "/vary"] {
        body(proxy.get(path).await).await;
    }
    let asked = origin.asked().len();
    let (mut short, mut long) = (Raw::to(&proxy).await, Raw::to(&proxy).await);
    let fields = [
        "",
        "Range: bytes=1-3\r\n",
        "Range: bytes=-2\r\n",
        "Range: bytes=900000-\r\n",
        "Range: bytes=0-0\r\nIf-Range: \"two\"\r\n",
        "If-None-Match: W/\"one\"\r\n",
        "If-None-Match: \"two\"\r\n",
        "If-Match: \"two\"\r\n",
        "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
        "Cache-Control: max-age=600\r\n",
        "Cache-Control: only-if-cached, max-stale\r\n",
        "Accept-Encoding:\r\nX-Forwarded-Host: evil.example\r\n",
        "Connection: keep-alive\r\nAuthorization: Basic YTpi\r\n",
    ];
    for (path, method) in ["/small?q", "/empty", "/gone", "/middle", "/large", "/vary"]
        .into_iter()
        .flat_map(|path| [(path, "GET"), (path, "HEAD")])
    {
        for field in fields
            .iter()
            .filter(|field| path != "/vary" || !field.contains("Encoding"))
        {
            for target in [format!("/o{path}"), format!("http://{}{path}", origin.address)] {
                let line = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", origin.address);
                let expected = long.ask(&format!("{line}{BY_HYPER}{field}\r\n")).await.timeless();
                for _again in 0..2 {
                    let received = short.ask(&format!("{line}{field}\r\n")).await.timeless();
                    assert_eq!(received.status, expected.status, "{line}{field}");
                    assert_eq!(received.fields, expected.fields, "{line}{field}");
                    assert!(received.body == expected.body, "{line}{field}");
                }
            }
        }
    }
    assert_eq!(origin.asked().len(), asked);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order_and_a_miss_among_them_too() {
    let origin = origin().await;
    let proxy = Proxy::start(origin.address).await;
    body(proxy.get("/a").await).await;
    body(proxy.get("/large").await).await;
    let order = ["/a", "/large", "/a", "/empty", "/a", "/large", "/middle", "/a"];
    let mut raw = Raw::to(&proxy).await;
    let heads = order
        .map(|path| format!("GET /o{path} HTTP/1.1\r\nHost: h\r\n\r\n"))
        .concat();
    raw.stream.write_all(heads.as_bytes()).await.unwrap();
    for path in order {
        let length = match path {
            "/a" => 5,
            "/empty" => 0,
            "/middle" => 70_000,
            _ => 400_000,
        };
        assert!(
            raw.answer(false).await.body == content(length.max(6))[..length] || length == 5,
            "{path}"
        );
    }
    let stats = proxy.stats().await;
    assert_eq!((stats.requests.hit, stats.requests.miss), (6, 4));
}

#[tokio::test]
async fn what_a_client_was_told_of_counts_at_once_for_requests_with_the_same_head() {
    let origin = Origin::start(|asked| {
        let made = format!("made by {}", asked.method);
        reply("200 OK", &[("Cache-Control", "max-age=3600")], made.as_bytes())
    })
    .await;
    let proxy = Proxy::start(origin.address).await;
    let mut raw = Raw::to(&proxy).await;
    let head = "GET /o/a HTTP/1.1\r\nHost: h\r\n\r\n";
    body(proxy.get("/a").await).await;
    for _again in 0..3 {
        assert!(raw.ask(head).await.fields["cache-status"][0].contains("hit"));
    }
    let posted = proxy.client.post(proxy.url("/a")).body("x").send().await.unwrap();
    assert_eq!(body(posted).await, b"made by POST");
    let after = raw.ask(head).await;
    assert!(!after.fields["cache-status"][0].contains("hit"), "{after:?}");
    assert_eq!(origin.count("/a"), 3);
}

/// Answers that nobody asked for before, in all shapes; the query keeps one way's from the other's.
async fn cold_origin() -> Origin {
    let large = content(3_000_000);
    Origin::start(move |asked| {
        let path = asked.path.split('?').next().unwrap_or_default();
        let store = (
            "Cache-Control",
            if path.contains("alone") {
                "no-store"
            } else {
                "max-age=3600"
            },
        );
        let date = ("Date", "Sun, 06 Nov 1994 08:49:37 GMT");
        let chunked = |body: &[u8]| {
            let head = head("200 OK", &[store, date, ("Transfer-Encoding", "chunked")]);
            let (one, two) = body.split_at(body.len() / 3);
            let mut bytes = head.into_bytes();
            bytes.extend_from_slice(b"\r\n");
            for part in [one, two] {
                bytes.extend(format!("{:x}\r\n", part.len()).into_bytes());
                bytes.extend_from_slice(part);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
            vec![Step::Send(bytes)]
        };
        match path {
            "/small" | "/small-alone" => reply("200 OK", &[store, date], b"small"),
            "/large" | "/large-alone" => reply("200 OK", &[store, date], &large),
            "/chunked" | "/chunked-alone" => chunked(b"one and two"),
            "/chunked-large" | "/chunked-large-alone" => chunked(&large),
            "/nothing" => reply("204 No Content", &[date], b""),
            "/broken" => vec![
                Step::Send(
                    [
                        head("200 OK", &[date, ("Content-Length", "100000")]).as_bytes(),
                        b"\r\n",
                        &large[..50_000],
                    ]
                    .concat(),
                ),
                Step::Break,
            ],
            _ => reply("404 Not Found", &[store, date], b"none"),
        }
    })
    .await
}

#[tokio::test]
async fn what_is_not_stored_comes_the_same_by_both_ways_and_the_connection_goes_on() {
    let origin = cold_origin().await;
    let proxy = Proxy::start(origin.address).await;
    let (mut short, mut long) = (Raw::to(&proxy).await, Raw::to(&proxy).await);
    for path in [
        "/small",
        "/small-alone",
        "/large",
        "/large-alone",
        "/chunked",
        "/chunked-alone",
        "/chunked-large",
        "/chunked-large-alone",
        "/nothing",
        "/other",
    ] {
        for (nth, field) in ["", "Range: bytes=2-5\r\n", "Cache-Control: no-cache\r\n"]
            .iter()
            .enumerate()
        {
            for method in ["HEAD", "GET"] {
                let line = |way| format!("{method} /o{path}?{way}{nth} HTTP/1.1\r\nHost: h\r\n");
                let expected = long.ask(&format!("{}{BY_HYPER}{field}\r\n", line("l"))).await;
                let received = short.ask(&format!("{}{field}\r\n", line("s"))).await;
                let what = format!("{method} {path} {field}");
                assert_eq!(received.status, expected.status, "{what}");
                assert_eq!(received.fields, expected.fields, "{what}");
                assert!(received.body == expected.body, "{what}");
            }
        }
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_ends_the_connection_on_the_short_way_too() {
    let origin = cold_origin().await;
    let proxy = Proxy::start(origin.address).await;
    for way in ["", BY_HYPER] {
        let mut raw = Raw::to(&proxy).await;
        let asked = format!("GET /o/broken HTTP/1.1\r\nHost: h\r\n{way}\r\n");
        raw.stream.write_all(asked.as_bytes()).await.unwrap();
        let rest = raw.rest().await;
        let head = rest.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let text = String::from_utf8_lossy(&rest[..head]).to_ascii_lowercase();
        assert!(
            text.starts_with("http/1.1 200") && text.contains("content-length: 100000"),
            "{text}"
        );
        assert!(rest.len() - head < 100_000 && content(3_000_000).starts_with(&rest[head..]));
    }
}
