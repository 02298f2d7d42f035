//! Origins of each ecosystem in a lab, and the real clients that ask for what they have, on whichever node and through whichever proxy.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use integration_tests::{
    archive::{Archive, ON_A_NODE, package},
    command,
    image::Image,
    lab::{Lab, Node},
    origin::{Origin, Resource},
    published::{self, SIMPLE_JSON, WHEEL, integrity},
};

/// An installation unpacks and configures on an overlay of a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
const KEY: &str = "/etc/lab/archive.gpg";
/// What the package that is installed depends on.
const NEEDED: usize = 5;

/// One origin for each ecosystem, and what clients have to know beforehand.
pub(crate) struct Origins {
    pub(crate) all: Vec<(&'static str, &'static str, Origin)>,
    image: Image,
    archive: Archive,
    wheel_digest: String,
    npm_lock: String,
}

impl Origins {
    pub(crate) fn publish(lab: &Lab) -> Result<Self> {
        let folder = lab.folder();
        let start = || Origin::start_with(lab.listen(0)?);
        let image = Image::build(folder, "image")?;
        let (debian, hub, pypi, npm, crates, files) =
            (start()?, start()?, start()?, start()?, start()?, start()?);
        image.serve(&hub, "team/app", "1.0")?;
        let archive = publish_archive(&debian, folder)?;
        let wheel = published::wheel(&folder.join("wheel"))?;
        let wheel_digest = published::publish_wheel(&pypi, &pypi, &wheel, SIMPLE_JSON);
        let tarball = published::publish_npm(&npm, &npm, &folder.join("npm"))?;
        // As a lock file is made where the registry itself is reached.
        let npm_lock = format!(
            r#"{{"name":"project","version":"1.0.0","lockfileVersion":3,"requires":true,"packages":{{"":{{"name":"project","version":"1.0.0","dependencies":{{"@site/hello":"1.0.0"}}}},"node_modules/@site/hello":{{"version":"1.0.0","resolved":"{}","integrity":"{}"}}}}}}"#,
            npm.url(published::TARBALL),
            integrity(&tarball)
        );
        published::publish_crate(&crates, &crates, &folder.join("crate"))?;
        files.serve("/tool-1.0.tar.gz", Resource::cacheable(vec![7; 300_000]));
        let all = vec![
            ("debian", "packages", debian),
            ("hub", "registry", hub),
            ("pypi", "pypi", pypi),
            ("npm", "npm", npm),
            ("crates", "cargo", crates),
            ("files", "generic", files),
        ];
        Ok(Self {
            all,
            image,
            archive,
            wheel_digest,
            npm_lock,
        })
    }

    /// The settings of both proxies: what is recorded under an upstream's URL is found again under it.
    pub(crate) fn settings(&self) -> String {
        let upstream = |(name, kind, origin): &(&str, &str, Origin)| {
            format!(
                "[[upstream]]\nname = \"{name}\"\nkind = \"{kind}\"\nurls = [\"{}\"]\n",
                origin.url("/")
            )
        };
        let upstreams: String = self.all.iter().map(upstream).collect();
        format!("[cache]\nmin_free = \"0B\"\n{upstreams}")
    }

    pub(crate) fn connections(&self) -> u64 {
        self.all.iter().map(|(_, _, origin)| origin.connections()).sum()
    }
}

/// `lab-app` and the packages that it depends on.
fn publish_archive(origin: &Origin, folder: &Path) -> Result<Archive> {
    let needed: Vec<String> = (0..NEEDED).map(|nth| format!("lab-part-{nth}")).collect();
    let mut index = String::new();
    let names = needed.iter().map(|name| (name.as_str(), &[][..]));
    for (name, depends) in names.chain([("lab-app", needed.as_slice())]) {
        let (path, bytes, paragraph) = package(folder, name, depends)?;
        origin.serve(&format!("/debian/{path}"), Resource::cacheable(bytes));
        index.push_str(&paragraph);
    }
    let mut archive = Archive::new()?;
    archive.index("main/binary-amd64/Packages", index);
    archive.publish(origin)?;
    Ok(archive)
}

