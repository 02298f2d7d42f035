//! The presets for archives, as they are delivered: copied, the hosts filled in, and asked by apt with the source that `/-/setup/apt` names.
//!
//! Each archive is laid out as its distribution has it. apt updates and downloads from the first mirror, then, where the preset names two, from
//! the second while the first is off, and at last, as a client that remembers nothing, with every mirror off.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use integration_tests::{
    archive::{Archive, Layout, apt},
    command,
    origin::{Origin, Resource},
    presets::preset,
    proxy::{Proxy, Settings},
};
use kato_shared::{Digest, durable};
use tokio::task::spawn_blocking;

/// An archive of a preset.
struct Row {
    preset: &'static str,
    upstream: &'static str,
    /// What stands in the preset where the mirrors belong.
    placeholders: &'static [&'static str],
    /// What an operator has behind the host in `urls`.
    path: &'static str,
    layout: Layout,
    /// Where packages are, below the archive.
    pool: &'static str,
    /// What clients run on.
    architecture: &'static str,
}

const ROWS: [Row; 5] = [
    Row {
        preset: "debian",
        upstream: "debian",
        placeholders: &[
            "https://mirror.example/debian/",
            "https://other-mirror.example/debian/",
        ],
        path: "/debian/",
        layout: Layout {
            base: "/debian/",
            suite: "bookworm",
            architectures: "all amd64 arm64",
            origin: "Debian",
        },
        pool: "pool/main/l",
        architecture: "amd64",
    },
    Row {
        preset: "debian",
        upstream: "debian-security",
        placeholders: &["https://security.example/debian-security/"],
        path: "/debian-security/",
        layout: Layout {
            base: "/debian-security/",
            suite: "bookworm-security",
            architectures: "all amd64 arm64",
            origin: "Debian",
        },
        pool: "pool/updates/main/l",
        architecture: "amd64",
    },
    Row {
        preset: "ubuntu",
        upstream: "ubuntu",
        placeholders: &["https://archive.example/ubuntu/"],
        path: "/ubuntu/",
        layout: Layout {
            base: "/ubuntu/",
            suite: "noble-updates",
            architectures: "amd64 i386",
            origin: "Ubuntu",
        },
        pool: "pool/main/l",
        architecture: "amd64",
    },
    Row {
        preset: "ubuntu",
        upstream: "ubuntu-ports",
        placeholders: &["https://ports.example/ubuntu-ports/"],
        path: "/ubuntu-ports/",
        layout: Layout {
            base: "/ubuntu-ports/",
            suite: "noble",
            architectures: "arm64 riscv64",
            origin: "Ubuntu",
        },
        pool: "pool/main/l",
        architecture: "arm64",
    },
    Row {
        preset: "ubuntu",
        upstream: "ppa",
        placeholders: &["https://ppa.example/"],
        path: "/",
        layout: Layout {
            base: "/lab/tools/ubuntu/",
            suite: "noble",
            architectures: "amd64 arm64",
            origin: "LP-PPA-lab-tools",
        },
        pool: "pool/main/l",
        architecture: "amd64",
    },
];

impl Row {
    /// Where the package `name` is, below the archive.
    fn file(&self, name: &str) -> String {
        format!("{}/{name}/{name}_1.0_all.deb", self.pool)
    }

    /// The archive at `mirrors`, with the packages `names`.
    fn publish(&self, mirrors: &[Origin], names: &[&str]) -> Result<Archive> {
        let mut archive = Archive::laid_out(self.layout)?;
        let mut packages = String::new();
        for name in names {
            let content = package(name);
            packages.extend([
                format!(
                    "Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: Lab <lab@lab.example>\n"
                ),
                format!(
                    "Description: a tool\nFilename: {}\nSize: {}\n",
                    self.file(name),
                    content.len()
                ),
                format!("SHA256: {}\n\n", Digest::of(&content).hex()),
            ]);
        }
        archive.index(&format!("main/binary-{}/Packages", self.architecture), packages);
        let (first, others) = mirrors.split_first().context("no mirror")?;
        archive.publish(first)?;
        for mirror in others {
            archive.mirror(mirror);
        }
        for (mirror, name) in mirrors
            .iter()
            .flat_map(|mirror| names.iter().map(move |name| (mirror, name)))
        {
            // As a web server without rules has it: nothing said about how long it is good for.
            let file = Resource::new(package(name)).header("etag", "\"1\"");
            mirror.serve(&format!("{}{}", self.layout.base, self.file(name)), file);
        }
        Ok(archive)
    }

    /// `proxy.toml` as an operator makes it of the preset.
    fn settings(&self, mirrors: &[Origin]) -> Result<String> {
        let urls: Vec<_> = mirrors.iter().map(|mirror| mirror.url(self.path)).collect();
        let filled: Vec<_> = self
            .placeholders
            .iter()
            .copied()
            .zip(urls.iter().map(String::as_str))
            .collect();
        preset(self.preset, &filled)
    }

