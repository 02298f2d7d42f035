//! Files of digests beside the files that they are about, where the settings say so (`digests = ["SHA256SUMS", "*.sha256"]`).
//!
//! | line | as written by |
//! |---|---|
//! | `<digest>  <name>`, `<digest> *<name>` | GNU `sha256sum` |
//! | `SHA256 (<name>) = <digest>` | BSD `sha256`, GNU `sha256sum --tag` |
//! | `<digest>` alone | many release scripts, in `<name>.sha256` |
//!
//! Names are relative to the sidecar. Other lines (comments, signatures around the list, other functions) are passed over; a file
//! without a single line that is understood is damaged.
//!
//! Deliberately absent: signatures. A digest only ever forbids content, and the client checks what it trusts.

use std::{
    io::{self, BufRead, BufReader, Read},
    iter,
};

use kato_shared::Digest;
use url::Url;

use super::{Document, Known, Lesson, LessonError, Lessons, MOST_LESSONS, is_own};

/// The longest line that is read; a digest and a path.
const LONGEST_LINE: u64 = 8 << 10;

/// What one line says: the digest, and of what; `None` for the file that the sidecar is named after.
type Line<'l> = (Digest, Option<&'l str>);

/// See [`super::lessons`].
pub(super) fn lessons<'d>(document: &Document<'d>, content: Box<dyn Read + Send + 'd>) -> Lessons<'d> {
    let document = *document;
    let mut lines = BufReader::new(content);
    let (mut understood, mut count, mut has_ended) = (false, 0, false);
    let expected = "lines with SHA-256 digests";
    Box::new(iter::from_fn(move || {
        while !has_ended {
            let line = match next_line(&mut lines) {
                Ok(Some(line)) => line,
                Ok(None) => {
                    has_ended = true;
                    return (!understood).then_some(Err(LessonError::Damaged { expected }));
                }
                Err(error) => {
                    has_ended = true;
                    return Some(Err(LessonError::Read(error)));
                }
            };
            let Some((digest, name)) = read(line.trim_end()) else {
                continue;
            };
            understood = true;
            let Some(url) = named(&document, name) else {
                continue;
            };
            count += 1;
            if count > MOST_LESSONS {
                has_ended = true;
                return Some(Err(LessonError::TooMany { most: MOST_LESSONS }));
            }
            let known = Known::sha256(digest, None);
            return Some(Ok(Lesson { url, known }));
        }
        None
    }))
}

/// The next line; a longer one than any that is understood comes in pieces, which are not understood.
fn next_line(lines: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let read = lines.take(LONGEST_LINE).read_until(b'\n', &mut line)?;
    Ok((read > 0).then(|| String::from_utf8_lossy(&line).into_owned()))
}

fn read(line: &str) -> Option<Line<'_>> {
    if let Some(rest) = line.strip_prefix("SHA256 (") {
        let (name, digest) = rest.rsplit_once(") = ")?;
        return Some((hex(digest)?, Some(name)));
    }
    match line.split_once(' ') {
        None => Some((hex(line)?, None)),
        Some((digest, rest)) => {
            // The second character tells text from binary, which are the same here.
            let name = rest.strip_prefix([' ', '*']).unwrap_or(rest);
            Some((hex(digest)?, Some(name).filter(|name| !name.is_empty())))
        }
    }
}

/// 64 hexadecimal digits, in either case, and nothing else. GNU's lines with escaped names begin with a backslash, and are none.
fn hex(text: &str) -> Option<Digest> {
    let is_bare = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_bare.then(|| text.to_ascii_lowercase().parse().ok())?
}

/// The URL of the file `name` beside the sidecar; without a name, of the one that the sidecar is named after.
fn named(document: &Document<'_>, name: Option<&str>) -> Option<Url> {
    let mut url = document.url.clone();
    url.set_query(None);
    if let Some(name) = name {
        let mut segments = name.split('/').filter(|segment| *segment != ".").peekable();
        // Neither away from the folder nor to an absolute path.
        segments.peek().filter(|first| !first.is_empty())?;
        let mut path = url.path_segments_mut().ok()?;
        path.pop();
        for segment in segments {
            if segment == ".." {
                return None;
            }
            path.push(segment);
        }
    } else {
        let (stem, _ending) = url.path().rsplit_once('.')?;
        if stem.ends_with('/') {
            return None;
        }
        let stem = stem.to_owned();
        url.set_path(&stem);
    }
    (url != *document.url && is_own(document.upstream, &url)).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Upstream;

    fn learned(path: &str, text: &str) -> Result<Vec<(String, Digest)>, String> {
        let upstream: Upstream = "dl=https://dl.example/base/".parse().unwrap();
        let url = Url::parse(&format!("https://dl.example/base/{path}")).unwrap();
        let document = Document {
            upstream: &upstream,
            url: &url,
            path,
        };
        let content = Box::new(io::Cursor::new(text.as_bytes().to_vec()));
        lessons(&document, content)
            .map(|lesson| lesson.map(|lesson| (lesson.url.path().to_owned(), lesson.known.digest().unwrap())))
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_form_of_line_teaches_and_others_are_passed_over() {
        let digest = Digest::of(b"content");
        let (hex, upper) = (digest.hex(), digest.hex().to_ascii_uppercase());
        let paths = |path: &str, text: &str| -> Vec<String> {
            let learned = learned(path, text).unwrap();
            assert!(learned.iter().all(|(_, known)| *known == digest));
            learned.into_iter().map(|(path, _)| path).collect()
        };
        for (path, text, expected) in [
            (
                "v1/SHA256SUMS",
                format!("{hex}  a.tar.gz\n{upper} *b c+d.zip\r\n"),
                &["/base/v1/a.tar.gz", "/base/v1/b%20c+d.zip"][..],
            ),
            ("v1/SHA256SUMS", format!("{hex}  ./sub/a\n"), &["/base/v1/sub/a"]),
            (
                "v1/SUMS",
                format!("SHA256 (a (1).gz) = {hex}\nSHA512 (x) = {hex}{hex}\n"),
                &["/base/v1/a%20(1).gz"],
            ),
            ("v1/a.tar.gz.sha256", hex.clone(), &["/base/v1/a.tar.gz"]),
            (
                "v1/a.tar.gz.sha256",
                format!("{hex}  a.tar.gz\n"),
                &["/base/v1/a.tar.gz"],
            ),
            (
                "SUMS",
                format!("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{hex}  a\n"),
                &["/base/a"],
            ),
            // Away from its folder, to itself, or to nothing that has a name.
            (
                "v1/SUMS",
                format!("{hex}  ../a\n{hex}  /etc/a\n{hex}  x/../../a\n{hex}  SUMS\n{hex}  a/../b\n"),
                &[],
            ),
            ("v1/SUMS", hex.clone(), &[]),
        ] {
            assert_eq!(paths(path, &text), expected, "{path}: {text}");
        }
        // A URL is a name like any other: it does not lead away.
        let foreign = paths("v1/SUMS", &format!("{hex}  https://other.example/a\n"));
        assert!(
            foreign.iter().all(|path| path.starts_with("/base/v1/https:/")),
            "{foreign:?}"
        );
    }

    #[test]
    fn what_holds_no_digest_at_all_is_damaged() {
        for text in [
            "",
            "<html>not found</html>\n",
            &"0".repeat(63),
            &"a".repeat(20_000),
        ] {
            assert!(
                learned("SUMS", text)
                    .unwrap_err()
                    .contains("lines with SHA-256 digests")
            );
        }
    }
}
