//! A page where a file should be: what a login page, a captive portal or an error page with status 200 answers. Nobody altered the
//! file then, it was never sent, and the remedy is another one. Pure.

use reqwest::{
    Response,
    header::{CONTENT_TYPE, HeaderValue},
};

/// How pages begin, in lower case. No archive, program or document of a repository does.
const BEGINNINGS: &[&[u8]] = &[b"<!doctype html", b"<html", b"<head", b"<!-- "];

/// Whether the answer says that it is a page.
pub(super) fn is_announced(response: &Response) -> bool {
    response.headers().get(CONTENT_TYPE).is_some_and(is_type_of_pages)
}

fn is_type_of_pages(value: &HeaderValue) -> bool {
    let text = value
        .to_str()
        .unwrap_or_default()
        .trim_start()
        .to_ascii_lowercase();
    ["text/html", "application/xhtml+xml"]
        .iter()
        .any(|kind| text.starts_with(kind))
}

/// Whether a body that begins with `first` is a page.
pub(super) fn begins(first: &[u8]) -> bool {
    let text = first
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(first)
        .trim_ascii_start();
    BEGINNINGS.iter().any(|beginning| {
        text.get(..beginning.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(beginning))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_known_by_its_type_or_its_first_bytes_and_an_archive_is_none() {
        for page in [
            &b"<!DOCTYPE html><title>Sign in</title>"[..],
            b"\n  <html lang=\"en\">",
            b"\xef\xbb\xbf<!doctype HTML>",
        ] {
            assert!(begins(page), "{page:?}");
        }
        for file in [&b"\x28\xb5\x2f\xfd"[..], b"{\"signed\":{", b"\x7fELF", b"<", b""] {
            assert!(!begins(file), "{file:?}");
        }
        let is_page = |kind: &'static str| is_type_of_pages(&HeaderValue::from_static(kind));
        assert!(is_page("text/html") && is_page("Text/HTML; charset=utf-8"));
        assert!(!is_page("application/octet-stream") && !is_page("text/plain"));
    }
}
