//! One HTTP/1.1 response on its way in, as a machine that takes bytes: head, then a body by length, by chunks, or until the server closes.
//!
//! Pure. What the body's bytes mean is the caller's business; this module says which bytes they are and when the response is complete.
//! Interim responses (1xx) are read over.

/// A head longer than this is refused.
const HEAD_MAX: usize = 64 * 1024;

/// What a caller is told about the response so far.
#[derive(Debug)]
pub(crate) struct Reception {
    state: State,
    head: Vec<u8>,
    /// The status code, 0 before the head is complete.
    pub(crate) status: u16,
    /// `Content-Length`.
    pub(crate) length: Option<u64>,
    /// Whether the server closes the connection after this response.
    pub(crate) close: bool,
    /// Header fields that tell how a cache answered, for people.
    pub(crate) note: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    /// Bytes left of a body of known length.
    Length(u64),
    Chunked(Chunk),
    UntilClose,
    Complete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    /// In the size line; the size so far, and whether it has ended (an extension or the CR was seen).
    Size(u64, bool),
    /// Bytes left of this chunk.
    Data(u64),
    /// Behind a chunk's data; whether the CR was seen.
    DataEnd(bool),
    /// In the trailer section; whether the line is empty so far.
    Trailer(bool),
}

impl Reception {
    /// Nothing has come yet.
    pub(crate) fn new() -> Self {
        Self {
            state: State::Head,
            head: Vec::new(),
            status: 0,
            length: None,
            close: false,
            note: String::new(),
        }
    }

    /// Starts again for the next response, keeping the memory.
    pub(crate) fn clear(&mut self) {
        self.head.clear();
        self.note.clear();
        self.state = State::Head;
        self.status = 0;
        self.length = None;
        self.close = false;
    }

    /// Whether the header block is still incomplete.
    pub(crate) fn in_head(&self) -> bool {
        self.state == State::Head
    }

    /// Whether all of the response is here.
    pub(crate) fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// Whether the end of the connection is the regular end of this response.
    pub(crate) fn ends_with_connection(&self) -> bool {
        self.state == State::UntilClose
    }

