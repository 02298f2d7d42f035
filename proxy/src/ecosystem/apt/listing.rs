//! The names of an index in a suite: its own, and one in `by-hash` for each function that `InRelease` or `Release` lists it by
//! ([RepositoryFormat], "indices acquisition via hashsums"). Which of them a client asks by is for the client: the strongest, as a rule.
//!
//! Here every name leads to the SHA-256 that the same document lists, which is how content is stored. The document is scanned, not read into
//! tables: one of a large distribution has some thousand lines, and is asked about seldom.
//!
//! [RepositoryFormat]: https://wiki.debian.org/DebianRepository/Format

use kato_shared::Digest;

/// The functions by which documents list indexes, the strongest first, as sections and folders call them.
const FUNCTIONS: [&str; 4] = ["SHA512", "SHA256", "SHA1", "MD5Sum"];

/// What is signed of a suite stands for it, and is no index.
const DOCUMENTS: [&str; 3] = ["InRelease", "Release", "Release.gpg"];

/// Whether `path` may be a name of an index that a document above it lists.
pub(crate) fn is_listed_name(path: &str) -> bool {
    in_by_hash(path).is_some()
        || super::is_named(path) && !DOCUMENTS.contains(&path.rsplit('/').next().unwrap_or(path))
}

/// Whether `path` is a name by digest: it stands for the same content for good.
pub(crate) fn is_by_hash(path: &str) -> bool {
    in_by_hash(path).is_some()
}

/// The SHA-256 that `document` lists for the index that is called `name` below the document's folder, by itself or in `by-hash`.
pub(crate) fn listed(document: &[u8], name: &str) -> Option<Digest> {
    let plain = match in_by_hash(name) {
        None => name,
        Some((folder, function, hex)) => {
            let mut lines = lines(document, function);
            let found =
                lines.find(|line| line.hex.eq_ignore_ascii_case(hex) && folder_of(line.path) == folder);
            found?.path
        }
    };
    let mut lines = lines(document, "SHA256");
    lines.find(|line| line.path == plain)?.hex.parse().ok()
}

/// The names by which a client asks for the index `path` of `document`, in its order; none where the document does not list it.
pub(crate) fn names(document: &[u8], path: &str) -> Vec<String> {
    let mut found = FUNCTIONS.iter().filter_map(|function| {
        Some((
            function,
            lines(document, function).find(|line| line.path == path)?,
        ))
    });
    let Some((function, strongest)) = found.next() else {
        return Vec::new();
    };
    let by_hash = has_by_hash(document).then(|| match folder_of(path) {
        "" => format!("by-hash/{function}/{}", strongest.hex),
        folder => format!("{folder}/by-hash/{function}/{}", strongest.hex),
    });
    by_hash.into_iter().chain([path.to_owned()]).collect()
}

/// The components and architectures of which `document` lists indexes of packages, as `main/binary-amd64`; each once, in its order.
pub(crate) fn offered(document: &[u8]) -> Vec<String> {
    let mut offered = Vec::new();
    for function in FUNCTIONS {
        for line in lines(document, function) {
            let folder = folder_of(line.path);
            let is_of_packages = folder
                .rsplit('/')
                .next()
                .is_some_and(|last| last.starts_with("binary-"));
            let name = line.path.strip_prefix(folder).unwrap_or_default();
            if is_of_packages && name.starts_with("/Packages") && !offered.iter().any(|one| one == folder) {
                offered.push(folder.to_owned());
            }
        }
    }
    offered
}

/// A line of a list.
#[derive(Clone, Copy)]
struct Line<'d> {
    hex: &'d str,
    path: &'d str,
}

/// The lines of the list by `function`.
fn lines<'d>(document: &'d [u8], function: &str) -> impl Iterator<Item = Line<'d>> {
    let mut is_inside = false;
    let texts = document.split(|byte| *byte == b'\n');
    let texts = texts.filter_map(|line| std::str::from_utf8(line).ok());
    texts.filter_map(move |line| {
        if !line.starts_with([' ', '\t']) {
            is_inside = line.trim_end().strip_suffix(':') == Some(function);
            return None;
        }
        if !is_inside {
            return None;
        }
        // ` <digest> <size> <path>`.
        let mut words = line.split_ascii_whitespace();
        let (hex, path) = (words.next()?, words.nth(1)?);
        Some(Line { hex, path })
    })
}

