//! Documents as archives write them.

use proptest::prelude::*;

use super::*;
use crate::settings::Kind;

fn upstream() -> Upstream {
    serde_json::from_value(serde_json::json!({
        "name": "deb",
        "urls": ["http://deb.example/debian/"],
        "kind": "packages",
    }))
    .unwrap()
}

fn taught(path: &str, text: &str) -> Vec<(String, Known)> {
    let upstream = upstream();
    assert_eq!(upstream.kind, Kind::Packages);
    let url = Url::parse(&format!("http://deb.example/debian/{path}")).unwrap();
    let document = Document {
        upstream: &upstream,
        url: &url,
        path,
    };
    let lessons = super::super::lessons(&document, Box::new(text.as_bytes()));
    lessons
        .map(|lesson| lesson.unwrap())
        .map(|lesson| {
            let short = lesson.url.as_str().strip_prefix("http://deb.example/debian/");
            (short.unwrap().to_owned(), lesson.known)
        })
        .collect()
}

fn known(text: &str, size: u64) -> Known {
    Known::sha256(Digest::of(text.as_bytes()), Some(size))
}

#[test]
fn a_release_teaches_the_indexes_below_its_folder() {
    let (a, b) = (Digest::of(b"a").hex(), Digest::of(b"b").hex());
    let text = format!(
        "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nSuite: stable\nMD5Sum:\n 0cc175b9c0f1b6a831c399e269772661 1 wrong\nAcquire-By-Hash: yes\nSHA256:\n {a}        7 main/binary-amd64/Packages\n {b}  12345 main/i18n/Translation-en.xz\n {b}  1 ../../../../etc/passwd\nNot-Here: {a}\n-----BEGIN PGP SIGNATURE-----\n\nabc\n-----END PGP SIGNATURE-----\n"
    );
    assert_eq!(
        taught("dists/stable/InRelease", &text),
        [
            (
                "dists/stable/main/binary-amd64/Packages".to_owned(),
                known("a", 7)
            ),
            (
                "dists/stable/main/i18n/Translation-en.xz".to_owned(),
                known("b", 12345)
            ),
        ]
    );
}

#[test]
fn packages_teach_what_lies_below_the_root_of_the_archive() {
    let (a, b) = (Digest::of(b"a").hex(), Digest::of(b"b").hex());
    let long = "x".repeat(3 * LONGEST_LINE);
    let text = format!(
        "Package: hello\nFilename: pool/h/hello_1.0_amd64.deb\nProvides: {long}\nSize: 10\nSHA256: {a}\n\nPackage: g++\nSHA256: {b}\nFilename: pool/g/g++_1_amd64.deb\n\nPackage: unknown\nFilename: pool/u.deb\nSize: 1\n"
    );
    let hex = "c".repeat(64);
    let plus = Known::sha256(Digest::of(b"b"), None);
    for path in [
        "dists/stable/main/binary-amd64/Packages".to_owned(),
        format!("dists/stable/main/binary-amd64/by-hash/SHA256/{hex}"),
        // A flat archive.
        "Packages".to_owned(),
    ] {
        assert_eq!(
            taught(&path, &text),
            [
                ("pool/h/hello_1.0_amd64.deb".to_owned(), known("a", 10)),
                ("pool/g/g%2B%2B_1_amd64.deb".to_owned(), plus),
                ("pool/g/g++_1_amd64.deb".to_owned(), plus),
            ],
            "{path}"
        );
    }
}

#[test]
fn sources_and_patches_teach_their_files() {
    let a = Digest::of(b"a").hex();
    let sources = format!(
        "Package: hello\nChecksums-Sha256:\n {a} 5 hello_1.0.dsc\n {a} 6 hello_1.0.tar.xz\nDirectory: pool/h\n"
    );
    assert_eq!(
        taught("dists/s/main/source/Sources", &sources),
        [
            ("pool/h/hello_1.0.dsc".to_owned(), known("a", 5)),
            ("pool/h/hello_1.0.tar.xz".to_owned(), known("a", 6)),
        ]
    );
    let patches = format!(
        "SHA256-Current: {a} 1\nSHA256-History:\n {a} 1 T-1\nSHA256-Patches:\n {a} 2 T-1\nSHA256-Download:\n {a} 3 T-1.gz\n"
    );
    assert_eq!(
        taught("dists/s/main/binary-amd64/Packages.diff/Index", &patches),
        [(
            "dists/s/main/binary-amd64/Packages.diff/T-1.gz".to_owned(),
            known("a", 3)
        )]
    );
}

#[test]
fn names_are_paths_whatever_they_look_like() {
    let a = Digest::of(b"a").hex();
    let text = format!(
        "Filename: http://other.example/x.deb\nSHA256: {a}\n\nFilename: //other.example/x.deb\nSHA256: {a}\n\nFilename: pool/a?b#c%2e.deb\nSHA256: {a}\n"
    );
    let urls: Vec<_> = taught("Packages", &text)
        .into_iter()
        .map(|(url, _)| url)
        .collect();
    assert_eq!(
        urls,
        [
            "http://other.example/x.deb",
            "//other.example/x.deb",
            "pool/a%3Fb%23c%252e.deb"
        ]
    );
}

proptest! {
    #[test]
    fn no_text_makes_it_panic_or_teach_about_another_place(text in "((SHA256|Filename|Directory|Checksums-Sha256|Size):[ -~]{0,20}\n| [0-9a-f]{64} [0-9]{1,3} [./a-z]{1,9}\n|\n){0,20}") {
        // What is beside the base would fail to strip its prefix.
        let _urls = taught("dists/s/Release", &text);
    }
}
