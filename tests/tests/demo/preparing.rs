//! `kato node upgrade --prepare` by the real programs.

mod parent;

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::Output,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use integration_tests::{
    binaries,
    client::Client,
    command,
    image::Image,
    registry::Registry,
    releases::{Repository, TestModule, TestRelease},
    static_server::StaticServer,
    wait,
};
use kato_shared::durable;
use kato_upgrader::{
    fetch::{Fetcher, Route},
    prepare::{process::ProcessId, profile::SKIP},
};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

use super::{DEADLINE, PREFLIGHT, document};

/// What must be asked of the upgrade host each time: whether there is anything new.
const NEWS: [&str; 2] = ["/metadata/2.root.json", "/metadata/timestamp.json"];

/// A Core node without a release, and an upgrade host with 1.0.0 and 2.0.0.
struct Core {
    folder: TempDir,
    repository: Repository,
    host: StaticServer,
    /// For nodes, and for health and the API.
    ports: (u16, u16),
}

impl Drop for Core {
    fn drop(&mut self) {
        // A test that failed must not leave a cache behind; when this fails as well, the test says enough.
        self.kato(&["cache", "stop"], &[]).ok();
    }
}

impl Core {
    async fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let repository = Repository::empty(folder.path()).await?;
        for version in ["1.0.0", "2.0.0"] {
            repository
                .publish(&TestRelease::standard(version).with_payload(3 << 20))
                .await?;
        }
        let host = StaticServer::start(&repository.dir()).await?;
        let free = (
            TcpListener::bind("127.0.0.1:0")?,
            TcpListener::bind("127.0.0.1:0")?,
        );
        let ports = (free.0.local_addr()?.port(), free.1.local_addr()?.port());
        let core = Self {
            folder,
            repository,
            host,
            ports,
        };
        core.write_settings("core", "")?;
        let inventory = r#"
            [[node]]
            id = "core"
            address = "127.0.0.1"
            roles = ["primary"]
            transport = "local"
        "#;
        durable::write(&core.etc().join("cluster.toml"), inventory.as_bytes(), 0o644)?;
        Ok(core)
    }

    /// Settings of the node `id`, with more keys of `[cache]`.
    fn write_settings(&self, id: &str, cache: &str) -> Result<()> {
        let program = binaries::built("kato-proxy")?;
        let text = format!(
            "[node]\nid = \"{id}\"\nroles = [\"primary\"]\nroot = \"{}\"\n\
             [release]\nurl = \"{}\"\ntrusted_root = \"{}\"\n\
             [cache]\nport = {}\nadmin_port = {}\nprogram = \"{}\"\n{cache}\n",
            self.root().display(),
            self.host.url(),
            self.repository.root().display(),
            self.ports.0,
            self.ports.1,
            program.display(),
        );
        durable::create_folder(&self.etc())?;
        durable::write(&self.config(), text.as_bytes(), 0o644)?;
        Ok(())
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("core")
    }

    fn etc(&self) -> PathBuf {
        self.root().join("etc/kato")
    }

    fn config(&self) -> PathBuf {
        self.etc().join("kato.toml")
    }

    /// The processes of the cache.
    fn record(&self) -> Option<Value> {
        let path = self.root().join("var/stackato/upgrade/cache/cache.json");
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    fn process(&self, key: &str) -> Option<ProcessId> {
        serde_json::from_value(self.record()?.get(key)?.clone()).ok()
    }

    fn kato(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Output> {
        let mut kato = command::new(binaries::built("kato")?);
        kato.arg("--config").arg(self.config()).args(arguments);
        kato.envs(environment.iter().copied());
        command::run(kato, DEADLINE, &[])
    }

    fn prepare(&self, environment: &[(&str, &str)]) -> Result<Output> {
        self.kato(&["--json", "node", "upgrade", "--prepare"], environment)
    }

    /// Waits until the cache has on the disk what it serves: a SIGKILL may cost what came in the second before it.
    async fn settled(&self) -> Result<()> {
        let admin = Client::new(SocketAddr::from(([127, 0, 0, 1], self.ports.1)));
        let end = Instant::now() + DEADLINE;
        loop {
            let (_, body) = admin.fetch("/-/api/stats").await?;
            let stats: Value = serde_json::from_slice(&body)?;
            if stats["queued_responses"] == 0 {
                return Ok(());
            }
            ensure!(Instant::now() < end, "never on the disk: {stats:#}");
        }
    }

    /// Prepares and wants success.
    fn prepared(&self) -> Result<Value> {
        document(&self.prepare(&[])?)
    }

    /// What the upgrade host was asked for.
    fn asked_for(&self) -> Vec<String> {
        let requests = self.host.requests().into_iter();
        requests.map(|(path, _count)| path).collect()
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.ports.0)
    }
}

/// What a refused command says; it must have changed nothing.
fn refusal(core: &Core, output: &Output) -> Result<String> {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(PREFLIGHT), "{said}");
    ensure!(core.record().is_none(), "a cache was started");
    Ok(said)
}

