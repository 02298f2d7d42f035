//! Requests of HTTP/2 that would be something else once they are written as HTTP/1.1: fields that end their line, fields that
//! frame, lengths that do not hold (RFC 9113 §8.1.1, §8.2, §8.3).
//!
//! Every row is one stream on a connection of its own, in frames and literal fields written by hand. After it an honest client must
//! get its own answer, the origin must have heard of nothing but what the row says, and nothing evil is stored.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::Setup;

/// Long beside anything that loopback does.
const PATIENCE: Duration = Duration::from_secs(20);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// What the static table of HPACK has for `:status: 200` (RFC 7541, appendix A).
const STATUS_200: u8 = 0x80 | 8;

type Fields = &'static [(&'static str, &'static str)];

/// A GET of `/files/a`, as it should be.
const HONEST: Fields = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "c"),
    (":path", "/files/a"),
];

/// The fields of a request, with one in the place of those of the same name, or behind them all.
fn with(name: &'static str, value: &'static str) -> Vec<(&'static str, &'static str)> {
    let mut fields = HONEST.to_vec();
    match fields.iter_mut().find(|field| field.0 == name) {
        Some(field) => field.1 = value,
        None => fields.push((name, value)),
    }
    fields
}

/// A frame (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<Vec<u8>> {
    let length = u32::try_from(payload.len())?.to_be_bytes();
    Ok([&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat())
}

/// Fields as literals that are not indexed, without Huffman's coding (RFC 7541 §6.2.2): every byte arrives as it stands here.
fn block(fields: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            let length = u8::try_from(text.len())?;
            anyhow::ensure!(length < 0x7f, "longer than one byte can say: {text}");
            bytes.push(length);
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    Ok(bytes)
}

/// Whether the stream was answered with 200; anything else refuses it.
async fn is_served(to: SocketAddr, fields: &[(&str, &str)], content: Option<&[u8]>) -> Result<bool> {
    let mut sent = PREFACE.to_vec();
    sent.extend(frame(SETTINGS, 0, 0, &[])?);
    let end = if content.is_none() { END_STREAM } else { 0 };
    sent.extend(frame(HEADERS, END_HEADERS | end, 1, &block(fields)?)?);
    if let Some(content) = content {
        sent.extend(frame(DATA, END_STREAM, 1, content)?);
    }
    let conversation = async {
        let mut stream = TcpStream::connect(to).await?;
        stream.write_all(&sent).await?;
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).await.is_err() {
                // Closed without a word: refused.
                return anyhow::Ok(false);
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length)?];
            stream.read_exact(&mut payload).await?;
            match head[3] {
                HEADERS => return Ok(payload.first() == Some(&STATUS_200)),
                RST_STREAM | GOAWAY => return Ok(false),
                _ => {}
            }
        }
    };
    timeout(PATIENCE, conversation)
        .await
        .context("neither answered nor refused")?
}

/// An attack: its name, its fields, its content.
type Row<'r> = (&'r str, Vec<(&'r str, &'r str)>, Option<&'r [u8]>);

