//! A cache that goes out through a parent proxy: the real tinyproxy.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    process::{Child, Stdio},
};

use anyhow::Result;
use integration_tests::{command, wait};
use kato_shared::durable;

use super::{Core, DEADLINE, names};

/// A running tinyproxy; it ends with the test.
struct Parent(Child);

impl Drop for Parent {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r08_the_cache_of_prepare_goes_out_through_its_parent_alone() -> Result<()> {
    let core = Core::new().await?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let folder = core.folder.path();
    let (config, log) = (folder.join("tinyproxy.conf"), folder.join("tinyproxy.log"));
    let text = format!(
        "Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 20\nBasicAuth user pass\nLogFile \"{}\"\nLogLevel Connect\n",
        log.display()
    );
    durable::write(&config, text.as_bytes(), 0o644)?;
    let mut tinyproxy = command::new("tinyproxy");
    tinyproxy.args(["-d", "-c"]).arg(&config);
    let _parent = Parent(tinyproxy.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    wait::until("tinyproxy listens", DEADLINE, || {
        TcpStream::connect(("127.0.0.1", port)).ok()
    })?;
    let credentials = folder.join("credentials");
    durable::write(&credentials, b"user:pass\n", 0o600)?;
    core.write_settings(
        "core",
        &format!(
            "parent = \"http://127.0.0.1:{port}\"\nparent_credentials_file = \"{}\"",
            credentials.display()
        ),
    )?;
    let prepared = core.prepared()?;
    assert!(names(&prepared, "fetched") >= 8, "{prepared:#}");
    let seen = fs::read_to_string(&log)?;
    let asked = |name: &str| {
        seen.lines()
            .any(|line| line.contains("GET") && line.contains(name))
    };
    assert!(asked("timestamp.json") && asked(".tar.zst"), "{seen}");
    Ok(())
}
