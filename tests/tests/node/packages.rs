//! The policy `package` with the machine's dpkg and apt, in the node's own root.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use integration_tests::{
    command,
    node::TestNode,
    releases::{TestModule, TestRelease},
};
use kato_shared::durable;

use crate::setup::Site;

/// The version of the tool that dpkg unpacks and cannot configure.
const BROKEN: &str = "3.0";

/// dpkg runs scripts in the node's own root, where there is no program at all.
const NO_INTERPRETER: &[u8] = b"#!/bin/there-is-none\nexit 1\n";

/// Builds a package with one file, and gives its file's name and content. That of the tool in [`BROKEN`] has a script that fails.
fn deb(folder: &Path, name: &str, version: &str) -> Result<(String, Vec<u8>)> {
    let tree = folder.join(format!("tree-{name}-{version}"));
    durable::create_folder(&tree.join("DEBIAN"))?;
    durable::create_folder(&tree.join("etc"))?;
    durable::create_folder(&tree.join("usr/share").join(name))?;
    let depends = if name == "lab-tool" {
        "Depends: lab-library\n"
    } else {
        ""
    };
    let control = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: Lab <lab@lab.example>\n{depends}Description: a package of the lab\n"
    );
    let settings = format!("etc/{name}.conf");
    for (path, content) in [
        ("DEBIAN/control", control.as_str()),
        ("DEBIAN/conffiles", &format!("/{settings}\n")),
        (&settings, &format!("settings of {version}\n")),
        (&format!("usr/share/{name}/text"), &format!("{name} {version}\n")),
    ] {
        durable::write(&tree.join(path), content.as_bytes(), 0o644)?;
    }
    if name == "lab-tool" && version == BROKEN {
        durable::write(&tree.join("DEBIAN/postinst"), NO_INTERPRETER, 0o755)?;
    }
    let file = format!("{name}_{version}_all.deb");
    let path = folder.join(&file);
    let (from, to) = (tree.display().to_string(), path.display().to_string());
    command::ok(&["dpkg-deb", "--root-owner-group", "--build", &from, &to])?;
    Ok((file, fs::read(path)?))
}

/// A module with the tool and the library in `version`, in its archive.
fn tools(folder: &Path, version: &str) -> Result<TestModule> {
    let install =
        format!("policy = \"package\"\npackages = [\"lab-tool={version}\", \"lab-library={version}\"]");
    let mut module = TestModule::new("tools", &install, &[]);
    for name in ["lab-tool", "lab-library"] {
        let (file, content) = deb(folder, name, version)?;
        module = module.with_file(&file, content, 0o644);
    }
    Ok(module)
}

/// An empty database of packages below the node's root.
fn with_dpkg(node: &TestNode) -> Result<()> {
    for folder in ["info", "updates", "triggers", "parts"] {
        durable::create_folder(&node.path("var/lib/dpkg").join(folder))?;
    }
    node.put("var/lib/dpkg/status", "")?;
    for folder in [
        "etc/apt/apt.conf.d",
        "etc/apt/preferences.d",
        "etc/apt/trusted.gpg.d",
        "var/lib/apt/lists/partial",
        "var/cache/apt/archives/partial",
        "var/log/apt",
    ] {
        durable::create_folder(&node.path(folder))?;
    }
    Ok(())
}

fn version(node: &TestNode, name: &str) -> Result<String> {
    let admin = format!("--admindir={}", node.path("var/lib/dpkg").display());
    let format = "--showformat=${Package} ${Version} ${db:Status-Status}\n";
    let all = command::ok(&["dpkg-query", &admin, "--show", format])?;
    let found = all
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name} ")));
    Ok(found.unwrap_or("none").to_owned())
}

fn with(version: &str, module: TestModule) -> TestRelease {
    let mut release = TestRelease::standard(version);
    release.head = "restart = \"services\"\n".into();
    release.modules.push(module);
    release
}

const CHECK: &str =
    "[[check]]\nid = \"command\"\nargv = [\"test\", \"-e\", \"healthy\"]\ndeadline = \"0s\"\n";

/// Needs root: dpkg does.
mod as_root {
    use std::time::Duration;

    use integration_tests::{proxy::Settings, static_server::StaticServer, wait};

    use super::*;

