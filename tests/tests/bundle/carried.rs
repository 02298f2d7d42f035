//! Recorded where there is a network, carried, and served where there is none: the same real clients on both sides.
//!
//! ```text
//! lab host   the origins, and the proxy that records        ← north asks it
//!    │ bundle (bytes through the test, as a medium would)
//! mirror     an empty store, import, serve --offline        ← south asks it
//! ```
//! All traffic of `mirror` and `south` that is not for each other goes to the lab's host: name server and way out are named so on both, and
//! nothing of it may arrive.

/// Needs root and namespaces.
mod as_root {
    use std::fs;

    use anyhow::{Context, Result, ensure};
    use integration_tests::{
        binaries, command,
        lab::{Background, HOST, Lab, Node, NodeSpec},
        published, wait,
    };

    use crate::{
        clients::{Clients, Origins, PATIENCE},
        only,
    };

    const PORT: u16 = 3180;
    /// The store of the mirror.
    const STORE: &str = "/var/cache/kato-proxy";

    fn listens(proxy: &Background) -> Result<()> {
        loop {
            let line = proxy.line(PATIENCE)?;
            if line.contains("\"admin\"") {
                return Ok(());
            }
        }
    }

    fn program() -> Result<String> {
        Ok(binaries::built("kato-proxy")?.display().to_string())
    }

    /// Records what `north` asks for, exports it, and returns the bundle as a tar, with its public key.
    fn recorded(lab: &Lab, origins: &Origins) -> Result<(Vec<u8>, Vec<u8>, Vec<u8>)> {
        let at = |name: &str| lab.folder().join(name).display().to_string();
        let (program, store, settings) = (program()?, at("store"), at("proxy.toml"));
        published::put(lab.folder(), "proxy.toml", origins.settings().as_bytes())?;
        let listen = format!("{HOST}:{PORT}");
        let proxy = lab.spawn_on_host(&[
            &program,
            "serve",
            "--config",
            &settings,
            "--listen",
            &listen,
            "--admin",
            "127.0.0.1:3181",
            "--cache-dir",
            &store,
        ])?;
        listens(&proxy)?;
        let north = Clients {
            node: lab.node("north")?,
            at: listen,
            origins,
        };
        let lock = north.everything(None).with_context(|| proxy.log())?;
        wait::until("all is stored", PATIENCE, || {
            let said = lab
                .on_host(&["curl", "-sSf", "http://127.0.0.1:3181/-/api/stats"])
                .ok()?;
            let stats: serde_json::Value = serde_json::from_slice(&said.stdout).ok()?;
            (stats["queued_responses"] == 0).then_some(())
        })?;
        drop(proxy);
        let (secret, public, out) = (at("bundle.key"), at("bundle.pub"), at("out"));
        for words in [
            &["keygen", "--secret", &secret, "--public", &public][..],
            &[
                "export",
                "--cache-dir",
                &store,
                "--series",
                "lab",
                "--key",
                &secret,
                "--out",
                &out,
                "--waive",
                "recorded",
            ],
        ] {
            let said = lab.on_host(&[&[program.as_str(), "bundle"], words].concat())?;
            command::success("bundle", said)?;
        }
        let bundle = only(&lab.folder().join("out"))?;
        let tar = at("medium.tar");
        command::ok(&["tar", "-C", &bundle.display().to_string(), "-cf", &tar, "."])?;
        Ok((fs::read(&tar)?, fs::read(&public)?, lock))
    }

    /// Takes the bundle into the mirror's empty store, and serves it.
    fn imported(mirror: &Node<'_>, origins: &Origins, medium: &[u8], public: &[u8]) -> Result<Background> {
        let program = program()?;
        mirror.put("/etc/kato/proxy.toml", origins.settings().as_bytes(), 0o644)?;
        mirror.put("/etc/lab/bundle.pub", public, 0o644)?;
        mirror.ok(&["mkdir", "-p", "/mnt/medium"])?;
        let unpacked = mirror.exec_within(PATIENCE, &["tar", "-C", "/mnt/medium", "-xf", "-"], medium)?;
        command::success("tar", unpacked)?;
        let key = ["--trust", "/etc/lab/bundle.pub"];
        let import = [
            program.as_str(),
            "bundle",
            "import",
            "/mnt/medium",
            "--cache-dir",
            STORE,
        ];
        mirror.ok(&[&import[..], &key].concat())?;
        let listen = format!("0.0.0.0:{PORT}");
        let serve = [
            program.as_str(),
            "serve",
            "--offline",
            "--config",
            "/etc/kato/proxy.toml",
            "--listen",
            &listen,
        ];
        let proxy =
            mirror.spawn(&[&serve[..], &["--admin", "127.0.0.1:3181", "--cache-dir", STORE]].concat())?;
        listens(&proxy)?;
        Ok(proxy)
    }

    /// Asks for what nobody has, so that notes are seen to be taken: it is the only one.
    fn nothing_else_was_missed(mirror: &Node<'_>, south: &Clients<'_>) -> Result<()> {
        let unknown = format!("http://{}/files/unknown", south.at);
        let refused = south.node.exec(&["curl", "-sSf", &unknown])?;
        ensure!(!refused.status.success(), "nobody has it");
        let misses = format!("{STORE}/misses.jsonl");
        let noted = || mirror.read(&misses).ok().filter(|text| !text.is_empty());
        let noted = String::from_utf8(wait::until("a note", PATIENCE, noted)?)?;
        ensure!(
            noted.lines().count() == 1 && noted.contains("/unknown"),
            "misses:\n{noted}"
        );
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_north_recorded_is_all_that_south_needs() -> Result<()> {
        let lab = Lab::start(&["north", "mirror", "south"].map(NodeSpec::new))?;
        let origins = Origins::publish(&lab)?;
        let (medium, public, lock) = tokio::task::block_in_place(|| recorded(&lab, &origins))?;
        let connections = origins.connections();
        let mirror = lab.node("mirror")?;
        let south = Clients {
            node: lab.node("south")?,
            at: format!("{}:{PORT}", mirror.address()),
            origins: &origins,
        };
        for node in [&mirror, &south.node] {
            node.lead_out_to_host()?;
        }

        let before = lab.arrived_at_host()?;
        let proxy = imported(&mirror, &origins, &medium, &public)?;
        south.everything(Some(&lock)).with_context(|| proxy.log())?;
        nothing_else_was_missed(&mirror, &south)?;
        let left = lab.arrived_at_host()? - before;
        ensure!(left == 0, "{left} packets left");
        ensure!(origins.connections() == connections, "an origin was asked");
        // The count sees what leaves: a name that is looked for, and a connection.
        for url in ["http://name.example/", "http://192.0.2.1/"] {
            let seen = lab.arrived_at_host()?;
            south.node.exec(&["curl", "-s", "--max-time", "2", url])?;
            ensure!(lab.arrived_at_host()? > seen, "{url} was not seen to leave");
        }
        Ok(())
    }
}
