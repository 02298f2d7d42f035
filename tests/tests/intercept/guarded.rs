//! CONNECT to hosts that may be asked for, and whose names lead to an address that is not allowed.

/// Needs root and namespaces: names that resolve to what the test wants.
mod as_root {
    use std::time::Duration;

    use anyhow::{Context, Result, ensure};
    use integration_tests::{
        binaries,
        lab::{Background, Lab, Node, NodeSpec},
    };

    const PROXY: &str = "http://127.0.0.1:3180";
    const HOSTS: &str = "127.0.0.1 localhost trap.example opened.example\n169.254.169.254 cloud.example\n";

    /// A proxy on `node` with three upstreams, of which one is opened.
    fn proxy(node: Node<'_>) -> Result<Background> {
        node.put("/etc/hosts", HOSTS.as_bytes(), 0o644)?;
        let upstream = |name: &str, more: &str| {
            format!("[[upstream]]\nname = \"{name}\"\nurls = [\"https://{name}.example:4443/\"]\n{more}")
        };
        let settings = [
            "[listen]\ndata = \"127.0.0.1:3180\"\nadmin = \"127.0.0.1:3181\"\n[cache]\ndir = \"/var/cache/kato-proxy\"\n".to_owned(),
            upstream("trap", ""),
            upstream("cloud", ""),
            upstream("opened", "intercept = true\n"),
        ];
        node.put("/etc/kato/proxy.toml", settings.concat().as_bytes(), 0o644)?;
        let program = binaries::built("kato-proxy")?;
        let program = program.to_str().context("the target folder is not UTF-8")?;
        let proxy = node.spawn(&[program, "serve", "--config", "/etc/kato/proxy.toml"])?;
        loop {
            let line = proxy.line(Duration::from_secs(20))?;
            let listener: serde_json::Value = serde_json::from_str(&line).with_context(|| line.clone())?;
            if listener["listener"] == "data" {
                return Ok(proxy);
            }
        }
    }

    /// What curl prints of the answer to a request, with its head, whatever its status is.
    fn curl(node: Node<'_>, arguments: &[&str]) -> Result<String> {
        let fixed = [
            "curl",
            "--silent",
            "--show-error",
            "--include",
            "--max-time",
            "20",
        ];
        node.ok(&[&fixed[..], arguments].concat())
    }

    fn is_refused(answer: &str) -> Result<()> {
        let is_refused = answer.contains("HTTP/1.1 502 ") || answer.contains("HTTP/2 502");
        ensure!(
            is_refused && answer.contains("urn:kato:problem:address-refused") && answer.contains("\"hint\""),
            "{answer}"
        );
        Ok(())
    }

    #[test]
    fn p19_connect_to_a_name_that_leads_to_an_address_that_is_not_allowed_is_the_upstreams_fault()
    -> Result<()> {
        let lab = Lab::start(&[NodeSpec::new("core")])?;
        let node = lab.node("core")?;
        let proxy = proxy(node)?;
        for name in ["trap", "cloud"] {
            let authority = format!("{name}.example:4443");
            let host = format!("Host: {authority}");
            let connect = [
                "--request",
                "CONNECT",
                "--request-target",
                &authority,
                "--header",
                &host,
                PROXY,
            ];
            is_refused(&curl(node, &connect)?).with_context(|| format!("CONNECT: {}", proxy.log()))?;
            // As it is for a request.
            is_refused(&curl(node, &[&format!("{PROXY}/{name}/a")])?)?;
            let metrics = curl(node, &["http://127.0.0.1:3181/-/metrics"])?;
            let counted =
                format!("kato_proxy_upstream_failures_total{{upstream=\"{name}\",kind=\"guarded\"}} 2");
            ensure!(metrics.contains(&counted), "{metrics}");
        }
        // A host that no upstream names is another matter: the client may not.
        let other = [
            "--request",
            "CONNECT",
            "--request-target",
            "other.example:4443",
            PROXY,
        ];
        let other = curl(
            node,
            &[&other[..], &["--header", "Host: other.example:4443"]].concat(),
        )?;
        ensure!(
            other.contains("HTTP/1.1 403 ") && other.contains("urn:kato:problem:host-refused"),
            "{other}"
        );

        // Where it is opened nothing is asked of the host for CONNECT itself, and the request inside hears it.
        node.ok(&[
            "curl",
            "--silent",
            "--fail",
            "--output",
            "/root/ca.pem",
            &format!("{PROXY}/-/ca.crt"),
        ])?;
        let inside = [
            "--cacert",
            "/root/ca.pem",
            "--proxy",
            PROXY,
            "https://opened.example:4443/a",
        ];
        let inside = curl(node, &inside)?;
        ensure!(inside.starts_with("HTTP/1.1 200 "), "{inside}");
        is_refused(&inside)
    }
}