#[tokio::test(flavor = "multi_thread")]
async fn c14_the_closure_has_the_images_of_all_roles_and_needs_no_registry_afterwards() -> Result<()> {
    let core = Core::new().await?;
    let place = core.folder.path().join("images");
    durable::create_folder(&place)?;
    let image = Image::build(&place, "first")?;
    let registry = Registry::start(&place, None)?;
    image.push(&format!("{}/lab/app:v1", registry.address))?;
    let install = format!(
        "policy = \"image\"\n[[module.install.images]]\nname = \"{}/lab/app\"\ndigest = \"{}\"\nsize = 1000000\nplatform = \"linux/amd64\"",
        registry.address,
        image.digest()
    );
    let mut release = TestRelease::standard("3.0.0");
    release
        .modules
        .push(TestModule::new("images", &install, &[]).for_roles(&["dea"]));
    core.repository.publish(&release).await?;
    core.write_settings(
        "core",
        &format!("registries = [\"http://{}/\"]", registry.address),
    )?;
    let first = core.prepared()?;
    let fetched = first["closure"]["fetched"].to_string();
    // The index, the manifest of the platform, its configuration and its six layers.
    assert_eq!(
        fetched.matches("/lab/app/manifests/sha256:").count(),
        2,
        "{fetched}"
    );
    assert_eq!(fetched.matches("/lab/app/blobs/sha256:").count(), 7, "{fetched}");
    core.settled().await?;
    drop(registry);
    let second = core.prepared()?;
    assert_eq!(
        second["closure"]["fetched"].as_array().map(Vec::len),
        Some(0),
        "{second:#}"
    );
    Ok(())
}

fn names(document: &Value, key: &str) -> usize {
    document["closure"][key].as_array().map_or(0, Vec::len)
}