    /// The source for apt that the server names for this upstream, with its gaps filled in.
    async fn source(&self, proxy: &Proxy, key: &Path) -> Result<String> {
        let (_, text) = proxy.client().fetch("/-/setup/apt").await?;
        let text = String::from_utf8(text)?;
        let at = format!("http://{}/{}/", proxy.data, self.upstream);
        let stanza = text
            .split("\n\n")
            .find(|stanza| stanza.contains(&format!("URIs: {at}\n")));
        let below = self
            .layout
            .base
            .strip_prefix(self.path)
            .context("the archive is not below the upstream")?;
        let named = format!("/usr/share/keyrings/{}-archive-keyring.gpg", self.upstream);
        let stanza = stanza.with_context(|| format!("nothing about {at} in:\n{text}"))?;
        ensure!(stanza.contains(&named), "{stanza}");
        Ok(stanza
            .replace("Suites: SUITE", &format!("Suites: {}", self.layout.suite))
            .replace(&at, &format!("{at}{below}"))
            .replace(&named, &key.display().to_string())
            + "\n")
    }

    /// `apt-get update` and `apt-get download` of `name` by a client that remembers nothing; it must be whole.
    async fn download(&self, source: &str, name: &str) -> Result<()> {
        let client = tempfile::tempdir()?;
        let parts = client.path().join("parts");
        durable::create_folder(&parts)?;
        durable::write(&parts.join("kato.sources"), source.as_bytes(), 0o644)?;
        let options = [
            format!("Dir::Etc::SourceParts={}", parts.display()),
            "Dir::Etc::SourceList=/dev/null".to_owned(),
            "Acquire::Languages=none".to_owned(),
            format!("APT::Architecture={}", self.architecture),
        ];
        for words in [&["update"][..], &["download", name]] {
            run(apt(client.path(), &options, words)?).await?;
        }
        let got = std::fs::read(client.path().join(format!("{name}_1.0_all.deb")))?;
        ensure!(got == package(name), "{name} is another one");
        Ok(())
    }
}

/// What a package is to apt before it is unpacked: bytes with a digest.
fn package(name: &str) -> Vec<u8> {
    name.repeat(1000).into_bytes()
}

async fn run(program: Command) -> Result<String> {
    let line = command::line(&program);
    let ended = spawn_blocking(move || command::run(program, Duration::from_secs(60), &[])).await??;
    command::success(&line, ended)
}

#[tokio::test(flavor = "multi_thread")]
async fn apt_is_served_by_the_presets_of_debian_and_ubuntu_and_again_without_the_mirrors() -> Result<()> {
    for row in &ROWS {
        story(row).await.with_context(|| row.upstream)?;
    }
    Ok(())
}

/// The story of one row.
async fn story(row: &Row) -> Result<()> {
    let mut mirrors = Vec::new();
    for _ in row.placeholders {
        mirrors.push(Origin::start().await?);
    }
    let names = ["lab-tool", "lab-other"];
    let archive = row.publish(&mirrors, &names)?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("proxy.toml");
    durable::write(&file, row.settings(&mirrors)?.as_bytes(), 0o644)?;
    let proxy = Settings::new(&folder.path().join("cache"))
        .arguments(&["--config", file.to_str().context("a path of ASCII")?])
        .start()
        .await?;
    let source = row.source(&proxy, &archive.key()).await?;

    let path = |name: &str| format!("{}{}", row.layout.base, row.file(name));
    row.download(&source, names[0]).await?;
    ensure!(
        mirrors[0].requests(&path(names[0])).len() == 1,
        "through us, and once"
    );
    asks_once_about_what_no_index_names(row, &proxy, &mirrors[0]).await?;

    let last = mirrors.len() - 1;
    for mirror in &mut mirrors[..last] {
        mirror.stop().await;
    }
    row.download(&source, names[1]).await?;
    ensure!(
        mirrors[last].requests(&path(names[1])).len() == 1,
        "of the last mirror, once"
    );
    let stored = proxy.client().get(&format!(
        "/{}/{}",
        row.upstream,
        path(names[1]).strip_prefix(row.path).context("not below")?
    ));
    proxy.wait_until_stored(&stored, &package(names[1])).await?;
    mirrors[last].stop().await;
    for name in names {
        row.download(&source, name).await?;
    }
    Ok(())
}

/// A package that no index names is never asked about again either: the rule of the preset alone says so.
async fn asks_once_about_what_no_index_names(row: &Row, proxy: &Proxy, mirror: &Origin) -> Result<()> {
    let old = format!("{}{}/lab-old/lab-old_0.9_all.deb", row.layout.base, row.pool);
    let file = Resource::new("old").header("etag", "\"1\"");
    mirror.serve(&old, file.header("cache-control", "max-age=0"));
    let below = old.strip_prefix(row.path).context("not below the upstream")?;
    let path = format!("/{}/{below}", row.upstream);
    for _ in 0..2 {
        let mut curl = command::new("curl");
        curl.args(["--fail", "--silent", "--show-error"]);
        curl.arg(format!("http://{}{path}", proxy.data));
        ensure!(run(curl).await? == "old");
        proxy
            .wait_until_stored(&proxy.client().get(&path), b"old")
            .await?;
    }
    ensure!(
        mirror.requests(&old).len() == 1,
        "what never changes was asked about again"
    );
    Ok(())
}
