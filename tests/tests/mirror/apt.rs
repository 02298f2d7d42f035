//! `prefetch` of packages of apt: what an installation and the upgrade of a machine need, found by apt itself, and nothing else.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use integration_tests::{
    archive::{self, Archive, package},
    origin::{Origin, Resource},
    proxy::{Settings, run_to_end},
};

use crate::{
    fill::prefetch,
    site::{put, succeed},
};

/// What `lab-app` depends on.
const PARTS: [&str; 2] = ["lab-part-0", "lab-part-1"];

/// An archive of `lab-app`, what it depends on, and two packages that it does not need.
fn publish(origin: &Origin, folder: &Path) -> Result<Archive> {
    let mut index = String::new();
    let needed = PARTS.map(str::to_owned);
    let alone = PARTS.into_iter().chain(["lab-old", "lab-other"]);
    for (name, depends) in alone
        .map(|name| (name, &[][..]))
        .chain([("lab-app", &needed[..])])
    {
        let (path, bytes, paragraph) = package(folder, name, depends)?;
        origin.serve(&format!("/debian/{path}"), Resource::cacheable(bytes));
        index.push_str(&paragraph);
    }
    let mut archive = Archive::new()?;
    archive.index("main/binary-amd64/Packages", index);
    archive.list_by_sha512();
    archive.publish(origin)?;
    Ok(archive)
}

/// apt in `root`, which knows one archive, at `url`.
async fn apt(root: &Path, (url, key): (&str, &Path), words: &[&str]) -> Result<()> {
    let source = format!("deb [signed-by={}] {url} stable main\n", key.display());
    let list = put(root, "sources.list", source.as_bytes())?;
    let only = [
        format!("Dir::Etc::SourceList={}", list.display()),
        "Dir::Etc::SourceParts=/dev/null".to_owned(),
    ];
    succeed(archive::apt(root, &only, words)?).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_installation_and_an_upgrade_need_is_fetched_and_nothing_else() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut origin = Origin::start().await?;
    let archive = publish(&origin, folder.path())?;
    let old = "Package: lab-old\nStatus: install ok installed\nVersion: 0.9\nArchitecture: all\nMaintainer: Lab <lab@lab.example>\nDescription: old\n";
    let status = put(folder.path(), "machine.status", old.as_bytes())?;
    let cache = folder.path().join("cache");
    let source = format!("{} stable main", origin.url("/debian"));
    let upstream = format!("debian={}", origin.url("/debian/"));
    let [key, status] = [archive.key(), status].map(|path| path.display().to_string());
    let wanted = [
        "--apt-source",
        &source,
        "--apt-key",
        &key,
        "--apt-arch",
        "amd64",
        "--apt-package",
        "lab-app",
        "--apt-status",
        &status,
    ];
    let planned = run_to_end(&prefetch(&cache, &upstream, &[&wanted[..], &["--plan"]].concat())).await?;
    ensure!(
        planned.stderr.contains("4 files are missing, exactly"),
        "{planned:?}"
    );
    let ended = run_to_end(&prefetch(&cache, &upstream, &wanted)).await?;
    ensure!(ended.code == Some(0), "{ended:?}");
    for (name, times) in [
        ("lab-app", 1),
        ("lab-part-0", 1),
        ("lab-part-1", 1),
        ("lab-old", 1),
        ("lab-other", 0),
    ] {
        let path = format!("/debian/pool/{name}_1.0_all.deb");
        assert_eq!(origin.requests(&path).len(), times, "{name}");
    }

    origin.stop().await;
    installs_and_upgrades(&origin, folder.path(), &key).await
}

/// apt of a machine installs and upgrades from the mirror that was filled.
async fn installs_and_upgrades(origin: &Origin, folder: &Path, key: &str) -> Result<()> {
    let proxy = Settings::new(&folder.join("cache"))
        .upstream("debian", &origin.url("/debian/"))
        .arguments(&["--offline"])
        .start()
        .await?;
    let (root, mirror) = (folder.join("machine"), format!("http://{}/debian", proxy.data));
    fs::create_dir(&root)?;
    fs::copy(folder.join("machine.status"), root.join("status"))?;
    let known = (mirror.as_str(), Path::new(key));
    apt(&root, known, &["update"]).await?;
    for words in [&["install", "lab-app"][..], &["upgrade"]] {
        apt(&root, known, &[words, &["--download-only", "-y"]].concat()).await?;
    }
    for name in PARTS.into_iter().chain(["lab-app", "lab-old"]) {
        let file = root.join(format!("cache/archives/{name}_1.0_all.deb"));
        ensure!(file.exists(), "{} was not fetched", file.display());
    }
    // Beside the mirror, which goes on serving.
    plan_knows_the_key(&folder.join("cache")).await
}

/// The plan of a bundle knows the key that was given to prefetch.
async fn plan_knows_the_key(cache: &Path) -> Result<()> {
    let store = cache.display().to_string();
    let plan = [
        "bundle",
        "plan",
        "--cache-dir",
        &store,
        "--series",
        "test",
        "--json",
    ];
    let planned = run_to_end(&plan).await?;
    let document: serde_json::Value = serde_json::from_str(&planned.stdout)?;
    let signed_by = &document["horizon"][0]["keys"][0];
    ensure!(signed_by["is_known"] == true, "{document:#}");
    Ok(())
}
