//! Connections by hand, for what a client library hides: pipelining, halves of requests, slow readers.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::DEADLINE;

/// A connection and what was read from it ahead of time.
pub struct Raw<S = TcpStream> {
    pub stream: S,
    ahead: Vec<u8>,
}

/// A response as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The first value of a field, or nothing.
    pub fn field(&self, name: &str) -> &str {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map_or("", |(_, value)| value)
    }
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub fn over(stream: S) -> Self {
        let ahead = Vec::new();
        Self { stream, ahead }
    }

    pub async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Reads one response; a body without a length goes to the end of the connection.
    pub async fn answer(&mut self) -> Answer {
        self.answer_to("GET").await
    }

    pub async fn answer_to(&mut self, method: &str) -> Answer {
        let end = loop {
            match self.ahead.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => assert!(self.more().await, "{}", String::from_utf8_lossy(&self.ahead)),
            }
        };
        let head: Vec<u8> = self.ahead.drain(..end).collect();
        let mut answer = Answer {
            head: String::from_utf8(head).unwrap(),
            status: 0,
            body: Vec::new(),
        };
        answer.status = answer.head.split(' ').nth(1).unwrap().parse().unwrap();
        let length: Option<usize> = answer.field("content-length").parse().ok();
        let has_none = method == "HEAD" || matches!(answer.status, 204 | 304);
        let length = if has_none { Some(0) } else { length };
        while length.is_none_or(|length| self.ahead.len() < length) && self.more().await {}
        let length = length.unwrap_or(self.ahead.len());
        answer.body = self.ahead.drain(..length).collect();
        answer
    }

    /// Whether the other end has closed, and nothing came before that.
    pub async fn is_closed(&mut self) -> bool {
        self.ahead.is_empty() && !self.more().await
    }

    async fn more(&mut self) -> bool {
        let read = self.stream.read_buf(&mut self.ahead);
        // A reset is an end, too.
        timeout(DEADLINE, read).await.unwrap().unwrap_or(0) > 0
    }
}
