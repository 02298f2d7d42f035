//! A number with its noun, for people: `1 node`, `3 nodes`.

use std::fmt::Display;

/// `count` of what is called `one` when it is one and `many` else.
pub fn counted<N: Copy + Display + PartialEq + From<u8>>(count: N, one: &str, many: &str) -> String {
    let noun = if count == N::from(1) { one } else { many };
    format!("{count} {noun}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular_and_none_is_plural() {
        for (count, expected) in [(0_u64, "0 patches"), (1, "1 patch"), (2, "2 patches")] {
            assert_eq!(counted(count, "patch", "patches"), expected);
        }
        assert_eq!(counted([""].len(), "node is", "nodes are"), "1 node is");
    }
}
