//! An HTTP/1.1 client for tests: one connection per request, read as slowly as the test wants, and a plain answer to the question
//! whether the body looks whole.
//!
//! A library's client would hide the difference between a connection that broke and a body that ended; here it is the
//! subject. Every read has a deadline.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

mod decode;

use decode::Decoder;

/// Long beside anything that loopback does.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends requests to one address.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    address: SocketAddr,
}

/// A request that is being put together.
#[derive(Debug, Clone)]
pub struct Request {
    address: SocketAddr,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// An answer whose header section has arrived.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The header fields in order, names in lower case.
    pub headers: Vec<(String, String)>,
    stream: TcpStream,
    decoder: Decoder,
}

/// A body as far as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// The content.
    pub bytes: Vec<u8>,
    /// Whether any client would take it for the whole.
    pub looks_whole: bool,
}

impl Client {
    /// A client of the server at `address`.
    pub fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// A GET of a path (`/files/a`) or, to a forward proxy, of an absolute URI (`http://host/a`).
    pub fn get(&self, target: &str) -> Request {
        self.request("GET", target)
    }

    /// Any method.
    pub fn request(&self, method: &str, target: &str) -> Request {
        Request {
            address: self.address,
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// GETs `target` and reads its body, which must look whole.
    ///
    /// # Errors
    /// When there is no answer or it breaks off.
    pub async fn fetch(&self, target: &str) -> Result<(Response, Vec<u8>)> {
        self.get(target).fetch().await
    }
}

impl Request {
    /// One more header field line.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A body, with its `Content-Length`.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.header("content-length", &length)
    }

    /// Sends the request and reads the header section of the answer.
    ///
    /// # Errors
    /// When there is no HTTP answer in time.
    pub async fn send(&self) -> Result<Response> {
        let subject = || format!("{} {}", self.method, self.target);
        timeout(PATIENCE, self.exchange())
            .await
            .with_context(|| format!("{}: no answer in time", subject()))?
            .with_context(subject)
    }

    /// Sends the request and reads the whole answer.
    ///
    /// # Errors
    /// When there is no answer or it breaks off.
    pub async fn fetch(&self) -> Result<(Response, Vec<u8>)> {
        let mut response = self.send().await?;
        let body = response.finish().await?;
        ensure!(
            body.looks_whole,
            "{} {}: broke off after {} bytes",
            self.method,
            self.target,
            body.bytes.len()
        );
        Ok((response, body.bytes))
    }

    async fn exchange(&self) -> Result<Response> {
        let mut stream = TcpStream::connect(self.address).await.context("cannot connect")?;
        let host = match self.target.split_once("://") {
            Some((_, rest)) => rest.split('/').next().unwrap_or(rest).to_owned(),
            None if self.method == "CONNECT" => self.target.clone(),
            None => self.address.to_string(),
        };
        let mut head = format!("{} {} HTTP/1.1\r\nhost: {host}\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&self.body).await?;
        read_head(stream, &self.method).await
    }
}

impl Response {
    /// The first value of a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Our own member of `Cache-Status`, the last one; empty where the field is missing.
    pub fn cache_status(&self) -> &str {
        self.headers
            .iter()
            .rfind(|(name, _)| name == "cache-status")
            .map_or("", |(_, value)| value.as_str())
    }

    /// Waits until at least `count` bytes of content have arrived and returns all so far.
    ///
    /// # Errors
    /// When the body ends or breaks off before, or they do not come in time.
    pub async fn read_at_least(&mut self, count: usize) -> Result<&[u8]> {
        while self.decoder.body().len() < count {
            let more = timeout(PATIENCE, self.read_more()).await;
            let open = more
                .with_context(|| format!("only {} of {count} bytes in time", self.decoder.body().len()))??;
            ensure!(open, "ended after {} of {count} bytes", self.decoder.body().len());
        }
        Ok(self.decoder.body())
    }

    /// Reads to the end, good or bad.
    ///
    /// # Errors
    /// When nothing comes for too long, or chunked coding is broken.
    pub async fn finish(&mut self) -> Result<Body> {
        loop {
            match timeout(PATIENCE, self.read_more()).await {
                Err(_) => bail!("the body stands still after {} bytes", self.decoder.body().len()),
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => break,
                // A reset is an end that no client takes for a whole body.
                Ok(Err(_)) => {
                    return Ok(Body {
                        bytes: self.decoder.take_body(),
                        looks_whole: false,
                    });
                }
            }
        }
        let looks_whole = self.decoder.is_complete();
        Ok(Body {
            bytes: self.decoder.take_body(),
            looks_whole,
        })
    }

    /// False at the end of the body or of the connection.
    async fn read_more(&mut self) -> Result<bool> {
        if self.decoder.is_complete() {
            return Ok(false);
        }
        let mut buffer = vec![0; 64 * 1024];
        let count = self.stream.read(&mut buffer).await?;
        if count == 0 {
            self.decoder.end_of_stream();
            return Ok(false);
        }
        self.decoder.feed(&buffer[..count])?;
        Ok(true)
    }
}

async fn read_head(mut stream: TcpStream, method: &str) -> Result<Response> {
    let mut raw = Vec::new();
    let end = loop {
        if let Some(at) = raw.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).await?;
        ensure!(
            count > 0,
            "the connection ended in the header section after {} bytes",
            raw.len()
        );
        raw.extend_from_slice(&buffer[..count]);
    };
    let head = String::from_utf8_lossy(&raw[..end]).into_owned();
    let mut lines = head.lines();
    let status_line = lines.next().unwrap_or_default();
    let status = status_line.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status: u16 = status.with_context(|| format!("no status line: {status_line:?}"))?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut decoder = Decoder::new(method, status, &headers)?;
    decoder.feed(&raw[end..])?;
    Ok(Response {
        status,
        headers,
        stream,
        decoder,
    })
}
