//! The paths that a release declares safe: no upgrade touches them.

use std::path::{Path, PathBuf};

use crate::paths::NodePaths;

/// Compiled patterns of safe paths.
#[derive(Debug, Clone, Default)]
pub struct SafePaths {
    patterns: Vec<glob::Pattern>,
}

impl SafePaths {
    /// The patterns of a release. Those that are none were refused when the release was read.
    pub fn new(patterns: &[String]) -> Self {
        Self {
            patterns: patterns
                .iter()
                .filter_map(|pattern| glob::Pattern::new(pattern).ok())
                .collect(),
        }
    }

    /// Whether `path`, a path of the release, is safe: it or a folder above it matches.
    pub fn contain(&self, path: &Path) -> bool {
        self.patterns.iter().any(|pattern| {
            path.ancestors()
                .any(|path| pattern.matches(&path.to_string_lossy()))
        })
    }

    /// What is there of the safe paths on this node, as paths of the release.
    pub fn present(&self, paths: &NodePaths) -> Vec<PathBuf> {
        let root = glob::Pattern::escape(&paths.root().to_string_lossy());
        let root = root.trim_end_matches('/');
        let mut found: Vec<PathBuf> = self
            .patterns
            .iter()
            .filter_map(|pattern| glob::glob(&format!("{root}{}", pattern.as_str())).ok())
            .flatten()
            .flatten()
            .filter_map(|path| Some(Path::new("/").join(path.strip_prefix(paths.root()).ok()?)))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

#[cfg(test)]
mod tests {
    use kato_shared::durable;

    use super::*;

    #[test]
    fn r43_a_safe_path_covers_everything_below_it_and_nothing_beside_it() {
        let safe = SafePaths::new(&["/s/*/custom".into(), "/home/x/*".into()]);
        for (path, expected) in [
            ("/s/web/custom", true),
            ("/s/web/custom/deep/logo", true),
            ("/home/x/a/b", true),
            ("/home/x", false),
            ("/s/web/customer", false),
            ("/s/web/index", false),
        ] {
            assert_eq!(safe.contain(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn what_is_there_is_found_below_the_root_whatever_its_name() {
        let folder = tempfile::Builder::new().prefix("ro[o]t").tempdir().unwrap();
        let paths = NodePaths::new(folder.path(), Path::new("/var/kato"));
        durable::create_folder(&folder.path().join("s/web/custom")).unwrap();
        durable::create_folder(&folder.path().join("s/api")).unwrap();
        let safe = SafePaths::new(&["/s/*/custom".into()]);
        assert_eq!(safe.present(&paths), [PathBuf::from("/s/web/custom")]);
    }
}
