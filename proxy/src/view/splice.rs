//! Replaces places in a document and leaves every other byte as it was.

use std::ops::Range;

/// `document` with each place replaced by its text. Places are in order and do not overlap; one that does not fit is left out.
pub(super) fn splice(
    document: &[u8],
    replacements: impl IntoIterator<Item = (Range<usize>, String)>,
) -> Vec<u8> {
    let mut whole = Vec::with_capacity(document.len());
    let mut copied = 0;
    for (place, text) in replacements {
        let Some(before) = document
            .get(copied..place.start)
            .filter(|_| place.end <= document.len())
        else {
            continue;
        };
        whole.extend_from_slice(before);
        whole.extend_from_slice(text.as_bytes());
        copied = place.end;
    }
    whole.extend_from_slice(&document[copied..]);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_places_change() {
        let replaced = splice(b"abcdef", [(1..2, "XX".to_owned()), (4..6, String::new())]);
        assert_eq!(replaced, b"aXXcd");
        assert_eq!(splice(b"abc", [(2..9, "?".to_owned())]), b"abc");
        assert_eq!(splice(b"", []), b"");
    }
}
