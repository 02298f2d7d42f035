//! Requests inside requests: framing and heads that two readers could understand differently.
//!
//! Every row is one connection. After it an honest client must get its own answer, and the origin must have heard of nothing but
//! what the row says.

use anyhow::Result;

use crate::Setup;

/// What is sent, and what must come of it.
struct Row {
    name: &'static str,
    sent: &'static [u8],
    /// The status codes on the connection, in order.
    answered: &'static [u16],
    /// The request lines that reach the origin.
    asked: &'static [&'static str],
}

const fn row(
    name: &'static str,
    sent: &'static [u8],
    answered: &'static [u16],
    asked: &'static [&'static str],
) -> Row {
    Row {
        name,
        sent,
        answered,
        asked,
    }
}

/// Content that says where it ends in more than one way, or in none that counts.
const FRAMING: &[Row] = &[
    row(
        "CL.TE: the coding counts, and nothing behind it",
        b"POST /files/a HTTP/1.1\r\nHost: c\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /files/evil HTTP/1.1\r\nHost: c\r\n\r\n",
        &[200],
        &["POST /a"],
    ),
    row(
        "TE.CL: the one request counts, and nothing behind it",
        b"POST /files/a HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\nGET /files/evil HTTP/1.1\r\nHost: c\r\n\r\n",
        &[200],
        &["POST /a"],
    ),
    row(
        "TE.TE: two codings",
        b"POST /files/a HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\nGET /files/evil HTTP/1.1\r\nHost: c\r\n\r\n",
        &[400],
        &[],
    ),
    row(
        "TE.TE: a coding that is none",
        b"POST /files/a HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\nGET /files/evil HTTP/1.1\r\nHost: c\r\n\r\n",
        &[400],
        &[],
    ),
    row(
        "TE.TE: chunked is not the last",
        b"POST /files/a HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\nGET /files/evil HTTP/1.1\r\nHost: c\r\n\r\n",
        &[400],
        &[],
    ),
    row(
        "TE with a vertical tab",
        b"POST /files/a HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        &[400],
        &[],
    ),
    row(
        "TE with a space before the colon",
        b"POST /files/a HTTP/1.1\r\nHost: c\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\nGET /files/evil HTTP/1.1\r\nHost: c\r\n\r\n",
        &[400],
        &[],
    ),
    row(
        "TE in HTTP/1.0",
        b"POST /files/a HTTP/1.0\r\nHost: c\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /files/evil HTTP/1.1\r\nHost: c\r\n\r\n",
        &[400],
        &[],
    ),
    row(
        "two lengths",
        b"POST /files/a HTTP/1.1\r\nHost: c\r\nContent-Length: 0\r\nContent-Length: 39\r\n\r\nGET /files/evil HTTP/1.1\r\nHost: c\r\n\r\n",
        &[400],
        &[],
    ),
    row(
        "two lengths in one line",
        b"POST /files/a HTTP/1.1\r\nHost: c\r\nContent-Length: 0, 39\r\n\r\nGET /files/evil HTTP/1.1\r\nHost: c\r\n\r\n",
        &[400],
        &[],
    ),
    row(
        "a signed length",
        b"POST /files/a HTTP/1.1\r\nHost: c\r\nContent-Length: +3\r\n\r\nabc",
        &[400],
        &[],
    ),
    row(
        "a negative length",
        b"POST /files/a HTTP/1.1\r\nHost: c\r\nContent-Length: -1\r\n\r\n",
        &[400],
        &[],
    ),
    row(
        "a length in hexadecimal",
        b"POST /files/a HTTP/1.1\r\nHost: c\r\nContent-Length: 0x3\r\n\r\nabc",
        &[400],
        &[],
    ),
    row(
        "a length beyond 64 bits",
        b"POST /files/a HTTP/1.1\r\nHost: c\r\nContent-Length: 18446744073709551617\r\n\r\na",
        &[400],
        &[],
    ),
    row(
        "a chunk whose size does not end",
        b"POST /files/a HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        &[400],
        &[],
    ),
    row(
        "a chunk that is longer than its size",
        b"POST /files/a HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\nGET /files/evil HTTP/1.1\r\nHost: c\r\n\r\n",
        &[400],
        &[],
    ),
    row(
        "a chunk extension is no place to hide in",
        b"POST /files/a HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: chunked\r\n\r\n3;a=\"GET /files/evil HTTP/1.1\"\r\nabc\r\n0\r\n\r\nGET /files/evil HTTP/1.1\r\nHost: c\r\n\r\n",
        &[200],
        &["POST /a"],
    ),
    row(
        "a chunk extension with a bare LF",
        b"POST /files/a HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: chunked\r\n\r\n3;a\nabc\r\n0\r\n\r\nGET /files/evil HTTP/1.1\r\nHost: c\r\n\r\n",
        &[400],
        &[],
    ),
    row(
        "a trailer is no request field",
        b"POST /files/a HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: chunked\r\nTrailer: Host\r\n\r\n0\r\nHost: evil\r\n\r\n",
        &[200],
        &["POST /a"],
    ),
    row(
        "a GET with content: the content is not a request",
        b"GET /files/a HTTP/1.1\r\nHost: c\r\nContent-Length: 39\r\nConnection: close\r\n\r\nGET /files/evil HTTP/1.1\r\nHost: c\r\n\r\n",
        &[200],
        &["GET /a"],
    ),
    row(
        "a GET with chunked content",
        b"GET /files/a HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /files/evil HTTP/1.1\r\nHost: c\r\n\r\n",
        &[200],
        &["GET /a"],
    ),
];

