//! What a client of the origin asks: as much of the request head as an origin of files needs.

use std::{
    collections::HashMap,
    io::{self, BufRead},
};

/// A request head.
#[derive(Debug)]
pub(crate) struct Request {
    /// The method.
    pub(crate) method: String,
    /// The path; an absolute form is cut to it.
    pub(crate) path: String,
    /// Whether the client keeps the connection.
    pub(crate) keep_alive: bool,
    fields: HashMap<String, String>,
}

impl Request {
    /// The next request of a connection; nothing when the client has closed it.
    ///
    /// # Errors
    /// When the connection breaks.
    pub(crate) fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let persistent = words.next().as_deref() != Some("HTTP/1.0");
        let mut fields = HashMap::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':') {
                fields.insert(name.to_ascii_lowercase(), value.trim().to_owned());
            }
        }
        let connection = fields
            .get("connection")
            .map(|value| value.to_ascii_lowercase())
            .unwrap_or_default();
        Ok(Some(Self {
            method,
            path: path_of(&target),
            keep_alive: if persistent {
                !connection.contains("close")
            } else {
                connection.contains("keep-alive")
            },
            fields,
        }))
    }

    /// A header field by its lower-case name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    /// The range `[first, past)` of a file of `size` bytes that a single `bytes=` range asks for; an error when none of it exists.
    pub(crate) fn range(&self, size: u64) -> Option<Result<(u64, u64), ()>> {
        let wanted = self.field("range")?.strip_prefix("bytes=")?;
        // Several ranges at once: the origin may ignore them, and does.
        let (first, last) = wanted.split_once('-').filter(|_| !wanted.contains(','))?;
        let (first, past) = if first.is_empty() {
            (size.saturating_sub(last.parse().ok()?), size)
        } else {
            let past = last
                .parse::<u64>()
                .map_or(size, |last| last.saturating_add(1).min(size));
            (first.parse().ok()?, past)
        };
        Some(if first < past { Ok((first, past)) } else { Err(()) })
    }

    /// Conditions, for the log.
    pub(crate) fn conditions(&self) -> String {
        let known = ["if-none-match", "if-modified-since", "if-range"];
        let named = known
            .iter()
            .filter_map(|name| Some(format!("{name}: {}", self.field(name)?)));
        named.collect::<Vec<_>>().join("; ")
    }
}

fn path_of(target: &str) -> String {
    match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]).to_owned(),
        None => target.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(range: &str) -> Request {
        let wire = format!("GET http://o:1/a HTTP/1.1\r\nRange: {range}\r\n\r\n");
        Request::read(&mut wire.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn the_three_forms_of_a_range() {
        assert_eq!(request("bytes=2-4").range(10), Some(Ok((2, 5))));
        assert_eq!(request("bytes=2-").range(10), Some(Ok((2, 10))));
        assert_eq!(request("bytes=-3").range(10), Some(Ok((7, 10))));
        assert_eq!(request("bytes=10-").range(10), Some(Err(())));
        assert_eq!(request("bytes=1-2,4-5").range(10), None);
    }

    #[test]
    fn an_absolute_target_is_cut_to_its_path() {
        assert_eq!(request("x").path, "/a");
    }
}
