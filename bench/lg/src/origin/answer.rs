//! One response: validators, ranges, and the body at its rate until it ends or goes wrong.

use std::{
    fs::{self, File},
    io::{self, Write},
    net::TcpStream,
    os::unix::fs::FileExt,
    thread,
    time::{Duration, UNIX_EPOCH},
};

use super::{Origin, fault::Faults, ledger::Receipt, link::Link, request::Request};
use crate::clock;

/// Bytes written at once.
const PIECE: u64 = 64 * 1024;
/// How long a stalled response keeps its connection open.
const STALL: Duration = Duration::from_secs(600);

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Connection<'a> {
    origin: &'a Origin,
    socket: TcpStream,
}

/// The file that is asked for, as HTTP sees it.
#[derive(Debug)]
struct Representation {
    file: File,
    size: u64,
    etag: String,
    last_modified: String,
}

impl<'a> Connection<'a> {
    /// Over `socket`.
    pub(crate) fn new(origin: &'a Origin, socket: TcpStream) -> Self {
        Self { origin, socket }
    }

    /// Sends a JSON document.
    ///
    /// # Errors
    /// When the client is gone.
    pub(crate) fn document(&mut self, text: &str) -> io::Result<bool> {
        let length = text.len();
        write!(
            self.socket,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{text}"
        )?;
        Ok(true)
    }

    /// Answers a request for a file; false when the connection is to be closed.
    ///
    /// # Errors
    /// When the client is gone.
    pub(crate) fn answer(&mut self, request: &Request) -> io::Result<bool> {
        let (faults, file) = Faults::of(&request.path);
        let receipt = self.origin.ledger.open(request);
        thread::sleep(faults.delay);
        let found = if file.contains("..") {
            None
        } else {
            Representation::open(&self.origin.root.join(file))
        };
        let Some(found) = found else {
            return self.bare(receipt, 404, "Not Found", "Content-Length: 0\r\n");
        };
        let common = found.fields(&faults);
        if !faults.no_validators && found.is_current(request) {
            return self.bare(receipt, 304, "Not Modified", &common);
        }
        let wanted = request.range(found.size).filter(|_| {
            !faults.no_range
                && request
                    .field("if-range")
                    .is_none_or(|validator| found.is(validator))
        });
        let (first, past, status) = match wanted {
            None => (0, found.size, 200),
            Some(Ok((first, past))) => (first, past, 206),
            Some(Err(())) => {
                let fields = format!("Content-Range: bytes */{}\r\nContent-Length: 0\r\n", found.size);
                return self.bare(receipt, 416, "Range Not Satisfiable", &fields);
            }
        };
        self.origin.ledger.status(receipt, status);
        let head = head(&common, &faults, (first, past, found.size), status);
        self.socket.write_all(head.as_bytes())?;
        if request.method == "HEAD"
            || self.body(&request.path, &found.file, &faults, (first, past, receipt))?
        {
            self.origin.ledger.done(receipt);
            return Ok(true);
        }
        Ok(false)
    }

    /// A response without content.
    fn bare(&mut self, receipt: Receipt, status: u16, reason: &str, fields: &str) -> io::Result<bool> {
        self.origin.ledger.status(receipt, status);
        self.origin.ledger.done(receipt);
        write!(self.socket, "HTTP/1.1 {status} {reason}\r\n{fields}\r\n")?;
        Ok(true)
    }

    /// Sends `[first, past)`; false when it went wrong on request.
    fn body(
        &mut self,
        path: &str,
        file: &File,
        faults: &Faults,
        (first, past, receipt): (u64, u64, Receipt),
    ) -> io::Result<bool> {
        let mut fault_at = faults.offset(first, past);
        let mut own = Link::new(faults.rate);
        let mut piece = Vec::new();
        let mut offset = first;
        while offset < past {
            if fault_at == Some(offset) {
                if self.origin.fired.once_more(path, faults.times) {
                    self.fail(faults)?;
                    return Ok(false);
                }
                fault_at = None;
            }
            let end = past.min(offset + PIECE).min(fault_at.unwrap_or(past));
            piece.resize(usize::try_from(end - offset).map_err(io::Error::other)?, 0);
            own.pass(piece.len());
            self.origin.link.pass(piece.len());
            file.read_exact_at(&mut piece, offset)?;
            if faults.chunked {
                write!(self.socket, "{:x}\r\n", piece.len())?;
            }
            self.socket.write_all(&piece)?;
            if faults.chunked {
                self.socket.write_all(b"\r\n")?;
            }
            self.origin.ledger.sent(receipt, end - offset);
            offset = end;
        }
        if faults.chunked {
            self.socket.write_all(b"0\r\n\r\n")?;
        }
        Ok(true)
    }

    fn fail(&self, faults: &Faults) -> io::Result<()> {
        if faults.die.is_none() {
            thread::sleep(STALL);
        }
        if faults.reset {
            // The next close sends RST instead of FIN.
            rustix::net::sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO))?;
        }
        Ok(())
    }
}

impl Representation {
    fn open(path: &std::path::Path) -> Option<Self> {
        let facts = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        let modified = facts.modified().ok()?;
        let seconds = modified.duration_since(UNIX_EPOCH).ok()?.as_secs();
        Some(Self {
            file: File::open(path).ok()?,
            size: facts.len(),
            etag: format!("\"{seconds:x}-{:x}\"", facts.len()),
            last_modified: httpdate::fmt_http_date(modified),
        })
    }

    /// Whether `validator` is one of this representation's.
    fn is(&self, validator: &str) -> bool {
        validator == self.etag || validator == self.last_modified
    }

    /// Whether the client has it already.
    fn is_current(&self, request: &Request) -> bool {
        request
            .field("if-none-match")
            .or_else(|| request.field("if-modified-since"))
            .is_some_and(|validator| self.is(validator))
    }

    /// Fields of every response that speaks of it.
    fn fields(&self, faults: &Faults) -> String {
        let date = httpdate::fmt_http_date(clock::wall());
        let max_age = faults.max_age.unwrap_or(86_400);
        let validators = if faults.no_validators {
            String::new()
        } else {
            format!("ETag: {}\r\nLast-Modified: {}\r\n", self.etag, self.last_modified)
        };
        format!("Server: lg\r\nDate: {date}\r\nCache-Control: public, max-age={max_age}\r\n{validators}")
    }
}

/// The head of a response with content.
fn head(common: &str, faults: &Faults, (first, past, size): (u64, u64, u64), status: u16) -> String {
    let reason = if status == 206 { "Partial Content" } else { "OK" };
    let ranges = if faults.no_range || faults.chunked {
        ""
    } else {
        "Accept-Ranges: bytes\r\n"
    };
    let range = if status == 206 {
        format!("Content-Range: bytes {first}-{}/{size}\r\n", past - 1)
    } else {
        String::new()
    };
    let framing = if faults.chunked {
        "Transfer-Encoding: chunked".to_owned()
    } else {
        format!("Content-Length: {}", past - first)
    };
    format!(
        "HTTP/1.1 {status} {reason}\r\n{common}Content-Type: application/octet-stream\r\n{ranges}{range}{framing}\r\n\r\n"
    )
}
