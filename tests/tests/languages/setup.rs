//! `/-/setup/CLIENT`: what a client is told, told to the real client.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use integration_tests::{
    archive::{Archive, apt},
    command,
    origin::Resource,
    proxy,
    published::TARBALL,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    node, python, rust,
    site::{Site, put, sha256, succeed},
};

/// The text of the file that `text` names as `name`.
fn file<'t>(text: &'t str, name: &str) -> Result<&'t str> {
    let part = text
        .split("# file: ")
        .find_map(|part| part.strip_prefix(name)?.strip_prefix('\n'));
    part.with_context(|| format!("no part for {name} in:\n{text}"))
}

async fn told(site: &Site, client: &str) -> Result<String> {
    let (response, body) = site.proxy.client().fetch(&format!("/-/setup/{client}")).await?;
    let said = String::from_utf8(body)?;
    anyhow::ensure!(response.status == 200, "{}: {said}", response.status);
    assert_eq!(response.header("content-type"), Some("text/plain; charset=utf-8"));
    Ok(said)
}

/// `program` with `arguments`, at home in `folder`.
fn at_home(folder: &Path, program: &str, arguments: &[&str]) -> std::process::Command {
    let mut command = command::new(program);
    command.current_dir(folder).env("HOME", folder).args(arguments);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn pip_installs_with_what_it_is_told() -> Result<()> {
    let site = Site::start("pypi", "pypi").await?;
    let wheel = python::wheel(&site)?;
    python::publish(&site, &wheel, python::JSON);
    let home = site.folder("home")?;
    let told = told(&site, "pip").await?;
    let config = put(&home, "etc/pip.conf", file(&told, "/etc/pip.conf")?.as_bytes())?;
    let target = home.join("site");
    let arguments = ["-m", "pip", "install", "--no-cache-dir", "--target"];
    let mut pip = at_home(&home, "/usr/bin/python3", &arguments);
    pip.arg(&target).arg("hello-site").env("PIP_CONFIG_FILE", config);
    succeed(pip).await?;
    assert!(target.join("hello_site.py").exists());
    assert_eq!(
        site.files.requests(&format!("/packages/{}", python::WHEEL)).len(),
        1,
        "through us"
    );
    Ok(())
}

/// Where the address of the one package stands in a lock file of npm.
fn resolved(lock: &str) -> Option<(usize, usize)> {
    let begin = lock.find("\"resolved\": \"")? + "\"resolved\": \"".len();
    Some((begin, begin + lock[begin..].find('"')?))
}

#[tokio::test(flavor = "multi_thread")]
async fn npm_installs_with_what_it_is_told() -> Result<()> {
    let site = Site::start("npm", "npm").await?;
    let tarball = node::publish(&site)?;
    let home = site.folder("home")?;
    let told = told(&site, "npm").await?;
    // Where npm finds it by itself.
    put(&home, ".npmrc", file(&told, "~/.npmrc")?.as_bytes())?;
    let project = site.folder("home/project")?;
    put(&project, "package.json", node::PROJECT)?;
    let mut npm = at_home(&home, "npm", &["install"]);
    npm.current_dir(&project);
    succeed(npm).await?;
    assert!(project.join("node_modules/@site/hello/index.js").exists());
    let lock = fs::read_to_string(project.join("package-lock.json"))?;
    assert!(lock.contains(&site.url()), "through us: {lock}");

    // Lock files that were made through us, through a cache that is no more, and at the registry: all lead here.
    let before = site.index.connections();
    let old = lock.replace(&site.url(), "http://gone.example:3142");
    let (begin, end) = resolved(&lock).context("the lock file names the tarball")?;
    let registry = format!("{}{}{}", &lock[..begin], site.index.url(TARBALL), &lock[end..]);
    site.index.serve(TARBALL, Resource::cacheable(tarball));
    for (name, lock) in [("again", &lock), ("old", &old), ("registry", &registry)] {
        let project = site.folder(&format!("home/{name}"))?;
        put(&project, "package.json", node::PROJECT)?;
        put(&project, "package-lock.json", lock.as_bytes())?;
        let mut npm = at_home(&home, "npm", &["ci", "--fetch-retries=0"]);
        npm.current_dir(&project);
        succeed(npm).await?;
        assert!(
            project.join("node_modules/@site/hello/index.js").exists(),
            "{lock}"
        );
    }
    let asked = site.index.connections() - before;
    assert!(asked <= 1, "past us, or again: {asked} connections");
    Ok(())
}

/// As the replacement of the default registry, which a manifest need not name.
#[tokio::test(flavor = "multi_thread")]
async fn cargo_fetches_with_what_it_is_told() -> Result<()> {
    let site = Site::start("crates", "cargo").await?;
    rust::publish(&site)?;
    let home = site.folder("home")?;
    put(
        &home,
        ".cargo/config.toml",
        file(&told(&site, "cargo").await?, "~/.cargo/config.toml")?.as_bytes(),
    )?;
    let project = site.folder("home/project")?;
    let manifest = "[package]\nname = \"project\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\nhello-site = \"1\"\n[workspace]\n";
    put(&project, "Cargo.toml", manifest.as_bytes())?;
    put(&project, "src/lib.rs", b"//! Nothing.\n")?;
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = command::new(&program);
    cargo.args(["fetch"]).current_dir(&project);
    cargo.env("RUSTC", Path::new(&program).with_file_name("rustc"));
    cargo.env("HOME", &home).env("CARGO_HOME", home.join(".cargo"));
    succeed(cargo).await?;
    let lock = fs::read_to_string(project.join("Cargo.lock"))?;
    assert!(lock.contains("hello-site") && lock.contains("checksum"), "{lock}");
    assert_eq!(site.files.requests("/crates/hello-site/1.0.0/download").len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_and_a_shell_fetch_with_what_they_are_told() -> Result<()> {
    let site = Site::start("files", "generic").await?;
    let resource = Resource::cacheable("hello");
    site.index.serve("/a", resource);
    let home = site.folder("home")?;
    put(
        &home,
        ".curlrc",
        file(&told(&site, "curl").await?, "~/.curlrc")?.as_bytes(),
    )?;
    let url = site.index.url("/a");
    assert_eq!(succeed(at_home(&home, "curl", &["-sSf", &url])).await?, "hello");
    let profile = file(&told(&site, "env").await?, "/etc/profile.d/kato-proxy.sh")?.to_owned();
    let shell = site.folder("shell")?;
    let script = put(&shell, "kato-proxy.sh", profile.as_bytes())?;
    let line = format!(
        ". {}; echo \"$http_proxy|$https_proxy|$no_proxy\"; no_proxy= curl -sSf {url}",
        script.display()
    );
    let proxy = format!("{}/", site.url());
    let said = succeed(at_home(&shell, "sh", &["-c", &line])).await?;
    assert_eq!(said, format!("{proxy}|{proxy}|localhost,127.0.0.1,::1\nhello"));
    assert_eq!(
        site.index.requests("/a").len(),
        1,
        "the second time from the store"
    );
    Ok(())
}

/// Both texts: sources by mirror path, and the proxy for sources as they are. What is to be filled in is filled in.
#[tokio::test(flavor = "multi_thread")]
async fn apt_updates_and_downloads_with_what_it_is_told() -> Result<()> {
    let mut site = Site::start("debian", "packages").await?;
    let package = b"the content of a package";
    let packages = format!(
        "Package: lab-tool\nVersion: 1.0\nArchitecture: all\nMaintainer: Lab <lab@lab.example>\nDescription: a tool\n\
         Filename: pool/lab-tool_1.0_all.deb\nSize: {}\nSHA256: {}\n",
        package.len(),
        sha256(package)
    );
    let mut archive = Archive::new()?;
    archive.index("main/binary-amd64/Packages", packages);
    archive.publish(&site.index)?;
    let pool = "/debian/pool/lab-tool_1.0_all.deb";
    site.index.serve(pool, Resource::cacheable(&package[..]));
    let text = told(&site, "apt").await?;
    let key = archive.key().display().to_string();
    let only = |home: &Path| {
        let parts = format!("Dir::Etc::SourceParts={}", home.join("parts").display());
        [
            parts,
            "Dir::Etc::SourceList=/dev/null".to_owned(),
            "Acquire::Languages=none".to_owned(),
        ]
    };

    let home = site.folder("by-mirror-path")?;
    // As it stands; the archive is below `/debian/` of the upstream.
    let sources = file(&text, "/etc/apt/sources.list.d/kato.sources")?
        .replace("SUITE", "stable")
        .replace("/usr/share/keyrings/debian-archive-keyring.gpg", &key)
        .replace(
            &format!("{}/debian/", site.url()),
            &format!("{}/debian/debian/", site.url()),
        );
    put(&home, "parts/kato.sources", sources.as_bytes())?;
    for words in [&["update"][..], &["download", "lab-tool"]] {
        succeed(apt(&home, &only(&home), words)?).await?;
    }
    assert_eq!(fs::read(home.join("lab-tool_1.0_all.deb"))?, package);

    site.cut_off().await;
    let home = site.folder("by-proxy")?;
    let config = put(
        &home,
        "01kato-proxy",
        file(&text, "/etc/apt/apt.conf.d/01kato-proxy")?.as_bytes(),
    )?;
    let source = format!(
        "deb [signed-by={key}] {} stable main\n",
        site.index.url("/debian/")
    );
    put(&home, "parts/lab.list", source.as_bytes())?;
    let config = ["-c", config.to_str().context("ASCII")?];
    for words in [&["update"][..], &["download", "lab-tool"]] {
        succeed(apt(&home, &only(&home), &[&config, words].concat())?).await?;
    }
    assert_eq!(fs::read(home.join("lab-tool_1.0_all.deb"))?, package);
    Ok(())
}

#[tokio::test]
async fn p19_a_host_that_could_be_a_command_is_refused_and_not_repeated() -> Result<()> {
    let site = Site::start("npm", "npm").await?;
    for host in [
        "a;id", "a$(id)", "a`id`", "a'b", "a\"b", "-rf", "a|b", "a b", "a&b", "x:99999", "u@h",
    ] {
        let mut stream = TcpStream::connect(site.proxy.data).await?;
        let head = format!("GET /-/setup/npm HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{host}: {answer}");
        assert!(!answer.contains("registry="), "{host}: {answer}");
    }
    Ok(())
}

#[tokio::test]
async fn p19_who_has_nothing_to_be_told_hears_what_there_is() -> Result<()> {
    let site = Site::start("npm", "npm").await?;
    let client = site.proxy.client();
    let images = Site::start("images", "registry").await?;
    let (_, listed) = images.proxy.client().fetch("/-/setup/").await?;
    let listed = String::from_utf8(listed)?;
    for name in ["docker", "containerd", "podman", "skopeo", "buildah"] {
        assert!(listed.contains(&format!("/-/setup/{name}\n")), "{name}: {listed}");
        let (response, body) = images.proxy.client().fetch(&format!("/-/setup/{name}")).await?;
        let said = String::from_utf8(body)?;
        assert!(
            response.status == 200 && said.contains("tag_ttl of its registry: images 1m"),
            "{said}"
        );
    }
    for path in ["/-/setup/pip", "/-/setup/yum"] {
        let (response, body) = client.fetch(path).await?;
        let said = String::from_utf8(body)?;
        assert_eq!(response.status, 404);
        assert!(said.contains("/-/setup/ lists"), "{said}");
    }
    let (_, body) = client.fetch("/-/setup/").await?;
    assert!(String::from_utf8(body)?.contains("/-/setup/npm\n"));
    let upstream = format!("npm={}", site.index.url("/"));
    let ended = proxy::run_to_end(&["client-config", "pip", "--upstream", &upstream]).await?;
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("hint:"), "{}", ended.stderr);
    Ok(())
}