    async fn site(tail: &str) -> Result<(Site, tempfile::TempDir)> {
        let folder = tempfile::tempdir()?;
        let mut two = with("2.0.0", tools(folder.path(), "2.0")?);
        two.tail.push_str(tail);
        let site = Site::with(&[with("1.0.0", tools(folder.path(), "1.0")?), two]).await?;
        with_dpkg(&site.node)?;
        site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
        Ok((site, folder))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c19_packages_of_the_archive_are_installed_without_a_question() -> Result<()> {
        let (site, _folder) = site("").await?;
        assert_eq!(version(&site.node, "lab-tool")?, "1.0 installed");
        // Changed here: dpkg would ask.
        site.node.put("etc/lab-tool.conf", "changed here\n")?;
        let said = site.node.upgrade_ends(0, &[])?;
        assert!(said.contains("lab-tool: 1.0 → 2.0"), "{said}");
        for name in ["lab-tool", "lab-library"] {
            assert_eq!(version(&site.node, name)?, "2.0 installed");
        }
        assert_eq!(
            site.node.text("usr/share/lab-tool/text").as_deref(),
            Some("lab-tool 2.0\n")
        );
        assert_eq!(
            site.node.text("etc/lab-tool.conf").as_deref(),
            Some("changed here\n")
        );
        assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c23_packages_get_their_versions_back_and_new_ones_go() -> Result<()> {
        let (site, folder) = site(CHECK).await?;
        let said = site.node.upgrade_ends(22, &[])?;
        assert!(said.contains("this node runs 1.0.0 again"), "{said}");
        for name in ["lab-tool", "lab-library"] {
            assert_eq!(version(&site.node, name)?, "1.0 installed");
        }
        assert_eq!(
            site.node.text("usr/share/lab-tool/text").as_deref(),
            Some("lab-tool 1.0\n")
        );
        assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());

        let mut two = with("2.0.0", tools(folder.path(), "2.0")?);
        two.tail.push_str(CHECK);
        let site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
        with_dpkg(&site.node)?;
        site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
        site.node.upgrade_ends(22, &[])?;
        assert_eq!(version(&site.node, "lab-tool")?, "none");
        assert_eq!(site.node.text("etc/lab-tool.conf"), None);
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c23_a_package_whose_script_fails_bars_neither_the_old_version_nor_the_mended_one() -> Result<()>
    {
        let (mut site, folder) = site("").await?;
        let broken = with("3.0.0", tools(folder.path(), BROKEN)?);
        let mended = with("4.0.0", tools(folder.path(), "4.0")?);
        site.repository.publish(&broken).await?;
        site.repository.publish(&mended).await?;
        site.node.add_settings("[upgrade]\nmodule_attempts = 2\n")?;
        site.node.upgrade_ends(21, &["--version", "3.0.0"])?;
        assert_eq!(version(&site.node, "lab-tool")?, "3.0 half-configured");
        let said = site.node.upgrade_ends(22, &["--version", "3.0.0"])?;
        assert!(said.contains("this node runs 1.0.0 again"), "{said}");
        for name in ["lab-tool", "lab-library"] {
            assert_eq!(version(&site.node, name)?, "1.0 installed");
        }
        assert_eq!(site.node.leftovers()?, Vec::<PathBuf>::new());

        // Half way, forward to the release that mends it.
        site.node.upgrade_ends(21, &["--version", "3.0.0", "--force"])?;
        assert_eq!(version(&site.node, "lab-tool")?, "3.0 half-configured");
        site.node.upgrade_ends(0, &["--version", "4.0.0", "--force"])?;
        for name in ["lab-tool", "lab-library"] {
            assert_eq!(version(&site.node, name)?, "4.0 installed");
        }
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c23_a_new_package_whose_script_fails_goes_again() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let two = with("2.0.0", tools(folder.path(), BROKEN)?);
        let mut site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
        with_dpkg(&site.node)?;
        site.node.add_settings("[upgrade]\nmodule_attempts = 1\n")?;
        site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
        site.node.upgrade_ends(22, &[])?;
        for name in ["lab-tool", "lab-library"] {
            assert_eq!(version(&site.node, name)?, "none");
        }
        assert_eq!(site.node.text("usr/share/lab-tool/text"), None);
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c23_without_the_old_packages_file_the_plan_says_that_there_is_no_way_back() -> Result<()> {
        let (site, _folder) = site(CHECK).await?;
        fs::remove_dir_all(site.node.state("packages"))?;
        let kato = site.node.kato(&["node", "upgrade", "--plan"])?;
        let plan = String::from_utf8(command::run(kato, Duration::from_secs(60), &[])?.stdout)?;
        assert!(
            plan.contains(
                "until module:tools: the module tools cannot be undone: no .deb of lab-tool 1.0 is kept here"
            ),
            "{plan}"
        );
        site.node.upgrade_ends(21, &[])?;
        assert_eq!(version(&site.node, "lab-tool")?, "2.0 installed");
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c20_a_lock_that_somebody_holds_is_waited_for_and_its_holder_named() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let mut module = tools(folder.path(), "1.0")?;
        module.keys.push_str("timeout = \"4s\"\n");
        let site = Site::with(&[with("1.0.0", module)]).await?;
        with_dpkg(&site.node)?;
        let lock = site.node.path("var/lib/dpkg/lock-frontend");
        let held = site.node.path("held");
        // A lock of fcntl(2), as apt has it; the shell's flock is of another kind.
        let script = format!(
            "import fcntl, time\nf = open({:?}, 'w')\nfcntl.lockf(f, fcntl.LOCK_EX)\nopen({:?}, 'w').close()\ntime.sleep(60)\n",
            lock.display().to_string(),
            held.display().to_string()
        );
        let mut holder = command::new("python3");
        let mut holder = holder.args(["-c", &script]).spawn()?;
        wait::until("the lock is held", Duration::from_secs(20), || {
            held.exists().then_some(())
        })?;
        let said = site.node.upgrade_ends(21, &[]);
        holder.kill()?;
        holder.wait()?;
        let said = said?;
        assert!(
            said.contains("lock-frontend` is held by process") && said.contains("(python3 -c "),
            "{said}"
        );
        site.node.upgrade_ends(0, &[])?;
        assert_eq!(version(&site.node, "lab-tool")?, "1.0 installed");
        Ok(())
    }

    /// An archive for apt in `folder` with both packages in `versions`.
    fn archive(folder: &Path, versions: &[&str]) -> Result<()> {
        for version in versions {
            for name in ["lab-tool", "lab-library"] {
                deb(folder, name, version)?;
            }
        }
        let script = "cd \"$1\" && apt-ftparchive packages . > Packages";
        command::ok(&["sh", "-c", script, "sh", &folder.display().to_string()])?;
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn c14_packages_by_name_come_through_the_cache_before_anything_is_changed() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let debs = folder.path().join("debs");
        durable::create_folder(&debs)?;
        archive(&debs, &["1.0", "2.0"])?;
        let origin = StaticServer::start(&debs).await?;
        let by_name = |version: &str| {
            let install = format!(
                "policy = \"package\"\npackages = [\"lab-tool={version}\", \"lab-library={version}\"]"
            );
            TestModule::new("tools", &install, &[])
        };
        let mut site = Site::with(&[with("1.0.0", by_name("1.0")), {
            let mut two = with("2.0.0", by_name("2.0"));
            two.tail.push_str(CHECK);
            two
        }])
        .await?;
        with_dpkg(&site.node)?;
        let source = format!("deb [trusted=yes] {} ./\n", origin.url());
        site.node.put("etc/apt/sources.list", &source)?;
        site.node
            .put("etc/apt/apt.conf.d/50lab", "APT::Sandbox::User \"root\";\n")?;
        let config = folder.path().join("proxy.toml");
        let upstream =
            |name: &str, url: &str| format!("[[upstream]]\nname = \"{name}\"\nurls = [\"{url}\"]\n");
        let upstreams = upstream("debs", origin.url().as_str()) + &upstream("host", site.host.url().as_str());
        durable::write(&config, upstreams.as_bytes(), 0o644)?;
        let proxy = Settings::new(&folder.path().join("cache"))
            .arguments(&["--config", &config.display().to_string()])
            .start()
            .await?;
        site.node
            .add_settings(&format!("[cache]\nurl = \"http://{}/\"\n", proxy.data))?;
        site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
        assert_eq!(version(&site.node, "lab-tool")?, "1.0 installed");
        site.node.upgrade_ends(0, &["--download-only"])?;
        assert_eq!(version(&site.node, "lab-tool")?, "1.0 installed");
        let fetched = node_archives(&site.node);
        assert!(
            fetched.iter().any(|name| name.contains("lab-tool_2.0")),
            "{fetched:?}"
        );
        // What one node has fetched, no other fetches from afar: it came through the cache.
        let sent = |origin: &StaticServer| origin.bodies().get("/lab-tool_2.0_all.deb").copied();
        assert_eq!(sent(&origin), Some(1));
        let url = format!("{}lab-tool_2.0_all.deb", origin.url());
        let (cached, _) = proxy.client().fetch(&url).await?;
        assert_eq!(cached.status, 200);
        assert_eq!(sent(&origin), Some(1), "it was not in the cache");
        // The old versions' files were kept, so that there is a way back.
        site.node.upgrade_ends(22, &[])?;
        for name in ["lab-tool", "lab-library"] {
            assert_eq!(version(&site.node, name)?, "1.0 installed");
        }
        Ok(())
    }

    fn node_archives(node: &TestNode) -> Vec<String> {
        integration_tests::node::names(&node.path("var/cache/apt/archives"))
    }
}