/// Heads that are not what they should be.
const HEADS: &[Row] = &[
    row(
        "a folded line",
        b"GET /files/a HTTP/1.1\r\nHost: c\r\nX-A: 1\r\n Transfer-Encoding: chunked\r\n\r\n",
        &[400],
        &[],
    ),
    row(
        "a space before a colon",
        b"GET /files/a HTTP/1.1\r\nHost : c\r\n\r\n",
        &[400],
        &[],
    ),
    row(
        "a first line that is folded",
        b"GET /files/a HTTP/1.1\r\n Host: c\r\n\r\n",
        &[400],
        &[],
    ),
    row(
        "a field without a name",
        b"GET /files/a HTTP/1.1\r\nHost: c\r\n: x\r\n\r\n",
        &[400],
        &[],
    ),
    row(
        "a NUL in a value",
        b"GET /files/a HTTP/1.1\r\nHost: c\r\nX-A: a\0b\r\n\r\n",
        &[400],
        &[],
    ),
    row(
        "a bare CR in a value",
        b"GET /files/a HTTP/1.1\r\nHost: c\r\nX-A: a\rTransfer-Encoding: chunked\r\n\r\n",
        &[400],
        &[],
    ),
    row(
        "a NUL in the target",
        b"GET /files/a\0b HTTP/1.1\r\nHost: c\r\n\r\n",
        &[400],
        &[],
    ),
    row(
        "a bare CR in the target",
        b"GET /files/a\rX HTTP/1.1\r\nHost: c\r\n\r\n",
        &[400],
        &[],
    ),
    row(
        "a space in the target",
        b"GET /files/a HTTP/1.1 /files/b HTTP/1.1\r\nHost: c\r\n\r\n",
        &[400],
        &[],
    ),
    row(
        "a version that does not exist",
        b"GET /files/a HTTP/1.7\r\nHost: c\r\n\r\n",
        &[400],
        &[],
    ),
    row("no host", b"GET /files/a HTTP/1.1\r\n\r\n", &[400], &[]),
    row(
        "two hosts",
        b"GET /files/a HTTP/1.1\r\nHost: c\r\nHost: d\r\nConnection: close\r\n\r\n",
        &[400],
        &[],
    ),
    row(
        "a host with user information",
        b"GET /files/a HTTP/1.1\r\nHost: c@d\r\n\r\n",
        &[400],
        &[],
    ),
    row(
        "a host with a path",
        b"GET /files/a HTTP/1.1\r\nHost: c/d\r\n\r\n",
        &[400],
        &[],
    ),
    row(
        "escaped line breaks stay escaped",
        b"GET /files/a%0d%0aX-Evil:%201 HTTP/1.1\r\nHost: c\r\n\r\n",
        &[200],
        &["GET /a%0d%0aX-Evil:%201"],
    ),
    row(
        "an absolute target wins over Host",
        b"GET http://HOST/a HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        &[200],
        &["GET /a"],
    ),
    row(
        "a target with user information",
        b"GET http://u:p@HOST/a HTTP/1.1\r\nHost: c\r\n\r\n",
        &[400],
        &[],
    ),
    row(
        "a host that no upstream names",
        b"GET http://evil.example/a HTTP/1.1\r\nHost: HOST\r\n\r\n",
        &[403],
        &[],
    ),
    row(
        "CONNECT to a path",
        b"CONNECT /files/a HTTP/1.1\r\nHost: c\r\n\r\n",
        &[400],
        &[],
    ),
    row(
        "CONNECT to a URL",
        b"CONNECT http://HOST/ HTTP/1.1\r\nHost: c\r\n\r\n",
        &[400],
        &[],
    ),
    row(
        "CONNECT to nobody, with a request behind it that was meant for the tunnel",
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: c\r\n\r\nGET /files/evil HTTP/1.1\r\nHost: c\r\n\r\n",
        &[403],
        &[],
    ),
    row(
        "HTTP/2 without having agreed on it",
        b"GET /files/a HTTP/1.1\r\nHost: c\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        &[200],
        &["GET /a"],
    ),
];