/// Sends every row to a proxy of its own; all of them must be refused, and leave nothing behind.
async fn refuse(rows: Vec<Row<'_>>) -> Result<()> {
    let mut wrong = Vec::new();
    for (name, fields, content) in rows {
        let setup = Setup::start().await?;
        if is_served(setup.proxy.data, &fields, content).await? {
            wrong.push(format!("{name}: served"));
        }
        let asked = setup.origin.asked();
        if !asked.is_empty() {
            wrong.push(format!("{name}: the origin heard {asked:?}"));
        }
        let honest = setup.get("/files/honest").await?;
        if honest.status != 200 || !honest.text().starts_with("GET /honest HTTP/1.1\r\n") {
            wrong.push(format!("{name}: then {}", honest.text()));
        }
        if setup.stored().await?.iter().any(|url| url.contains("evil")) {
            wrong.push(format!("{name}: stored"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[tokio::test]
async fn an_honest_request_in_these_frames_is_served() -> Result<()> {
    let setup = Setup::start().await?;
    assert!(is_served(setup.proxy.data, HONEST, None).await?);
    let posted = with(":method", "POST");
    assert!(is_served(setup.proxy.data, &posted, Some(b"content")).await?);
    assert_eq!(setup.origin.asked(), ["GET /a", "POST /a"]);
    Ok(())
}

#[tokio::test]
async fn rfc9113_s8_2_1_fields_that_end_their_line_are_refused() -> Result<()> {
    const NEXT: &str = "1\r\n\r\nGET /evil HTTP/1.1\r\nHost: c\r\n\r\n";
    refuse(vec![
        ("a value with a request behind it", with("x", NEXT), None),
        ("a value with a field behind it", with("x", "1\r\nevil: 1"), None),
        ("a value with a line feed", with("x", "1\nevil: 1"), None),
        ("a value with a carriage return", with("x", "1\revil: 1"), None),
        ("a value with a zero byte", with("x", "1\0"), None),
        ("a name with a field behind it", with("x: 1\r\nevil", "1"), None),
        ("a name with a colon", with("x:evil", "1"), None),
        ("a name with a space", with("x evil", "1"), None),
        ("a name in upper case", with("X-Evil", "1"), None),
        ("a name that is empty", with("", "1"), None),
    ])
    .await
}

#[tokio::test]
async fn rfc9113_s8_3_pseudo_fields_that_would_be_more_than_a_request_line_are_refused() -> Result<()> {
    let evil = "/files/evil HTTP/1.1\r\nHost: c\r\n\r\nGET /evil";
    let mut late = HONEST.to_vec();
    late.insert(1, ("x", "1"));
    let without = |name: &str| {
        let fields = HONEST.iter().filter(|field| field.0 != name);
        fields.copied().collect::<Vec<_>>()
    };
    let twice = |name: &'static str, value| {
        let mut fields = HONEST.to_vec();
        fields.insert(0, (name, value));
        fields
    };
    refuse(vec![
        ("a path with a request behind it", with(":path", evil), None),
        ("a path with a space", with(":path", "/files/a /evil"), None),
        ("a path that is empty", with(":path", ""), None),
        ("a path that is none", with(":path", "files/evil"), None),
        (
            "a method with a request before it",
            with(":method", "GET /files/evil HTTP/1.1\r\n\r\nGET"),
            None,
        ),
        ("a method with a space", with(":method", "GET /files/evil"), None),
        (
            "an authority with a field behind it",
            with(":authority", "c\r\nevil: 1"),
            None,
        ),
        (
            "an authority with a path",
            with(":authority", "c/files/evil"),
            None,
        ),
        ("an authority with a user", with(":authority", "evil@c"), None),
        (
            "a scheme with a URL in it",
            with(":scheme", "http://evil.example/"),
            None,
        ),
        ("no path", without(":path"), None),
        ("no method", without(":method"), None),
        ("no scheme", without(":scheme"), None),
        ("two paths", twice(":path", "/files/evil"), None),
        ("two methods", twice(":method", "POST"), None),
        ("two authorities", twice(":authority", "evil.example"), None),
        ("a pseudo field behind a field", late, None),
        ("a pseudo field of answers", twice(":status", "200"), None),
        ("a pseudo field that nobody knows", twice(":evil", "1"), None),
        ("a Host that is another", with("host", "evil.example"), None),
        (
            "an extended CONNECT that was not offered",
            {
                let mut fields = with(":method", "CONNECT");
                fields.insert(0, (":protocol", "websocket"));
                fields
            },
            None,
        ),
    ])
    .await
}

#[tokio::test]
async fn rfc9113_s8_2_2_fields_that_frame_or_speak_of_the_connection_are_refused() -> Result<()> {
    refuse(vec![
        (
            "Transfer-Encoding",
            with("transfer-encoding", "chunked"),
            Some(b"0\r\n\r\nGET /evil"),
        ),
        (
            "Transfer-Encoding without content",
            with("transfer-encoding", "chunked"),
            None,
        ),
        ("Connection", with("connection", "close"), None),
        ("Connection that names a field", with("connection", "x"), None),
        ("Keep-Alive", with("keep-alive", "timeout=5"), None),
        ("Proxy-Connection", with("proxy-connection", "keep-alive"), None),
        ("Upgrade", with("upgrade", "h2c"), None),
        ("TE that is not trailers", with("te", "chunked"), None),
    ])
    .await
}

#[tokio::test]
async fn rfc9113_s8_1_1_content_of_another_length_than_it_says_is_refused() -> Result<()> {
    let posted = |length| {
        let mut fields = with(":method", "POST");
        fields.push(("content-length", length));
        fields
    };
    let mut two = posted("3");
    two.push(("content-length", "30"));
    let evil: Option<&[u8]> = Some(b"GET /files/evil HTTP/1.1\r\nHost: c\r\n\r\n");
    refuse(vec![
        ("none, and there is some", posted("0"), evil),
        ("less than there is", posted("3"), evil),
        ("more than there is", posted("300"), evil),
        ("some, and there is none", posted("3"), None),
        ("two lengths", two, Some(b"abc")),
        ("a length below zero", posted("-3"), Some(b"abc")),
        ("a length with a sign", posted("+3"), Some(b"abc")),
        ("a length that is no number", posted("3 3"), Some(b"abc")),
        ("a length in a list", posted("3, 3"), Some(b"abc")),
    ])
    .await
}
