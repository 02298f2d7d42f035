//! Every kind of index that apt fetches: translations, contents, DEP-11, patches, and what is packed with bzip2.

use std::{collections::BTreeSet, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use integration_tests::{
    archive::{Archive, apt},
    command,
    origin::{Origin, Resource},
    proxy::{Proxy, Settings},
};
use kato_shared::{Digest, durable};
use tempfile::TempDir;
use tokio::{task::spawn_blocking, time::Instant};

/// What a package is to apt before it is unpacked: bytes with a digest.
const PACKAGE: &[u8] = b"the content of a package";
const POOL: &str = "/debian/pool/lab-tool_1.0_all.deb";

/// What apt-file and appstream tell apt to fetch beside packages, in their own words.
const TARGETS: &str = r#"
Acquire::IndexTargets {
  deb::Contents-deb {
    MetaKey "$(COMPONENT)/Contents-$(ARCHITECTURE)";
    ShortDescription "Contents-$(ARCHITECTURE)";
    Description "$(RELEASE)/$(COMPONENT) $(ARCHITECTURE) Contents (deb)";
  };
  deb::DEP-11 {
    MetaKey "$(COMPONENT)/dep11/Components-$(NATIVE_ARCHITECTURE).yml";
    ShortDescription "Components-$(NATIVE_ARCHITECTURE)";
    Description "$(RELEASE)/$(COMPONENT) $(NATIVE_ARCHITECTURE) DEP-11 Metadata";
  };
};
"#;

struct Site {
    origin: Origin,
    proxy: Proxy,
    archive: Archive,
    folder: TempDir,
}

impl Site {
    async fn start() -> Result<Self> {
        let (origin, folder) = (Origin::start().await?, tempfile::tempdir()?);
        let settings = format!(
            "[cache]\nmin_free = \"0B\"\n[[upstream]]\nname = \"deb\"\nkind = \"packages\"\nurls = [\"{}\"]\n",
            origin.url("/debian/")
        );
        let file = folder.path().join("proxy.toml");
        durable::write(&file, settings.as_bytes(), 0o644)?;
        let proxy = Settings::new(&folder.path().join("cache"))
            .arguments(&["--config", file.to_str().context("ASCII")?])
            .start()
            .await?;
        origin.serve(POOL, Resource::cacheable(PACKAGE));
        Ok(Self {
            origin,
            proxy,
            archive: Archive::new()?,
            folder,
        })
    }

    /// apt of a client `name` by mirror path, with `options` in its settings.
    async fn apt(&self, name: &str, options: &str, words: &[&str]) -> Result<()> {
        let root = self.folder.path().join(name);
        durable::create_folder(&root)?;
        let source = format!(
            "deb [arch=amd64 signed-by={}] http://{}/deb stable main\n",
            self.archive.key().display(),
            self.proxy.data
        );
        durable::write(&root.join("sources.list"), source.as_bytes(), 0o644)?;
        durable::write(&root.join("targets"), options.as_bytes(), 0o644)?;
        let more = [
            format!("Dir::Etc::SourceList={}", root.join("sources.list").display()),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
        ];
        let targets = root.join("targets");
        let targets = ["-c", targets.to_str().context("ASCII")?];
        let command = apt(&root, &more, &[&targets, words].concat())?;
        run(command).await
    }

    /// Requests that were answered with content, by path below the suite.
    fn fetched(&self, path: &str) -> usize {
        self.origin
            .requests(&format!("/debian/dists/stable/{path}"))
            .len()
    }
}

async fn run(command: Command) -> Result<()> {
    let line = command::line(&command);
    let ended = spawn_blocking(move || command::run(command, Duration::from_secs(60), &[])).await??;
    command::success(&line, ended).map(drop)
}

fn packages(version: &str, more: &str) -> String {
    format!(
        "Package: lab-tool\nVersion: {version}\nArchitecture: all\nMaintainer: Lab <lab@lab.example>\nDescription: a tool\n\
         Filename: pool/lab-tool_1.0_all.deb\nSize: {}\nSHA256: {}\n{more}\n",
        PACKAGE.len(),
        Digest::of(PACKAGE).hex()
    )
}

/// `content`, packed by `program`.
fn packed(program: &str, content: &[u8]) -> Result<Vec<u8>> {
    let mut pack = command::new(program);
    pack.arg("-c");
    Ok(command::run(pack, Duration::from_secs(20), content)?.stdout)
}

/// The names of the lists that apt has in `root`, without the server.
fn lists(root: &Path) -> Result<BTreeSet<String>> {
    let entries = std::fs::read_dir(root.join("lists"))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names = names.collect::<Result<Vec<String>>>()?;
    Ok(names
        .iter()
        .filter_map(|name| name.split_once("_dists_stable_").map(|(_, name)| name.to_owned()))
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn translations_contents_and_dep11_are_fetched_once_for_all_and_again_without_the_origin() -> Result<()>
{
    let mut site = Site::start().await?;
    let all = [
        ("main/binary-amd64/Packages", packages("1.0", "")),
        (
            "main/i18n/Translation-en",
            format!(
                "Package: lab-tool\nDescription-md5: {}\nDescription-en: a tool\n",
                "0".repeat(32)
            ),
        ),
        (
            "main/Contents-amd64",
            "usr/bin/lab-tool utils/lab-tool\n".to_owned(),
        ),
        (
            "main/dep11/Components-amd64.yml",
            "---\nFile: DEP-11\nVersion: '0.14'\n".to_owned(),
        ),
    ];
    for (path, content) in &all {
        site.archive
            .index(&format!("{path}.gz"), packed("gzip", content.as_bytes())?);
        site.archive.index(path, content.as_bytes());
    }
    site.archive.publish(&site.origin)?;
    let languages = format!("Acquire::Languages \"en\";\n{TARGETS}");
    for name in ["first", "second"] {
        site.apt(name, &languages, &["update"]).await?;
        let lists = lists(&site.folder.path().join(name))?;
        for wanted in [
            "main_binary-amd64_Packages",
            "main_i18n_Translation-en",
            "main_Contents-amd64",
            "main_dep11_Components-amd64.yml",
        ] {
            assert!(
                lists.iter().any(|name| name.starts_with(wanted)),
                "no {wanted} in {lists:?}"
            );
        }
    }
    for (path, content) in &all {
        let gzip = packed("gzip", content.as_bytes())?;
        let digest = Digest::of(&gzip).hex();
        let folder = path.rsplit_once('/').context("a folder")?.0;
        let times =
            site.fetched(&format!("{path}.gz")) + site.fetched(&format!("{folder}/by-hash/SHA256/{digest}"));
        assert_eq!(times, 1, "{path}");
    }
    site.origin.stop().await;
    site.apt("third", &languages, &["update"]).await?;
    Ok(())
}

/// `apt-get update` with patches: the second generation comes as a patch of the first.
#[tokio::test(flavor = "multi_thread")]
async fn patches_of_an_index_are_fetched_and_verified() -> Result<()> {
    let mut site = Site::start().await?;
    let (old, new) = (packages("1.0", ""), packages("2.0", ""));
    site.archive.index("main/binary-amd64/Packages", old.clone());
    site.archive.publish(&site.origin)?;
    let settings = "Acquire::Languages \"none\";\nAcquire::PDiffs \"true\";\n";
    site.apt("first", settings, &["update"]).await?;

    // As `ed` has it: the second line is another.
    let patch = b"2c\nVersion: 2.0\n.\n";
    let patch_gz = packed("gzip", patch)?;
    let line =
        |content: &[u8], name: &str| format!(" {} {} {name}\n", Digest::of(content).hex(), content.len());
    let index = format!(
        "SHA256-Current: {} {}\nSHA256-History:\n{}SHA256-Patches:\n{}SHA256-Download:\n{}",
        Digest::of(new.as_bytes()).hex(),
        new.len(),
        line(old.as_bytes(), "2026-01-02-0000.00"),
        line(patch, "2026-01-02-0000.00"),
        line(&patch_gz, "2026-01-02-0000.00.gz"),
    );
    site.archive.index("main/binary-amd64/Packages", new.clone());
    site.archive.index("main/binary-amd64/Packages.diff/Index", index);
    let place = "main/binary-amd64/Packages.diff/2026-01-02-0000.00.gz";
    site.origin.serve(
        &format!("/debian/dists/stable/{place}"),
        Resource::cacheable(patch_gz),
    );
    site.archive.publish(&site.origin)?;
    site.apt("first", settings, &["update"]).await?;
    assert_eq!(
        site.fetched(place),
        1,
        "the patch was taken, and not the whole index"
    );
    let root = site.folder.path().join("first/lists");
    let list = std::fs::read_dir(root)?.filter_map(Result::ok).find(|entry| {
        entry
            .file_name()
            .to_string_lossy()
            .ends_with("main_binary-amd64_Packages")
    });
    let list = std::fs::read_to_string(list.context("a list")?.path())?;
    assert_eq!(list, new);
    Ok(())
}

/// An archive whose indexes are packed with bzip2 alone teaches about its packages like any other.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_packed_with_bzip2_teaches() -> Result<()> {
    let mut site = Site::start().await?;
    let plain = packages("1.0", "");
    let packed = packed("bzip2", plain.as_bytes())?;
    // The plain one has to be named; apt takes the packed one.
    site.archive.index("main/binary-amd64/Packages", plain);
    site.archive
        .index("main/binary-amd64/Packages.bz2", packed.clone());
    site.archive.publish(&site.origin)?;
    site.apt("first", "Acquire::Languages \"none\";\n", &["update"])
        .await?;
    let by_hash = format!("main/binary-amd64/by-hash/SHA256/{}", Digest::of(&packed).hex());
    assert_eq!(site.fetched(&by_hash), 1);
    site.origin.serve(POOL, Resource::cacheable("another"));
    let (response, body) = site
        .proxy
        .client()
        .fetch("/deb/pool/lab-tool_1.0_all.deb")
        .await?;
    assert_eq!(response.status, 502, "{}", String::from_utf8_lossy(&body));
    site.origin.serve(POOL, Resource::cacheable(PACKAGE));
    let since = Instant::now();
    while let Err(error) = site.apt("first", "", &["download", "lab-tool"]).await {
        ensure!(
            since.elapsed() < Duration::from_secs(20),
            "it stays refused: {error}"
        );
    }
    Ok(())
}