/// Clients on one node that ask the proxy at `at`.
pub(crate) struct Clients<'l> {
    pub(crate) node: Node<'l>,
    pub(crate) at: String,
    pub(crate) origins: &'l Origins,
}

impl Clients<'_> {
    fn run(&self, argv: &[&str]) -> Result<String> {
        let output = self.node.exec_within(PATIENCE, argv, &[])?;
        command::success(&format!("{}: {}", self.node.name(), argv.join(" ")), output)
    }

    /// What the proxy tells clients of this kind to write into the file `name`.
    fn told(&self, client: &str, name: &str) -> Result<String> {
        let text = self.run(&["curl", "-sSf", &format!("http://{}/-/setup/{client}", self.at)])?;
        let part = text
            .split("# file: ")
            .find_map(|part| part.strip_prefix(name)?.strip_prefix('\n'));
        Ok(part
            .with_context(|| format!("no part for {name} in:\n{text}"))?
            .to_owned())
    }

    fn apt(&self) -> Result<()> {
        let source = format!(
            "deb [signed-by={KEY} arch=amd64] http://{}/debian/debian/ stable main\n",
            self.at
        );
        self.node.put("/etc/lab/sources.list", source.as_bytes(), 0o644)?;
        self.node
            .put(KEY, &fs::read(self.origins.archive.key())?, 0o644)?;
        for folder in [
            "/var/lib/lab-apt/lists/partial",
            "/var/cache/lab-apt/archives/partial",
        ] {
            self.run(&["mkdir", "-p", folder])?;
        }
        let mut apt = vec!["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"];
        apt.extend(ON_A_NODE.iter().flat_map(|option| ["-o", option]));
        self.run(&[&apt[..], &["update"]].concat())?;
        self.run(&[&apt[..], &["install", "-y", "--no-install-recommends", "lab-app"]].concat())?;
        let shown = self.run(&[
            "dpkg-query",
            "--show",
            "--showformat",
            "${db:Status-Status} ",
            "lab-app",
            "lab-part-*",
        ])?;
        ensure!(shown == "installed ".repeat(NEEDED + 1), "{shown}");
        Ok(())
    }

    fn images(&self) -> Result<()> {
        let digest = self.origins.image.digest();
        let skopeo = [
            "skopeo",
            "--insecure-policy",
            "copy",
            "--quiet",
            "--all",
            "--preserve-digests",
            "--src-tls-verify=false",
        ];
        for (nth, reference) in [":1.0".to_owned(), format!("@{digest}")].iter().enumerate() {
            let from = format!("docker://{}/hub/team/app{reference}", self.at);
            self.run(&[&skopeo[..], &[&from, &format!("dir:/var/tmp/copied-{nth}")]].concat())?;
        }
        let table = self.told("podman", "/etc/containers/registries.conf.d/50-kato-proxy.conf")?;
        self.node
            .put("/etc/lab/registries.conf", table.as_bytes(), 0o644)?;
        self.node.put(
            "/etc/lab/policy.json",
            br#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
            0o644,
        )?;
        for (nth, (reference, architecture)) in [
            (":1.0".to_owned(), "amd64"),
            (format!("@{digest}"), "amd64"),
            (":1.0".to_owned(), "arm64"),
        ]
        .iter()
        .enumerate()
        {
            // A storage of its own each time: nothing is there already.
            let (root, runroot) = (format!("/var/tmp/podman-{nth}"), format!("/run/podman-{nth}"));
            self.run(&[
                "env",
                "CONTAINERS_REGISTRIES_CONF=/etc/lab/registries.conf",
                "podman",
                "--root",
                &root,
                "--runroot",
                &runroot,
                "--storage-driver",
                "vfs",
                "--cgroup-manager",
                "cgroupfs",
                "--events-backend",
                "none",
                "pull",
                "--quiet",
                "--signature-policy",
                "/etc/lab/policy.json",
                "--arch",
                architecture,
                &format!("{}/team/app{reference}", self.origins.all[1].2.address()),
            ])?;
        }
        Ok(())
    }

    fn pip(&self) -> Result<()> {
        let config = self.told("pip", "/etc/pip.conf")?;
        self.node.put("/etc/lab/pip.conf", config.as_bytes(), 0o644)?;
        let wanted = format!("hello-site==1.0 --hash=sha256:{}\n", self.origins.wheel_digest);
        self.node
            .put("/var/tmp/python/requirements.txt", wanted.as_bytes(), 0o644)?;
        self.run(&[
            "env",
            "PIP_CONFIG_FILE=/etc/lab/pip.conf",
            "HOME=/var/tmp/python",
            "/usr/bin/python3",
            "-m",
            "pip",
            "install",
            "--no-cache-dir",
            "--require-hashes",
            "--target",
            "/var/tmp/python/site",
            "-r",
            "/var/tmp/python/requirements.txt",
        ])?;
        ensure!(
            self.node.exists("/var/tmp/python/site/hello_site.py")?,
            "{WHEEL} was not installed"
        );
        Ok(())
    }

    fn npm(&self) -> Result<()> {
        let config = self.told("npm", "~/.npmrc")?;
        self.node
            .put("/var/tmp/npm-home/.npmrc", config.as_bytes(), 0o644)?;
        let project = br#"{"name":"project","version":"1.0.0","dependencies":{"@site/hello":"1.0.0"}}"#;
        self.node.put("/var/tmp/npm/package.json", project, 0o644)?;
        self.node.put(
            "/var/tmp/npm/package-lock.json",
            self.origins.npm_lock.as_bytes(),
            0o644,
        )?;
        self.run(&[
            "env",
            "--chdir=/var/tmp/npm",
            "HOME=/var/tmp/npm-home",
            "npm",
            "ci",
            "--fetch-retries=0",
        ])?;
        ensure!(
            self.node
                .exists("/var/tmp/npm/node_modules/@site/hello/index.js")?,
            "npm installed nothing"
        );
        Ok(())
    }

    /// With the lock file `lock`, else makes one; returns it.
    fn cargo(&self, lock: Option<&[u8]>) -> Result<Vec<u8>> {
        let config = self.told("cargo", "~/.cargo/config.toml")?;
        self.node
            .put("/var/tmp/cargo/home/config.toml", config.as_bytes(), 0o644)?;
        let manifest = "[package]\nname = \"project\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\nhello-site = \"1\"\n[workspace]\n";
        self.node
            .put("/var/tmp/cargo/Cargo.toml", manifest.as_bytes(), 0o644)?;
        self.node
            .put("/var/tmp/cargo/src/lib.rs", b"//! Nothing.\n", 0o644)?;
        let program = std::env::var_os("CARGO").context("nextest names the cargo that runs it")?;
        let program = program.to_str().context("ASCII")?;
        let rustc = format!("RUSTC={}", Path::new(program).with_file_name("rustc").display());
        let cargo = [
            "env",
            "--chdir=/var/tmp/cargo",
            "CARGO_HOME=/var/tmp/cargo/home",
            "CARGO_NET_RETRY=0",
            &rustc,
            program,
        ];
        match lock {
            Some(lock) => self.node.put("/var/tmp/cargo/Cargo.lock", lock, 0o644)?,
            None => drop(self.run(&[&cargo[..], &["generate-lockfile"]].concat())?),
        }
        self.run(&[&cargo[..], &["fetch", "--locked"]].concat())?;
        self.node.read("/var/tmp/cargo/Cargo.lock")
    }

    /// All of them; returns cargo's lock file.
    pub(crate) fn everything(&self, lock: Option<&[u8]>) -> Result<Vec<u8>> {
        self.apt()?;
        self.images()?;
        self.pip()?;
        self.npm()?;
        self.run(&[
            "env",
            "--chdir=/var/tmp",
            "curl",
            "-sSfO",
            &format!("http://{}/files/tool-1.0.tar.gz", self.at),
        ])?;
        ensure!(
            self.node.read("/var/tmp/tool-1.0.tar.gz")? == vec![7; 300_000],
            "curl got another file"
        );
        self.cargo(lock)
    }
}
