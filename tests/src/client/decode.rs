//! Where a body ends (RFC 9112 §6), read strictly: a body is complete only when its framing says so.

use anyhow::{Context, Result, ensure};

/// Takes raw bytes and gives content.
#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    raw: Vec<u8>,
    body: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// This many bytes are still to come.
    Length(u64),
    /// Before a chunk's size line.
    ChunkSize,
    /// Inside a chunk; its CRLF comes after.
    Chunk(usize),
    /// After the last chunk: trailer fields up to an empty line.
    Trailers,
    /// All until the connection ends.
    UntilClose,
    Complete,
}

impl Decoder {
    pub(super) fn new(method: &str, status: u16, headers: &[(String, String)]) -> Result<Self> {
        let header = |name: &str| {
            headers
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.as_str())
        };
        let state =
            if method == "HEAD" || status == 204 || status == 304 || (method == "CONNECT" && status == 200) {
                State::Complete
            } else if header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
            {
                State::ChunkSize
            } else if let Some(length) = header("content-length") {
                State::Length(
                    length
                        .parse()
                        .with_context(|| format!("content-length: {length:?}"))?,
                )
            } else {
                State::UntilClose
            };
        let state = if state == State::Length(0) {
            State::Complete
        } else {
            state
        };
        Ok(Self {
            state,
            raw: Vec::new(),
            body: Vec::new(),
        })
    }

    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    pub(super) fn take_body(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.body)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// The connection ended in good order: enough only for a body without any other end.
    pub(super) fn end_of_stream(&mut self) {
        if self.state == State::UntilClose {
            self.state = State::Complete;
        }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        self.raw.extend_from_slice(bytes);
        while self.step()? {}
        Ok(())
    }

    /// One step; false when more bytes are needed.
    fn step(&mut self) -> Result<bool> {
        match self.state {
            State::Complete => Ok(false),
            State::UntilClose => {
                self.body.append(&mut self.raw);
                Ok(false)
            }
            State::Length(left) => {
                let take = self.raw.len().min(usize::try_from(left)?);
                self.body.extend(self.raw.drain(..take));
                let left = left - take as u64;
                self.state = if left == 0 {
                    State::Complete
                } else {
                    State::Length(left)
                };
                Ok(false)
            }
            State::ChunkSize => {
                let Some(line) = self.line() else { return Ok(false) };
                let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
                    .with_context(|| format!("chunk size: {line:?}"))?;
                self.state = if size == 0 {
                    State::Trailers
                } else {
                    State::Chunk(size)
                };
                Ok(true)
            }
            State::Chunk(size) => {
                let take = self.raw.len().min(size);
                self.body.extend(self.raw.drain(..take));
                if take < size {
                    self.state = State::Chunk(size - take);
                    return Ok(false);
                }
                self.state = State::Chunk(0);
                let Some(line) = self.line() else { return Ok(false) };
                ensure!(line.is_empty(), "after a chunk: {line:?}");
                self.state = State::ChunkSize;
                Ok(true)
            }
            State::Trailers => {
                let Some(line) = self.line() else { return Ok(false) };
                if line.is_empty() {
                    self.state = State::Complete;
                }
                Ok(true)
            }
        }
    }

    /// The next line without its end, once it is there.
    fn line(&mut self) -> Option<String> {
        let end = self.raw.windows(2).position(|window| window == b"\r\n")?;
        let line = String::from_utf8_lossy(&self.raw[..end]).into_owned();
        self.raw.drain(..end + 2);
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunked() -> Decoder {
        Decoder::new(
            "GET",
            200,
            &[("transfer-encoding".to_owned(), "chunked".to_owned())],
        )
        .unwrap()
    }

    #[test]
    fn a_chunked_body_is_complete_only_after_its_last_line_whatever_the_pieces() {
        let wire = b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nt: 1\r\n\r\n";
        let mut decoder = chunked();
        for (at, byte) in wire.iter().enumerate() {
            assert!(!decoder.is_complete(), "at byte {at}");
            decoder.feed(&[*byte]).unwrap();
        }
        assert!(decoder.is_complete());
        assert_eq!(decoder.body(), b"hello world");
        let mut cut = chunked();
        cut.feed(&wire[..wire.len() - 4]).unwrap();
        cut.end_of_stream();
        assert!(!cut.is_complete());
    }

    #[test]
    fn a_body_shorter_than_its_length_is_not_complete() {
        let mut decoder = Decoder::new("GET", 200, &[("content-length".to_owned(), "5".to_owned())]).unwrap();
        decoder.feed(b"hell").unwrap();
        decoder.end_of_stream();
        assert!(!decoder.is_complete());
        decoder.feed(b"o").unwrap();
        assert!(decoder.is_complete());
    }
}
