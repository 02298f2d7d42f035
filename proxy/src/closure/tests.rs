use std::collections::BTreeMap;

use jiff::Timestamp;

use super::*;
use crate::{prefetch::LockKind, snapshot::Class};

/// A snapshot under construction, with its content.
#[derive(Default)]
pub(super) struct Held {
    entries: Vec<Entry>,
    content: HashMap<Digest, Bytes>,
}

impl Held {
    /// The last thing was chosen by a request with this `Accept`, of which an origin with `Vary: Accept` has made this type.
    pub(super) fn chosen_by(&mut self, accept: Option<&str>, media_type: &str) {
        let last = self.entries.last_mut().unwrap();
        last.vary = BTreeMap::from([("accept".to_owned(), accept.map(str::to_owned))]);
        last.headers = vec![("content-type".to_owned(), media_type.to_owned())];
    }

    pub(super) fn put(&mut self, url: &str, body: &str) -> Digest {
        let digest = Digest::of(body.as_bytes());
        self.content.insert(digest, Bytes::from(body.to_owned()));
        self.entries.push(Entry {
            key: format!("GET {url}"),
            vary: BTreeMap::new(),
            status: 200,
            headers: Vec::new(),
            digest,
            length: body.len() as u64,
            time: Timestamp::UNIX_EPOCH,
            class: Class::Mutable,
            group: String::new(),
            upstream: "u".into(),
            found_at: None,
        });
        digest
    }

    /// What is missing, without the thing of which this is the URL's end.
    pub(super) fn gaps(&self, declared: &Declaration, without: &str) -> Vec<String> {
        let entries = self.entries.iter();
        let left = entries.filter(|entry| without.is_empty() || !entry.key.ends_with(without));
        let snapshot = Snapshot::new(left.cloned().collect());
        let report = check(
            &snapshot,
            &|digest| self.content.get(digest).cloned(),
            declared,
            &indexes(),
        );
        report.gaps.into_iter().map(|gap| gap.missing).collect()
    }

    pub(super) fn report(&self, declared: &Declaration) -> Report {
        let snapshot = Snapshot::new(self.entries.clone());
        check(
            &snapshot,
            &|digest| self.content.get(digest).cloned(),
            declared,
            &indexes(),
        )
    }

    pub(super) fn remove(&mut self, end: &str) {
        self.entries.retain(|entry| !entry.key.ends_with(end));
    }
}

const REPOSITORY: &str = "https://r.example/v2/a";

