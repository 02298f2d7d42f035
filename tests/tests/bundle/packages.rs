//! The completeness of packages of apt: what real `apt-get` would install at the site decides, and who lacks what is told by whom it is needed.

use std::path::Path;

use anyhow::{Result, ensure};
use integration_tests::{
    archive::{self, Archive, package},
    command,
    origin::{Origin, Resource},
    proxy::{Settings, run_to_end},
    published::put,
};
use serde_json::Value;

use crate::only;

/// An archive where `lab-app` needs two packages, one of which needs a third.
fn publish(origin: &Origin, folder: &Path) -> Result<Archive> {
    let mut index = String::new();
    let one = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<String>>()
    };
    for (name, depends) in [
        ("lab-app", one(&["lab-part (>= 1.0)", "lab-gone | lab-other"])),
        ("lab-part", one(&["lab-deep"])),
        ("lab-other", one(&[])),
        ("lab-deep", one(&[])),
    ] {
        let (path, bytes, paragraph) = package(folder, name, &depends)?;
        origin.serve(&format!("/debian/{path}"), Resource::cacheable(bytes));
        index.push_str(&paragraph);
    }
    let mut archive = Archive::new()?;
    archive.index("main/binary-amd64/Packages", index);
    archive.publish(origin)?;
    Ok(archive)
}

/// An export by `declaration`: its exit code, what it said, and what the header says of the closure.
async fn export(folder: &Path, name: &str, declaration: &str) -> Result<(Option<i32>, String, Value)> {
    let at = |name: &str| folder.join(name).display().to_string();
    let file = put(folder, "site.toml", declaration.as_bytes())?
        .display()
        .to_string();
    let (store, key, out) = (at(name), at("key"), at(&format!("out-{name}")));
    let words = [
        "bundle",
        "export",
        "--cache-dir",
        &store,
        "--series",
        "test",
        "--key",
        &key,
        "--out",
        &out,
        "--declare",
        &file,
    ];
    let refused = run_to_end(&words).await?;
    let waived = run_to_end(&[&words[..], &["--waive", "no rehearsal here"]].concat()).await?;
    ensure!(refused.code == Some(20), "{refused:?}");
    let bundle = only(Path::new(&out))?.display().to_string();
    let info = run_to_end(&["bundle", "info", &bundle, "--json"]).await?;
    let header: Value = serde_json::from_str(&info.stdout)?;
    Ok((waived.code, refused.stderr, header["closure"]["ok"].clone()))
}