#[tokio::test(flavor = "multi_thread")]
async fn r09_the_closure_is_fetched_once_and_the_second_run_fetches_nothing() -> Result<()> {
    let core = Core::new().await?;
    let first = core.prepared()?;
    assert_eq!(first["cache"], core.url());
    assert_eq!(first["closure"]["version"], "2.0.0");
    // Four artifacts, the release, the graph, and the metadata.
    assert!(names(&first, "fetched") >= 8, "{first:#}");
    assert_eq!(names(&first, "present"), 0, "{first:#}");
    for artifact in ["app-2.0.0", "console-2.0.0", "etc-2.0.0", "runner-2.0.0"] {
        assert_eq!(core.host.count(&format!("{artifact}.tar.zst")), 1, "{artifact}");
    }
    core.host.reset();
    let second = core.prepared()?;
    assert_eq!(core.asked_for(), NEWS);
    assert_eq!(names(&second, "fetched"), 0, "{second:#}");
    assert_eq!(names(&second, "present"), names(&first, "fetched"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r09_what_was_published_a_moment_ago_is_found_whatever_the_cache_thinks_fresh() -> Result<()> {
    let core = Core::new().await?;
    core.prepared()?;
    core.repository.publish(&TestRelease::standard("3.0.0")).await?;
    assert_eq!(core.prepared()?["closure"]["version"], "3.0.0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r09_nodes_need_no_upgrade_host_afterwards() -> Result<()> {
    let core = Core::new().await?;
    core.prepared()?;
    core.host.reset();
    let fetcher = Fetcher::new(Route::Cache(core.url().parse()?))?;
    let datastore = core.folder.path().join("another-node");
    let root = fs::read(core.repository.root())?;
    let repository = fetcher.repository(&root, &core.host.url(), &datastore).await?;
    let release = repository.release(&"2.0.0".parse()?).await?;
    for artifact in release.artifacts.values() {
        fetcher
            .download(&repository.target(&artifact.target)?, &datastore, &|_, _| {})
            .await?;
    }
    assert_eq!(core.host.total(), 0, "{:?}", core.host.requests());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r09_a_cache_that_dies_is_started_again() -> Result<()> {
    let core = Core::new().await?;
    core.prepared()?;
    core.settled().await?;
    let first = core.process("proxy").context("a cache")?;
    ensure!(first.signal(Signal::KILL)?, "the cache had ended already");
    let again = || {
        core.process("proxy")
            .filter(|now| *now != first && now.is_running())
    };
    wait::until("another life of the cache", Duration::from_secs(30), again)?;
    core.host.reset();
    let document = core.prepared()?;
    assert_eq!(
        names(&document, "fetched"),
        0,
        "what it stored is still there: {document:#}"
    );
    assert_eq!(core.asked_for(), NEWS);
    assert_eq!(core.record().context("a record")?["restarts"], 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r09_a_cache_without_its_supervisor_is_taken_over() -> Result<()> {
    let core = Core::new().await?;
    core.prepared()?;
    core.settled().await?;
    let (supervisor, orphan) = (core.process("supervisor"), core.process("proxy"));
    let (supervisor, orphan) = (supervisor.context("a supervisor")?, orphan.context("a cache")?);
    supervisor.signal(Signal::KILL)?;
    wait::until("end of the supervisor", Duration::from_secs(30), || {
        (!supervisor.is_running()).then_some(())
    })?;
    core.prepared()?;
    assert!(!orphan.is_running());
    assert_ne!(core.process("supervisor"), Some(supervisor));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r09_stop_ends_the_cache_and_keeps_what_it_stored() -> Result<()> {
    let core = Core::new().await?;
    core.prepared()?;
    let (supervisor, proxy) = (core.process("supervisor"), core.process("proxy"));
    assert_eq!(
        document(&core.kato(&["--json", "cache", "stop"], &[])?)?["stopped"],
        true
    );
    for process in [supervisor, proxy] {
        assert!(!process.context("a process")?.is_running());
    }
    assert_eq!(
        document(&core.kato(&["--json", "cache", "stop"], &[])?)?["stopped"],
        false
    );
    core.host.reset();
    core.prepared()?;
    assert_eq!(core.asked_for(), NEWS);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_any_other_node_is_refused_with_the_address_of_core() -> Result<()> {
    let core = Core::new().await?;
    core.write_settings("dea-1", "")?;
    let said = refusal(&core, &core.prepare(&[])?)?;
    assert!(
        said.contains("Core node `core` at 127.0.0.1") && said.contains("this is `dea-1`"),
        "{said}"
    );
    // A node knows no inventory, but where the cache is.
    fs::remove_file(core.etc().join("cluster.toml"))?;
    core.write_settings("dea-1", "url = \"http://10.1.2.3:3180/\"")?;
    let said = refusal(&core, &core.prepare(&[])?)?;
    assert!(
        said.contains("no inventory") && said.contains("10.1.2.3"),
        "{said}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r12_a_proxy_of_the_site_skips_the_cache_and_the_line_is_named() -> Result<()> {
    let core = Core::new().await?;
    let profile = core.root().join("etc/profile");
    let both = "# site\nexport HTTP_PROXY=http://p:1 http_proxy=http://p:1\n";
    durable::write(&profile, both.as_bytes(), 0o644)?;
    let skipped = core.prepared()?;
    let reason = skipped["skipped"].as_str().context("a reason")?;
    assert!(reason.contains("/etc/profile:2"), "{reason}");
    assert_eq!(skipped["cache"], Value::Null);

    durable::write(&profile, b"http_proxy=http://p:1\n", 0o644)?;
    let output = core.prepare(&[])?;
    assert!(document(&output)?["skipped"].is_string());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("warning: only http_proxy is set, by /etc/profile:1"),
        "{said}"
    );
    assert_eq!(core.host.total(), 0);
    assert!(core.record().is_none());

    let own = format!("http_proxy={0} HTTP_PROXY={0}\n", core.url());
    durable::write(&profile, own.as_bytes(), 0o644)?;
    assert_eq!(core.prepared()?["cache"], core.url());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r12_the_invoking_environment_counts() -> Result<()> {
    let core = Core::new().await?;
    let both = [("HTTP_PROXY", "http://p:1"), ("http_proxy", "http://p:1")];
    let skipped = document(&core.prepare(&both)?)?;
    let reason = skipped["skipped"].as_str().context("a reason")?;
    assert!(reason.contains("the environment of this command"), "{reason}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r13_the_variable_skips_the_cache_whatever_it_says() -> Result<()> {
    let core = Core::new().await?;
    for (value, warned) in [("1", false), ("no", true)] {
        let output = core.prepare(&[(SKIP, value)])?;
        assert!(
            document(&output)?["skipped"]
                .as_str()
                .is_some_and(|reason| reason.contains(SKIP))
        );
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said.contains("warning: "), warned, "{said}");
    }
    assert!(core.record().is_none());
    assert_eq!(core.host.total(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_somebody_else_is_named_with_its_holder() -> Result<()> {
    let core = Core::new().await?;
    let taken = TcpListener::bind(("127.0.0.1", core.ports.0))?;
    let said = refusal(&core, &core.prepare(&[])?)?;
    let address = taken.local_addr()?;
    assert!(
        said.contains(&format!("(process {}) listens on {address}", std::process::id()))
            && said.contains("hint: "),
        "{said}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_folder_that_cannot_be_written_is_named() -> Result<()> {
    let core = Core::new().await?;
    durable::write(&core.root().join("a-file"), b"", 0o644)?;
    core.write_settings("core", "dir = \"/a-file/cache\"")?;
    let said = refusal(&core, &core.prepare(&[])?)?;
    assert!(
        said.contains("a-file/cache") && said.contains("hint: ") && said.contains("[cache] dir"),
        "{said}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_upgrade_host_is_named_and_may_pass() -> Result<()> {
    let core = Core::new().await?;
    core.write_settings("core", "")?;
    let text = fs::read_to_string(core.config())?;
    let nobody = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let text = text.replace(core.host.url().as_str(), &format!("http://{nobody}/"));
    durable::write(&core.config(), text.as_bytes(), 0o644)?;
    let output = core.prepare(&[])?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(75), "{said}");
    assert!(
        said.contains(&nobody.to_string()) && said.contains("hint: "),
        "{said}"
    );
    Ok(())
}