async fn hold(rows: &[Row]) -> Result<()> {
    let mut wrong = Vec::new();
    for row in rows {
        let setup = Setup::start().await?;
        let answers = setup.send(row.sent).await?;
        let answered: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        let asked = setup.origin.asked();
        if answered != row.answered || asked != row.asked {
            wrong.push(format!("{}: answered {answered:?}, asked {asked:?}", row.name));
        }
        // Nobody else's connection has anything left of it.
        let honest = setup.get("/files/honest").await?;
        if honest.status != 200 || !honest.text().starts_with("GET /honest HTTP/1.1\r\n") {
            wrong.push(format!("{}: then {}", row.name, honest.text()));
        }
        let evil = setup.stored().await?.iter().any(|url| url.contains("evil"));
        if evil {
            wrong.push(format!("{}: stored", row.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[tokio::test]
async fn content_that_ends_in_two_ways_is_refused_or_ends_the_connection() -> Result<()> {
    hold(FRAMING).await
}

#[tokio::test]
async fn heads_that_two_readers_could_understand_differently_are_refused() -> Result<()> {
    hold(HEADS).await
}

#[tokio::test]
async fn large_heads_and_many_fields_are_refused_and_the_next_client_is_served() -> Result<()> {
    let setup = Setup::start().await?;
    let long_target = format!("GET /files/{} HTTP/1.1\r\nHost: c\r\n\r\n", "a".repeat(200 << 10));
    let long_field = format!(
        "GET /files/a HTTP/1.1\r\nHost: c\r\nX: {}\r\n\r\n",
        "a".repeat(200 << 10)
    );
    let fields = (0..1000).map(|nth| format!("X-{nth}: 1\r\n"));
    let fields = fields.collect::<Vec<_>>().concat();
    let many_fields = format!("GET /files/a HTTP/1.1\r\nHost: c\r\n{fields}\r\n");
    for sent in [long_target, long_field, many_fields] {
        let answers = setup.send(sent).await?;
        assert!(
            answers.iter().all(|answer| matches!(answer.status, 414 | 431)),
            "{answers:?}"
        );
        assert!(answers.len() <= 1);
    }
    assert_eq!(setup.origin.asked().len(), 0);
    assert_eq!(setup.get("/files/honest").await?.status, 200);
    Ok(())
}
