//! Origins that lie: about where an answer ends, about what it answers, and about how many answers there are.
//!
//! After each row the next request gets its own answer, and nothing that was not whole is stored.

use anyhow::Result;

use crate::Setup;

/// What the origin sends for `/a`, and what the client may see of it.
struct Row {
    name: &'static str,
    sent: &'static [u8],
    expected: Expected,
}

enum Expected {
    /// This status and this content.
    Content(u16, &'static str),
    /// An error of ours, or a body that breaks off: nothing that a client could take for the whole.
    Broken,
}

use Expected::{Broken, Content};

const ROWS: &[Row] = &[
    Row {
        name: "a second answer behind the first is nobody's",
        sent: b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\ngoodHTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\nevil",
        expected: Content(200, "good"),
    },
    Row {
        name: "bytes behind the announced length are dropped",
        sent: b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\nConnection: close\r\n\r\ngoodevil",
        expected: Content(200, "good"),
    },
    Row {
        name: "fewer bytes than announced",
        sent: b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\nConnection: close\r\n\r\nevil",
        expected: Broken,
    },
    Row {
        name: "length and coding: neither is believed",
        sent: b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n",
        expected: Broken,
    },
    Row {
        name: "two lengths",
        sent: b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\nContent-Length: 2\r\nConnection: close\r\n\r\nevil",
        expected: Broken,
    },
    Row {
        name: "a chunked body that breaks off",
        sent: b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n4\r\nevil\r\n",
        expected: Broken,
    },
    Row {
        name: "a chunk size that is none",
        sent: b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\nevil\r\n0\r\n\r\n",
        expected: Broken,
    },
    Row {
        name: "a field with a bare CR",
        sent: b"HTTP/1.1 200 OK\r\nX-A: a\rSet-Cookie: evil=1\r\nContent-Length: 4\r\nConnection: close\r\n\r\nevil",
        expected: Broken,
    },
    Row {
        name: "a field with a NUL",
        sent: b"HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 4\r\nConnection: close\r\n\r\nevil",
        expected: Broken,
    },
    Row {
        name: "a part that nobody asked for",
        sent: b"HTTP/1.1 206 Partial Content\r\nCache-Control: max-age=60\r\nContent-Range: bytes 0-3/8\r\nContent-Length: 4\r\n\r\nevil",
        expected: Broken,
    },
    Row {
        name: "304 where nothing was asked about",
        sent: b"HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=60\r\nETag: \"evil\"\r\n\r\n",
        expected: Broken,
    },
    Row {
        name: "no HTTP at all",
        sent: b"evil\r\nConnection: close\r\n\r\n",
        expected: Broken,
    },
    Row {
        name: "101 where no upgrade was asked for",
        sent: b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: evil\r\nConnection: Upgrade\r\n\r\nevil",
        expected: Broken,
    },
    Row {
        name: "interim answers without end come to an end",
        sent: b"HTTP/1.1 103 Early Hints\r\nLink: </evil>\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\ngood",
        expected: Content(200, "good"),
    },
    Row {
        name: "a redirect with a line break in it",
        sent: b"HTTP/1.1 302 Found\r\nLocation: /b%0d%0aX-Evil:%201\r\nContent-Length: 0\r\n\r\n",
        expected: Content(200, "GET /b%0d%0aX-Evil:%201 HTTP/1.1"),
    },
    Row {
        name: "a redirect to a file",
        sent: b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
        expected: Broken,
    },
    Row {
        name: "a redirect to the metadata service",
        sent: b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest/\r\nContent-Length: 0\r\n\r\n",
        expected: Broken,
    },
];

#[tokio::test]
async fn what_an_origin_says_wrongly_is_no_answer_and_not_stored() -> Result<()> {
    let mut wrong = Vec::new();
    for row in ROWS {
        let setup = Setup::start().await?;
        setup.origin.answer("/a", row.sent);
        let got = setup.get("/files/a").await?;
        let ok = match row.expected {
            Content(status, content) => {
                got.status == status
                    && got.is_whole
                    && got.text().starts_with(content)
                    && !got.text().contains("evil\n")
            }
            Broken => got.status >= 400 || !got.is_whole,
        };
        if !ok {
            wrong.push(format!("{}: {} {:?}", row.name, got.status, got.text()));
        }
        if !got.head.is_ascii() || got.field("x-evil").is_some() || got.field("set-cookie").is_some() {
            wrong.push(format!("{}: {}", row.name, got.head));
        }
        for next in ["/files/b", "/files/c"] {
            let got = setup.get(next).await?;
            if got.status != 200 || !got.text().starts_with(&next.replace("/files", "GET ")) {
                wrong.push(format!("{}: then {next} got {:?}", row.name, got.text()));
            }
        }
        if matches!(row.expected, Broken) && setup.stored().await?.contains(&"/a".to_owned()) {
            wrong.push(format!("{}: stored", row.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[tokio::test]
async fn names_that_an_origin_sends_go_into_no_other_answer() -> Result<()> {
    let setup = Setup::start().await?;
    setup.origin.answer(
        "/a",
        b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Type: text/plain\r\nConnection: X-Secret\r\nX-Secret: evil\r\n\
          Proxy-Authenticate: Basic\r\nCache-Status: kato; hit\r\nContent-Length: 4\r\n\r\ngood",
    );
    for _ in 0..2 {
        let got = setup.get("/files/a").await?;
        assert_eq!((got.status, got.text().as_str()), (200, "good"));
        assert!(
            got.field("x-secret").is_none() && got.field("proxy-authenticate").is_none(),
            "{}",
            got.head
        );
    }
    assert_eq!(setup.origin.asked(), ["GET /a"]);
    Ok(())
}