fn image(held: &mut Held) -> Vec<Digest> {
    let mut children = Vec::new();
    let mut digests = Vec::new();
    for architecture in ["amd64", "arm64"] {
        let config = format!("config {architecture}");
        let layer = format!("layer {architecture}");
        let of = |text: &str| {
            format!(
                r#"{{"digest":"{}","size":{}}}"#,
                Digest::of(text.as_bytes()),
                text.len()
            )
        };
        let manifest = format!(r#"{{"config":{},"layers":[{}]}}"#, of(&config), of(&layer));
        for text in [&config, &layer] {
            let digest = Digest::of(text.as_bytes());
            held.put(&format!("{REPOSITORY}/blobs/{digest}"), text);
            digests.push(digest);
        }
        let digest = Digest::of(manifest.as_bytes());
        held.put(&format!("{REPOSITORY}/manifests/{digest}"), &manifest);
        children.push(format!(
            r#"{{"digest":"{digest}","size":1,"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#
        ));
    }
    held.put(
        &format!("{REPOSITORY}/manifests/1.0"),
        &format!(r#"{{"manifests":[{}]}}"#, children.join(",")),
    );
    digests
}

#[test]
fn an_image_is_closed_for_the_declared_platforms_alone() {
    let mut held = Held::default();
    let digests = image(&mut held);
    let all = Declaration {
        images: vec![DeclaredImage {
            repository: REPOSITORY.into(),
            reference: "1.0".into(),
        }],
        ..Declaration::default()
    };
    let amd64 = Declaration {
        platforms: vec!["linux/amd64".parse().unwrap()],
        ..all.clone()
    };
    assert_eq!(held.gaps(&all, ""), Vec::<String>::new());
    let layer = digests[3].to_string();
    assert_eq!(held.gaps(&all, &layer), [format!("{REPOSITORY}/blobs/{layer}")]);
    assert_eq!(held.gaps(&amd64, &layer), Vec::<String>::new());
    assert_eq!(held.gaps(&all, "/1.0"), [format!("{REPOSITORY}/manifests/1.0")]);
    let mistyped = Declaration {
        platforms: vec!["linux/amd64".parse().unwrap(), "linux/x86_64".parse().unwrap()],
        ..all
    };
    let gaps = held.gaps(&mistyped, "");
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert!(
        gaps[0].contains("none for linux/x86_64: it is offered for linux/amd64, linux/"),
        "{gaps:?}"
    );
}

#[test]
fn what_refers_to_an_image_belongs_to_it() {
    let mut held = Held::default();
    image(&mut held);
    let index = held
        .entries
        .iter()
        .find(|entry| entry.key.ends_with("/1.0"))
        .unwrap()
        .digest;
    let signature = Digest::of(b"signature");
    held.put(
        &format!("{REPOSITORY}/referrers/{index}"),
        &format!(r#"{{"manifests":[{{"digest":"{signature}","size":9}}]}}"#),
    );
    let declared = Declaration {
        images: vec![DeclaredImage {
            repository: REPOSITORY.into(),
            reference: "1.0".into(),
        }],
        ..Declaration::default()
    };
    assert_eq!(
        held.gaps(&declared, ""),
        [format!("{REPOSITORY}/manifests/{signature}")]
    );
}

/// The names that a client asks by, as apt-ftparchive lists an index: by four functions, of which the strongest counts.
#[test]
fn an_index_is_there_under_every_name_that_its_suite_lists() {
    let packages = "Package: h\nVersion: 1\nFilename: pool/h.deb\n";
    let digest = Digest::of(packages.as_bytes()).hex();
    let strongest = "5a".repeat(64);
    let release = |of_sha256: &str| {
        format!(
            "Acquire-By-Hash: yes\nMD5Sum:\n 01 1 main/binary-amd64/Packages\nSHA256:\n{of_sha256}SHA512:\n {strongest} 1 main/binary-amd64/Packages\n"
        )
    };
    let declared = |architecture: &str| Declaration {
        suites: vec![DeclaredSuite {
            archive: "http://d.example".into(),
            suite: "s".into(),
            components: vec!["main".into()],
            architectures: vec![architecture.into()],
            packages: Vec::new(),
            status: None,
            recommends: false,
        }],
        ..Declaration::default()
    };
    let below = |name: &str| format!("http://d.example/dists/s/{name}");
    let listed = format!(" {digest} 1 main/binary-amd64/Packages\n");
    for (of_sha256, held_as, expected) in [
        (listed.as_str(), format!("by-hash/SHA256/{digest}"), true),
        (&listed, "Packages".to_owned(), true),
        (&listed, "by-hash/MD5Sum/01".to_owned(), true),
        // Without the digest by which content is known, only its own name finds it.
        ("", format!("by-hash/SHA512/{strongest}"), true),
        ("", "by-hash/MD5Sum/01".to_owned(), false),
    ] {
        let mut held = Held::default();
        held.put(&below("InRelease"), &release(of_sha256));
        held.put(&below(&format!("main/binary-amd64/{held_as}")), packages);
        assert_eq!(
            held.gaps(&declared("amd64"), "").is_empty(),
            expected,
            "{held_as}"
        );
        let gaps = held.gaps(&declared("arm64"), "");
        assert_eq!(
            gaps,
            ["main/binary-arm64: the suite has no such index, but main/binary-amd64"]
        );
    }
    // Content of another generation is none of it.
    let mut torn = Held::default();
    torn.put(&below("InRelease"), &release(&listed));
    torn.put(&below("main/binary-amd64/Packages"), "Package: old\n");
    assert!(torn.gaps(&declared("amd64"), "")[0].contains("in any compression"));
}

#[test]
fn a_suite_is_closed_from_its_signature_to_the_packages_of_the_list() {
    let mut held = Held::default();
    let deb = held.put("http://d.example/debian/pool/h.deb", "deb");
    let packages = format!(
        "Package: h\nVersion: 1\nFilename: pool/h.deb\nSHA256: {}\nDescription: x\n more: text\n\nPackage: other\nVersion: 1\nFilename: pool/o.deb\n",
        deb.hex()
    );
    let index = Digest::of(packages.as_bytes());
    let listed = format!(
        "Suite: s\nMD5Sum:\n 00 1 x\nSHA256:\n {} {} main/binary-amd64/Packages\n",
        index.hex(),
        packages.len()
    );
    held.put("http://d.example/debian/dists/s/InRelease", &listed);
    held.put(
        &format!(
            "http://d.example/debian/dists/s/main/binary-amd64/by-hash/SHA256/{}",
            index.hex()
        ),
        &packages,
    );
    let with = |names: &[&str]| Declaration {
        suites: vec![DeclaredSuite {
            archive: "http://d.example/debian".into(),
            suite: "s".into(),
            components: vec!["main".into()],
            architectures: vec!["amd64".into()],
            packages: names.iter().map(|name| name.parse().unwrap()).collect(),
            status: None,
            recommends: false,
        }],
        ..Declaration::default()
    };
    assert_eq!(held.gaps(&with(&["h", "h=1"]), ""), Vec::<String>::new());
    assert_eq!(
        held.gaps(&with(&["h"]), "h.deb"),
        ["http://d.example/debian/pool/h.deb"]
    );
    assert_eq!(
        held.gaps(&with(&["other"]), ""),
        ["http://d.example/debian/pool/o.deb"]
    );
    assert_eq!(
        held.gaps(&with(&["none", "h=2"]), ""),
        [
            "package h=2: the indexes of amd64 list h 1",
            "package none: in no index of amd64"
        ]
    );
    assert_eq!(
        held.gaps(&with(&[]), "InRelease"),
        ["http://d.example/debian/dists/s/InRelease"]
    );
    assert!(held.gaps(&with(&[]), &index.hex())[0].contains("in any compression"));
}

const AMD64: &str = r#"{"os":"linux","architecture":"amd64"}"#;
const ARM7: &str = r#"{"os":"linux","architecture":"arm","variant":"v7"}"#;
const ARM64: &str = r#"{"os":"linux","architecture":"arm64"}"#;

/// A configuration, the platforms that are declared, and what is said then.
const PLATFORMS: &[(&str, &[&str], &str)] = &[
    (AMD64, &[], ""),
    (AMD64, &["linux/amd64"], ""),
    (
        AMD64,
        &["linux/arm64"],
        "there is none for linux/arm64: it is offered for linux/amd64",
    ),
    (
        AMD64,
        &["linux/amd64", "linux/arm64"],
        "there is none for linux/arm64: it is offered for linux/amd64",
    ),
    (AMD64, &["windows/amd64"], "there is none for windows/amd64"),
    (ARM7, &["linux/arm/v7"], ""),
    (ARM7, &["linux/arm"], ""),
    (
        ARM7,
        &["linux/arm/v6"],
        "there is none for linux/arm/v6: it is offered for linux/arm/v7",
    ),
    // The variant that clients take for granted.
    (ARM64, &["linux/arm64/v8"], ""),
    (ARM64, &["linux/arm64/v9"], "there is none for linux/arm64/v9"),
    ("{}", &[], ""),
    (
        "{}",
        &["linux/amd64"],
        "does not say for which platform it is; linux/amd64 was declared",
    ),
];

/// A manifest that is in no index is for the platform that its configuration names.
#[test]
fn a_single_manifest_is_for_the_platform_of_its_configuration() {
    let gaps = |config: &str, media_type: &str, platforms: &[&str]| {
        let mut held = Held::default();
        let digest = held.put(
            &format!("{REPOSITORY}/blobs/{}", Digest::of(config.as_bytes())),
            config,
        );
        held.put(
            &format!("{REPOSITORY}/manifests/1.0"),
            &format!(
                r#"{{"config":{{"mediaType":"{media_type}","digest":"{digest}","size":1}},"layers":[]}}"#
            ),
        );
        let declared = Declaration {
            images: vec![DeclaredImage {
                repository: REPOSITORY.into(),
                reference: "1.0".into(),
            }],
            platforms: platforms
                .iter()
                .map(|platform| platform.parse().unwrap())
                .collect(),
            ..Declaration::default()
        };
        held.gaps(&declared, "").join("; ")
    };
    let oci = "application/vnd.oci.image.config.v1+json";
    for (config, platforms, expected) in PLATFORMS {
        for media_type in [oci, "application/vnd.docker.container.image.v1+json", ""] {
            let said = gaps(config, media_type, platforms);
            assert_eq!(
                said.is_empty(),
                expected.is_empty(),
                "{config} {platforms:?}: {said}"
            );
            assert!(said.contains(expected), "{config} {platforms:?}: {said}");
        }
    }
    // An artifact runs nowhere.
    assert_eq!(
        gaps("{}", "application/vnd.oci.empty.v1+json", &["linux/amd64"]),
        ""
    );
}

/// An index need not say for which platforms its manifests are: then their configurations do.
#[test]
fn an_index_without_platforms_is_judged_by_configurations() {
    let mut held = Held::default();
    let config = r#"{"os":"linux","architecture":"amd64"}"#;
    let digest = held.put(
        &format!("{REPOSITORY}/blobs/{}", Digest::of(config.as_bytes())),
        config,
    );
    let manifest = format!(r#"{{"config":{{"digest":"{digest}","size":1}},"layers":[]}}"#);
    let child = Digest::of(manifest.as_bytes());
    held.put(&format!("{REPOSITORY}/manifests/{child}"), &manifest);
    held.put(
        &format!("{REPOSITORY}/manifests/1.0"),
        &format!(r#"{{"manifests":[{{"digest":"{child}","size":1}}]}}"#),
    );
    for (platform, expected) in [("linux/amd64", 0), ("linux/arm64", 1)] {
        let declared = Declaration {
            images: vec![DeclaredImage {
                repository: REPOSITORY.into(),
                reference: "1.0".into(),
            }],
            platforms: vec![platform.parse().unwrap()],
            ..Declaration::default()
        };
        let gaps = held.gaps(&declared, "");
        assert_eq!(gaps.len(), expected, "{gaps:?}");
    }
}

/// The indexes of the tests.
fn indexes() -> Indexes {
    use crate::settings::{Kind, Settings, Upstream};
    let upstream = |name: &str, url: &str, kind: Kind| {
        let mut upstream: Upstream = format!("{name}={url}").parse().unwrap();
        upstream.kind = kind;
        upstream
    };
    Indexes::of(&Settings {
        upstreams: vec![
            upstream("pypi", "https://pypi.example/", Kind::Pypi),
            upstream("npm", "https://npm.example/", Kind::Npm),
            upstream("cargo", "https://index.example/", Kind::Cargo),
        ],
        ..Settings::default()
    })
}

pub(super) fn locked(kind: LockKind, text: &str) -> Declaration {
    Declaration {
        locks: vec![Lock::of("l", kind, text).unwrap()],
        ..Declaration::default()
    }
}

#[test]
fn a_lock_file_of_pip_needs_the_page_and_one_of_its_files() {
    let mut held = Held::default();
    let digest = held.put("https://files.example/a-1.whl", "wheel");
    let page = "<a href='https://files.example/a-1.whl#sha256=x'>a</a><a href='/gone.whl'>b</a>";
    held.put("https://pypi.example/simple/a/", page);
    let text = |name: &str| {
        let other = "00".repeat(32);
        format!("{name}==1 --hash=sha256:{} --hash=sha256:{other}\n", digest.hex())
    };
    let declared = locked(LockKind::Pip, &text("a"));
    assert_eq!(held.gaps(&declared, ""), Vec::<String>::new());
    assert_eq!(
        held.gaps(&declared, "a-1.whl"),
        ["a 1: no file that https://pypi.example/simple/a/ names and the lock file allows"]
    );
    assert_eq!(
        held.gaps(&declared, "/simple/a/"),
        ["https://pypi.example/simple/a/, which is read for a 1"]
    );
    // The file is there, and no page leads to it.
    held.put(
        "https://pypi.example/simple/b/",
        "<a href='https://files.example/b-1.whl'>b</a>",
    );
    let other = locked(LockKind::Pip, &text("b"));
    assert_eq!(held.gaps(&other, "").len(), 1);
}

#[test]
fn a_page_that_was_chosen_for_another_client_is_not_there() {
    let mut held = Held::default();
    let digest = held.put("https://files.example/a-1.whl", "wheel");
    held.put(
        "https://pypi.example/simple/a/",
        "<a href='https://files.example/a-1.whl'>a</a>",
    );
    let declared = locked(LockKind::Pip, &format!("a==1 --hash=sha256:{}\n", digest.hex()));
    let page = held.entries.last_mut().unwrap();
    page.vary = BTreeMap::from([("accept".to_owned(), Some("text/plain".to_owned()))]);
    assert_eq!(held.gaps(&declared, "").len(), 1);
}

#[test]
fn a_lock_file_of_npm_needs_the_packument_and_the_tarball_by_place_and_content() {
    let mut held = Held::default();
    held.put("https://npm.example/@s%2Fa/-/a-1.0.0.tgz", "tarball");
    held.put("https://npm.example/@s%2Fa", r#"{"versions":{"1.0.0":{}}}"#);
    let integrity = {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let mut hasher = kato_shared::digest::OtherHasher::sha512();
        hasher.update(b"tarball");
        STANDARD.encode(hasher.finish())
    };
    let npm = |version: &str, integrity: &str| {
        let text = format!(
            r#"{{"packages":{{"node_modules/@s/a":{{"version":"{version}","resolved":"https://other.example/@s%2Fa/-/a-1.0.0.tgz","integrity":"sha512-{integrity}"}}}}}}"#
        );
        locked(LockKind::Npm, &text)
    };
    let good = npm("1.0.0", &integrity);
    assert_eq!(held.gaps(&good, ""), Vec::<String>::new());
    assert_eq!(held.gaps(&good, "tgz").len(), 1);
    assert_eq!(
        held.gaps(&good, "npm.example/@s%2Fa"),
        ["https://npm.example/@s%2fa, which is read for @s/a 1.0.0"]
    );
    assert_eq!(
        held.gaps(&npm("1.0.0", &integrity.replace(&integrity[..4], "AAAA")), "")
            .len(),
        1
    );
    assert_eq!(
        held.gaps(&npm("2.0.0", &integrity), ""),
        ["https://npm.example/@s%2fa: what is held does not list @s/a 2.0.0"]
    );
}

#[test]
fn a_lock_file_of_cargo_needs_the_configuration_the_file_of_each_crate_and_its_archive_in_its_place() {
    let mut held = Held::default();
    let digest = held.put("https://dl.example/abcd/1.0.0/download", "archive");
    held.put(
        "https://index.example/config.json",
        r#"{"dl":"https://dl.example"}"#,
    );
    let line = |version: &str| {
        format!(
            r#"{{"name":"abcd","vers":"{version}","deps":[],"cksum":"{}","features":{{}},"yanked":false}}"#,
            digest.hex()
        )
    };
    held.put(
        "https://index.example/ab/cd/abcd",
        &format!("{}\n", line("1.0.0")),
    );
    let cargo = |version: &str| {
        let text = format!(
            "[[package]]\nname = \"abcd\"\nversion = \"{version}\"\nsource = \"registry+https://index.example/\"\nchecksum = \"{}\"\n",
            digest.hex()
        );
        locked(LockKind::Cargo, &text)
    };
    let good = cargo("1.0.0");
    assert_eq!(held.gaps(&good, ""), Vec::<String>::new());
    for (without, expected) in [
        (
            "config.json",
            "https://index.example/config.json, which is read for each package",
        ),
        (
            "ab/cd/abcd",
            "https://index.example/ab/cd/abcd, which is read for abcd 1.0.0",
        ),
        ("download", "https://dl.example/abcd/1.0.0/download"),
    ] {
        assert_eq!(held.gaps(&good, without), [expected]);
    }
    // The archive is there by its digest, and neither listed nor where a client asks for it.
    assert_eq!(
        held.gaps(&cargo("2.0.0"), ""),
        [
            "https://dl.example/abcd/2.0.0/download",
            "https://index.example/ab/cd/abcd: what is held does not list abcd 2.0.0"
        ]
    );
}

#[test]
fn a_lock_file_without_an_index_that_clients_could_ask_is_not_closed() {
    let held = Held::default();
    let snapshot = Snapshot::new(held.entries.clone());
    let declared = locked(
        LockKind::Pip,
        &format!("a==1 --hash=sha256:{}\n", "00".repeat(32)),
    );
    let report = check(&snapshot, &|_digest| None, &declared, &Indexes::default());
    assert!(report.gaps[0].missing.contains("kind = \"pypi\""), "{report:?}");
}

#[test]
fn a_release_without_its_metadata_is_not_closed() {
    let held = Held::default();
    let declared = Declaration {
        releases: vec![DeclaredRelease {
            repository: "https://t.example".into(),
            version: "1.0.0".parse().unwrap(),
        }],
        ..Declaration::default()
    };
    let gaps = held.gaps(&declared, "");
    assert!(gaps.iter().any(|gap| gap.contains("targets.json")), "{gaps:?}");
}