/// Two stores: one that holds what apt asks for, and one that lacks a package of the second step.
async fn fill(folder: &Path, origin: &Origin, archive: &Archive) -> Result<()> {
    let at = |name: &str| folder.join(name).display().to_string();
    let upstream = format!("debian={}", origin.url("/debian/"));
    let prefetch = |store: &str, more: Vec<String>| {
        let store = at(store);
        let upstream = upstream.clone();
        async move {
            let words = ["prefetch", "--cache-dir", &store, "--upstream", &upstream];
            let more: Vec<&str> = more.iter().map(String::as_str).collect();
            let ended = run_to_end(&[&words[..], &more].concat()).await?;
            ensure!(ended.code == Some(0), "{ended:?}");
            Ok(())
        }
    };
    let source = format!("{} stable main", origin.url("/debian"));
    let key = archive.key().display().to_string();
    let by_apt = [
        "--apt-source",
        &source,
        "--apt-key",
        &key,
        "--apt-arch",
        "amd64",
        "--apt-package",
        "lab-app",
    ];
    prefetch("whole", by_apt.map(str::to_owned).to_vec()).await?;
    // The same by hand, without a package of the second step.
    let urls = ["InRelease", "main/binary-amd64/Packages"].map(|name| format!("dists/stable/{name}"));
    let debs = ["lab-app", "lab-part", "lab-other"].map(|name| format!("pool/{name}_1.0_all.deb"));
    let urls = urls.into_iter().chain(debs);
    prefetch(
        "lacking",
        urls.map(|path| origin.url(&format!("/debian/{path}"))).collect(),
    )
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_apt_would_install_at_the_site_is_what_has_to_be_held() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let at = |name: &str| folder.join(name).display().to_string();
    let keygen = [
        "bundle",
        "keygen",
        "--secret",
        &at("key"),
        "--public",
        &at("key.pub"),
    ];
    ensure!(run_to_end(&keygen).await?.code == Some(0), "no key");
    let origin = Origin::start().await?;
    let archive = publish(&origin, folder)?;
    fill(folder, &origin, &archive).await?;
    let declaration = |more: &str| {
        format!(
            "[[apt]]\narchive = \"{}\"\nsuite = \"stable\"\ncomponents = [\"main\"]\narchitectures = [\"amd64\"]\npackages = [\"lab-app\"]\n{more}",
            origin.url("/debian")
        )
    };
    let (code, said, is_closed) = export(folder, "whole", &declaration("")).await?;
    ensure!(code == Some(0) && is_closed == true, "{said}");
    let (code, said, is_closed) = export(folder, "lacking", &declaration("")).await?;
    ensure!(code == Some(0) && is_closed == false, "{said}");
    let gap = format!(
        "{}, needed by lab-part (Depends: lab-deep)",
        origin.url("/debian/pool/lab-deep_1.0_all.deb")
    );
    ensure!(said.contains(&gap) && said.contains("`status`"), "{said}");
    ensure!(said.contains("1 are missing"), "{said}");

    apt_agrees(
        folder,
        (&origin, &archive),
        &declaration("status = \"dpkg-status\"\n"),
    )
    .await
}

/// apt cannot fetch what is a gap, and where the machine has it, it does not want it.
async fn apt_agrees(folder: &Path, (origin, archive): (&Origin, &Archive), declaration: &str) -> Result<()> {
    let status = "Package: lab-deep\nStatus: install ok installed\nVersion: 1.0\nArchitecture: all\nMaintainer: Lab <lab@lab.example>\nDescription: deep\n";
    put(folder, "dpkg-status", status.as_bytes())?;
    ensure!(
        !apt_installs(folder, origin, (archive, "bare"), "").await?,
        "apt installs what is not held"
    );
    ensure!(
        apt_installs(folder, origin, (archive, "has"), status).await?,
        "apt wants what it has"
    );
    std::fs::remove_dir_all(folder.join("out-lacking"))?;
    let (code, said, is_closed) = export(folder, "lacking", declaration).await?;
    ensure!(code == Some(0) && is_closed == true, "{said}");
    Ok(())
}

/// Whether apt of a machine with `status` fetches `lab-app` and what it needs from the store that lacks something.
async fn apt_installs(
    folder: &Path,
    origin: &Origin,
    (archive, name): (&Archive, &str),
    status: &str,
) -> Result<bool> {
    let mut mirror = Settings::new(&folder.join("lacking"))
        .upstream("debian", &origin.url("/debian/"))
        .arguments(&["--offline"])
        .start()
        .await?;
    let root = folder.join(name);
    put(&root, "status", status.as_bytes())?;
    let source = format!(
        "deb [signed-by={}] http://{}/debian stable main\n",
        archive.key().display(),
        mirror.data
    );
    let list = put(&root, "sources.list", source.as_bytes())?;
    let only = [
        format!("Dir::Etc::SourceList={}", list.display()),
        "Dir::Etc::SourceParts=/dev/null".to_owned(),
    ];
    let run = |words: &[&str]| -> Result<std::process::Output> {
        let apt = archive::apt(&root, &only, words)?;
        command::run(apt, crate::SOON, &[])
    };
    ensure!(run(&["update"])?.status.success(), "the indexes are there");
    let installed = run(&["install", "--download-only", "-y", "lab-app"])?;
    mirror.terminate()?;
    mirror.ended().await?;
    Ok(installed.status.success())
}
