//! Texts: what counts as one, how two changes of one are merged, how a difference is shown. Pure.

use diffy::{ConflictStyle, DiffOptions, MergeOptions};

/// The longest text that is compared line by line, in bytes. The time of a comparison grows with the square of what differs:
/// texts of this size that have nothing in common take about a second.
pub const LONGEST: usize = 256 * 1024;

/// Whether `bytes` are a text that is compared line by line: short enough, and without the byte 0.
pub fn is_text(bytes: &[u8]) -> bool {
    bytes.len() <= LONGEST && !bytes.contains(&0)
}

/// `local` with what changed from `base` to `new`; `None` where the two sides contradict each other, or one is no text.
pub fn merge(base: &[u8], local: &[u8], new: &[u8]) -> Option<Vec<u8>> {
    if ![base, local, new].into_iter().all(is_text) {
        return None;
    }
    let mut options = MergeOptions::new();
    options.set_conflict_style(ConflictStyle::Merge);
    options.merge_bytes(base, local, new).ok()
}

/// The unified difference between two texts with their names; `None` when one is no text.
pub fn unified(old: (&str, &[u8]), new: (&str, &[u8])) -> Option<String> {
    if !is_text(old.1) || !is_text(new.1) {
        return None;
    }
    let mut options = DiffOptions::new();
    options.set_original_filename(old.0.to_owned());
    options.set_modified_filename(new.0.to_owned());
    let patch = options.create_patch_bytes(old.1, new.1);
    Some(String::from_utf8_lossy(&patch.to_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn changes_of_different_lines_are_both_made_and_contradictions_are_not_guessed() {
        let base = b"one\ntwo\nthree\nfour\nfive\n";
        let local = b"one\nTWO\nthree\nfour\nfive\n";
        let new = b"one\ntwo\nthree\nfour\nFIVE\nsix\n";
        assert_eq!(
            merge(base, local, new).unwrap(),
            b"one\nTWO\nthree\nfour\nFIVE\nsix\n"
        );
        assert_eq!(merge(base, local, b"one\n2\nthree\nfour\nfive\n"), None);
    }

    #[test]
    fn only_short_texts_are_merged() {
        assert_eq!(merge(b"a\0", b"a\0b", b"a\0"), None);
        let long = vec![b'\n'; LONGEST + 1];
        assert_eq!(merge(&long, &long, &long), None);
    }

    #[test]
    fn a_difference_names_both_sides() {
        let shown = unified(("a/x", b"1\n2\n"), ("b/x", b"1\n3\n")).unwrap();
        assert_eq!(shown, "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n 1\n-2\n+3\n");
        assert_eq!(unified(("a", b"\0"), ("b", b"")), None);
    }

    fn lines() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(0_u8..4, 0..8).prop_map(|lines| {
            let mut text = Vec::new();
            for line in lines {
                text.extend_from_slice(&[b'a' + line, b'\n']);
            }
            text
        })
    }

    proptest! {
        /// What only one side changed is taken as it is.
        #[test]
        fn a_change_of_one_side_is_the_result(base in lines(), changed in lines()) {
            prop_assert_eq!(merge(&base, &changed, &base), Some(changed.clone()));
            prop_assert_eq!(merge(&base, &base, &changed), Some(changed));
        }

        /// Both sides made the same change.
        #[test]
        fn equal_changes_are_one_change(base in lines(), changed in lines()) {
            prop_assert_eq!(merge(&base, &changed, &changed), Some(changed));
        }
    }
}