    /// How many body bytes may be dropped unseen: those left of a body of known length.
    pub(crate) fn droppable(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Head | State::Chunked(_) | State::UntilClose | State::Complete => None,
        }
    }

    /// `count` body bytes were dropped unseen, at most [`Self::droppable`].
    pub(crate) fn dropped(&mut self, count: u64) {
        if let State::Length(left) = self.state {
            self.state = length(left.saturating_sub(count));
        }
    }

    /// Takes bytes from the connection and hands those of the body to `body`.
    ///
    /// # Errors
    /// With a word for the fault: `head`, `chunk`, or `excess` for bytes behind the end.
    pub(crate) fn take(&mut self, data: &[u8], mut body: impl FnMut(&[u8])) -> Result<(), &'static str> {
        self.take_any(data, &mut body)
    }

    fn take_any(&mut self, data: &[u8], body: &mut dyn FnMut(&[u8])) -> Result<(), &'static str> {
        if self.state != State::Head {
            return self.take_body(data, body);
        }
        match self.take_head(data)? {
            None => Ok(()),
            Some(behind) => self.take_body(&behind, body),
        }
    }

    fn take_body(&mut self, mut data: &[u8], body: &mut dyn FnMut(&[u8])) -> Result<(), &'static str> {
        while !data.is_empty() {
            let used = match self.state {
                // Behind an interim response.
                State::Head => return self.take_any(data, body),
                State::Complete => return Err("excess"),
                State::UntilClose => {
                    body(data);
                    data.len()
                }
                State::Length(left) => {
                    let used = at_most(left, data.len());
                    body(&data[..used]);
                    self.state = length(left - used as u64);
                    used
                }
                State::Chunked(chunk) => self.take_chunk(chunk, data, body)?,
            };
            data = &data[used..];
        }
        Ok(())
    }

    /// Collects the head; what stands behind its end, once it is here.
    fn take_head(&mut self, data: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
        let from = self.head.len().saturating_sub(3);
        self.head.extend_from_slice(data);
        let Some(end) = self.head[from..].windows(4).position(|four| four == b"\r\n\r\n") else {
            return if self.head.len() > HEAD_MAX {
                Err("head")
            } else {
                Ok(None)
            };
        };
        let mut head = std::mem::take(&mut self.head);
        let behind = head.split_off(from + end + 4);
        self.parse_head(&head);
        head.clear();
        self.head = head;
        if (100..200).contains(&self.status) {
            self.state = State::Head;
        }
        Ok(Some(behind))
    }

    fn parse_head(&mut self, head: &[u8]) {
        let text = String::from_utf8_lossy(head);
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default();
        self.status = first
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or(0);
        self.close = first.starts_with("HTTP/1.0");
        let mut chunked = false;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                self.length = value.parse().ok();
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = value.to_ascii_lowercase().contains("chunked");
            } else if name.eq_ignore_ascii_case("connection") {
                let value = value.to_ascii_lowercase();
                self.close = value.contains("close") || (self.close && !value.contains("keep-alive"));
            } else if ["x-cache", "age", "cache-status"]
                .iter()
                .any(|known| name.eq_ignore_ascii_case(known))
            {
                let gap = if self.note.is_empty() { "" } else { "; " };
                self.note.extend([gap, &name.to_ascii_lowercase(), "=", value]);
            }
        }
        self.state = if matches!(self.status, 204 | 304) {
            State::Complete
        } else if chunked {
            self.length = None;
            State::Chunked(Chunk::Size(0, false))
        } else if let Some(bytes) = self.length {
            length(bytes)
        } else {
            State::UntilClose
        };
    }

    /// One step through a chunked body; how many bytes it took.
    fn take_chunk(
        &mut self,
        chunk: Chunk,
        data: &[u8],
        body: &mut dyn FnMut(&[u8]),
    ) -> Result<usize, &'static str> {
        let byte = data[0];
        let (next, used) = match chunk {
            Chunk::Data(left) => {
                let used = at_most(left, data.len());
                body(&data[..used]);
                let left = left - used as u64;
                let next = if left == 0 {
                    Chunk::DataEnd(false)
                } else {
                    Chunk::Data(left)
                };
                (next, used)
            }
            Chunk::Size(0, true) if byte == b'\n' => (Chunk::Trailer(true), 1),
            Chunk::Size(size, true) if byte == b'\n' => (Chunk::Data(size), 1),
            Chunk::Size(size, true) => (Chunk::Size(size, true), 1),
            Chunk::Size(size, false) => match char::from(byte).to_digit(16) {
                Some(digit) => (Chunk::Size(size * 16 + u64::from(digit), false), 1),
                None if matches!(byte, b'\r' | b';' | b' ') => (Chunk::Size(size, true), 1),
                None => return Err("chunk"),
            },
            Chunk::DataEnd(false) if byte == b'\r' => (Chunk::DataEnd(true), 1),
            Chunk::DataEnd(true) if byte == b'\n' => (Chunk::Size(0, false), 1),
            Chunk::DataEnd(_) => return Err("chunk"),
            Chunk::Trailer(true) if byte == b'\n' => {
                self.state = State::Complete;
                return Ok(1);
            }
            Chunk::Trailer(empty) if byte == b'\r' => (Chunk::Trailer(empty), 1),
            Chunk::Trailer(_) => (Chunk::Trailer(byte == b'\n'), 1),
        };
        self.state = State::Chunked(next);
        Ok(used)
    }
}

fn length(left: u64) -> State {
    if left == 0 {
        State::Complete
    } else {
        State::Length(left)
    }
}

fn at_most(left: u64, available: usize) -> usize {
    usize::try_from(left).map_or(available, |left| left.min(available))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body and the reception, however the bytes are cut.
    fn received(wire: &str, step: usize) -> (String, Reception) {
        let mut reception = Reception::new();
        let mut body = Vec::new();
        for part in wire.as_bytes().chunks(step) {
            reception.take(part, |data| body.extend_from_slice(data)).unwrap();
        }
        (String::from_utf8(body).unwrap(), reception)
    }

    #[test]
    fn a_response_is_the_same_however_the_network_cuts_it() {
        let plain = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nAge: 3\r\n\r\nhello";
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nT: v\r\n\r\n";
        let interim = format!("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n{plain}");
        for step in 1..40 {
            for wire in [plain, chunked, &interim] {
                let (body, reception) = received(wire, step);
                assert_eq!(body, "hello", "{wire} by {step}");
                assert!(reception.is_complete(), "{wire} by {step}");
                assert_eq!(reception.status, 200);
            }
        }
    }

    #[test]
    fn a_body_without_length_ends_with_the_connection() {
        let (body, reception) = received("HTTP/1.1 200 OK\r\n\r\nhello", 7);
        assert_eq!(body, "hello");
        assert!(reception.ends_with_connection() && !reception.is_complete());
    }

    #[test]
    fn bytes_behind_the_end_are_a_fault() {
        let mut reception = Reception::new();
        let wire = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab";
        assert_eq!(reception.take(wire, |_| ()), Err("excess"));
    }

    #[test]
    fn dropped_bytes_count() {
        let mut reception = Reception::new();
        reception
            .take(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab", |_| ())
            .unwrap();
        assert_eq!(reception.droppable(), Some(8));
        reception.dropped(8);
        assert!(reception.is_complete());
    }
}