/// Whether clients ask by digest first.
fn has_by_hash(document: &[u8]) -> bool {
    document.split(|byte| *byte == b'\n').any(|line| {
        let value = line.strip_prefix(b"Acquire-By-Hash:").map(<[u8]>::trim_ascii);
        value.is_some_and(|value| value.eq_ignore_ascii_case(b"yes"))
    })
}

/// The folder of the index, the function, and the digest of a name in `by-hash`.
fn in_by_hash(path: &str) -> Option<(&str, &str, &str)> {
    let (folder, hex) = path.rsplit_once('/')?;
    let (by_hash, function) = folder.rsplit_once('/')?;
    let folder = match by_hash.strip_suffix("by-hash")? {
        "" => "",
        folder => folder.strip_suffix('/')?,
    };
    FUNCTIONS.contains(&function).then_some((folder, function, hex))
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A document that lists two indexes of equal content in two folders by `functions`.
    fn document(functions: &[(&str, &str)], head: &str) -> String {
        let lists = functions.iter().map(|(function, hex)| {
            format!(
                "{function}:\n {hex} 3 main/binary-amd64/Packages.xz\n {hex} 3 main/i18n/Translation-en\n {hex} 3 Contents\n"
            )
        });
        format!("Suite: s\n{head}{}", lists.collect::<String>())
    }

    #[test]
    fn every_name_of_an_index_leads_to_its_content_and_no_other_name_does() {
        let digest = Digest::of(b"abc");
        let (own, hex) = (digest.hex(), "ab".repeat(64));
        let functions = [("MD5Sum", "0123"), ("SHA256", own.as_str()), ("SHA512", &hex)];
        let text = document(&functions, "");
        let at = |name: &str| listed(text.as_bytes(), name);
        for name in [
            "main/binary-amd64/Packages.xz".to_owned(),
            format!("main/binary-amd64/by-hash/SHA512/{hex}"),
            format!("main/binary-amd64/by-hash/SHA512/{}", hex.to_uppercase()),
            format!("main/binary-amd64/by-hash/SHA256/{own}"),
            "main/i18n/by-hash/MD5Sum/0123".to_owned(),
            format!("by-hash/SHA512/{hex}"),
        ] {
            assert!(is_listed_name(&format!("dists/s/{name}")), "{name}");
            assert_eq!(at(&name), Some(digest), "{name}");
        }
        for name in [
            "main/binary-amd64/Packages".to_owned(),
            "main/binary-arm64/Packages.xz".to_owned(),
            format!("main/binary-arm64/by-hash/SHA512/{hex}"),
            format!("main/binary-amd64/by-hash/SHA1/{hex}"),
            format!("main/binary-amd64/by-hash/SHA512/{own}"),
        ] {
            assert_eq!(at(&name), None, "{name}");
        }
        // What only another function lists has no name in a store.
        let without = document(&[("SHA512", &hex)], "");
        assert_eq!(listed(without.as_bytes(), "main/binary-amd64/Packages.xz"), None);
        for path in [
            "dists/s/InRelease",
            "dists/s/Release.gpg",
            "pool/h.deb",
            "pool/by-hash/SHA3/00",
        ] {
            assert!(!is_listed_name(path), "{path}");
        }
    }

    #[test]
    fn a_client_asks_by_the_strongest_function_first_and_only_where_the_archive_has_that() {
        let functions = [("MD5Sum", "01"), ("SHA512", "02"), ("SHA256", "03")];
        let path = "main/binary-amd64/Packages.xz";
        let plain = document(&functions, "");
        assert_eq!(names(plain.as_bytes(), path), [path]);
        let by_hash = document(&functions, "Acquire-By-Hash: yes\n");
        assert_eq!(
            names(by_hash.as_bytes(), path),
            ["main/binary-amd64/by-hash/SHA512/02", path]
        );
        assert_eq!(
            names(by_hash.as_bytes(), "Contents"),
            ["by-hash/SHA512/02", "Contents"]
        );
        assert_eq!(
            names(by_hash.as_bytes(), "main/binary-arm64/Packages.xz"),
            [""; 0]
        );
        assert_eq!(offered(by_hash.as_bytes()), ["main/binary-amd64"]);
    }
}
