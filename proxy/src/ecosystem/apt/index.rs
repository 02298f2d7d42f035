//! Reads `Release`, `Packages`, `Sources` and `Packages.diff/Index` in one pass: all are paragraphs of `Name: value` lines, and
//! their fields tell them apart.
//!
//! | field | says |
//! |---|---|
//! | `SHA256:` with lines below | ` <digest> <size> <path>`, below the folder of the document |
//! | `SHA256-Download:` with lines below | the same, of patches |
//! | `Checksums-Sha256:` with lines below | the same, below the `Directory:` of the paragraph |
//! | `Filename:`, `Size:`, `SHA256:` | one package, below the root of the archive |

use std::{
    collections::VecDeque,
    io::{self, BufRead},
};

use kato_shared::Digest;
use url::Url;

use super::super::{Document, Known, Lesson, LessonError, MOST_LESSONS, is_own};
use crate::settings::Upstream;

/// The longest line that is kept. Longer ones, such as `Provides:` of some packages, say nothing that is learned.
const LONGEST_LINE: usize = 16 << 10;

/// See the module.
pub(super) struct Index<'d> {
    upstream: &'d Upstream,
    folder: Url,
    root: Url,
    content: Box<dyn BufRead + Send + 'd>,
    line: Vec<u8>,
    list: List,
    paragraph: Paragraph,
    ready: VecDeque<Lesson>,
    count: usize,
    has_ended: bool,
}

/// Which list the lines below a field belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    None,
    /// Of files below the document's folder.
    Files,
    /// Of the files of a source package.
    Source,
}

/// What one paragraph says about packages.
#[derive(Debug, Default)]
struct Paragraph {
    filename: Option<String>,
    size: Option<u64>,
    digest: Option<Digest>,
    directory: Option<String>,
    files: Vec<(String, Known)>,
}

impl<'d> Index<'d> {
    pub(super) fn new(document: &Document<'d>, content: Box<dyn BufRead + Send + 'd>) -> Self {
        let mut folder = document.url.clone();
        folder.set_query(None);
        let path = folder.path().to_owned();
        let in_folder = path.rfind('/').map_or("/", |at| &path[..=at]);
        // `by-hash/SHA256/<digest>` stands for a file two folders up.
        let in_folder = in_folder.strip_suffix("by-hash/SHA256/").unwrap_or(in_folder);
        folder.set_path(in_folder);
        // A flat archive has no `dists/`: names are below the folder of its index.
        let mut root = folder.clone();
        if let Some(at) = in_folder.rfind("/dists/") {
            root.set_path(&in_folder[..=at]);
        }
        Self {
            upstream: document.upstream,
            folder,
            root,
            content,
            line: Vec::new(),
            list: List::None,
            paragraph: Paragraph::default(),
            ready: VecDeque::new(),
            count: 0,
            has_ended: false,
        }
    }

    /// Takes in one line; false at the end of the document.
    fn step(&mut self) -> io::Result<bool> {
        let is_there = read_line(&mut *self.content, &mut self.line)?;
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if text.is_empty() {
            self.end_paragraph();
        } else if text.starts_with([' ', '\t']) {
            self.item(text);
        } else if let Some((name, value)) = text.split_once(':') {
            self.field(name, value.trim());
        }
        self.line = line;
        Ok(is_there)
    }

    fn field(&mut self, name: &str, value: &str) {
        self.list = List::None;
        let paragraph = &mut self.paragraph;
        match name {
            "SHA256" | "SHA256-Download" if value.is_empty() => self.list = List::Files,
            "Checksums-Sha256" => self.list = List::Source,
            "SHA256" => paragraph.digest = value.parse().ok(),
            "Size" => paragraph.size = value.parse().ok(),
            "Filename" => paragraph.filename = Some(value.to_owned()),
            "Directory" => paragraph.directory = Some(value.to_owned()),
            _ => {}
        }
    }

    fn item(&mut self, text: &str) {
        if self.list == List::None {
            return;
        }
        let mut words = text.split_ascii_whitespace();
        let digest = words.next().and_then(|hex| hex.parse().ok());
        let size = words.next().and_then(|size| size.parse().ok());
        let (Some(digest), Some(size), Some(name)) = (digest, size, words.next()) else {
            return;
        };
        let known = Known::sha256(digest, Some(size));
        if self.list == List::Source {
            self.paragraph.files.push((name.to_owned(), known));
        } else {
            self.teach(&self.folder.clone(), name, known);
        }
    }

    fn end_paragraph(&mut self) {
        self.list = List::None;
        let paragraph = std::mem::take(&mut self.paragraph);
        if let (Some(name), Some(digest)) = (paragraph.filename, paragraph.digest) {
            let size = paragraph.size;
            self.teach(&self.root.clone(), &name, Known::sha256(digest, size));
        }
        if let Some(directory) = paragraph.directory {
            for (name, known) in paragraph.files {
                self.teach(&self.root.clone(), &format!("{directory}/{name}"), known);
            }
        }
    }

    fn teach(&mut self, base: &Url, name: &str, known: Known) {
        // A name is a path, whatever it looks like.
        let Ok(url) = base.join(&format!(
            "./{}",
            name.replace('%', "%25").replace('?', "%3F").replace('#', "%23")
        )) else {
            return;
        };
        // Within the archive, and within what is configured: `../` leads nowhere.
        if !url.path().starts_with(self.root.path()) || !is_own(self.upstream, &url) {
            return;
        }
        // apt escapes `+`, others do not, and to a key they are two URLs (RFC 3986 §2.2).
        if url.path().contains('+') {
            let mut escaped = url.clone();
            escaped.set_path(&url.path().replace('+', "%2B"));
            self.ready.push_back(Lesson { url: escaped, known });
        }
        self.ready.push_back(Lesson { url, known });
    }
}

impl Iterator for Index<'_> {
    type Item = Result<Lesson, LessonError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(lesson) = self.ready.pop_front() {
                self.count += 1;
                if self.count > MOST_LESSONS {
                    self.has_ended = true;
                    self.ready.clear();
                    return Some(Err(LessonError::TooMany { most: MOST_LESSONS }));
                }
                return Some(Ok(lesson));
            }
            if self.has_ended {
                return None;
            }
            match self.step() {
                Ok(true) => {}
                Ok(false) => {
                    self.has_ended = true;
                    self.end_paragraph();
                }
                Err(error) => {
                    self.has_ended = true;
                    return Some(Err(LessonError::Read(error)));
                }
            }
        }
    }
}

/// Reads one line into `line`, without what is beyond [`LONGEST_LINE`]; false at the end.
fn read_line(content: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    loop {
        let there = content.fill_buf()?;
        if there.is_empty() {
            return Ok(!line.is_empty());
        }
        let end = memchr::memchr(b'\n', there);
        let count = end.map_or(there.len(), |at| at + 1);
        let room = LONGEST_LINE.saturating_sub(line.len());
        line.extend_from_slice(&there[..count.min(room)]);
        content.consume(count);
        if end.is_some() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests;
