//! The proxy and real servers behind it: nginx over TLS and HTTP/2, a parent proxy that wants a password, a network with an address that
//! leads nowhere, a name service that dies.

mod site;

/// Needs root and namespaces.
mod as_root {
    use std::time::Duration;

    use anyhow::{Context, Result};
    use integration_tests::lab::{HOST, Lab, NodeSpec};
    use tokio::time::Instant;

    use crate::site::{DEAD, PARENT_PORT, Site};

    fn lab() -> Result<Lab> {
        Lab::start(&[NodeSpec::new("core")])
    }

    #[test]
    fn an_https_upstream_is_asked_over_http2_and_stored() -> Result<()> {
        let lab = lab()?;
        let site = Site::start(&lab)?;
        let proxy = site.proxy(&format!(
            "[[upstream]]\nname = \"pkg\"\nurls = [\"https://{HOST}/\"]\nca_file = \"/etc/kato/ca.pem\"\n"
        ))?;
        for _ in 0..2 {
            assert_eq!(site.get("/pkg/small")?, site.content("small")?, "{}", proxy.log());
        }
        let requests = site.requests()?;
        assert_eq!(requests, ["HTTP/2.0 GET /small 200 direct"], "{}", proxy.log());
        Ok(())
    }

    #[test]
    fn http_and_https_go_through_a_parent_that_wants_a_password_from_a_file() -> Result<()> {
        let lab = lab()?;
        let site = Site::start(&lab)?;
        let upstream = |name: &str, scheme: &str| {
            format!(
                "[[upstream]]\nname = \"{name}\"\nurls = [\"{scheme}://{HOST}/\"]\nca_file = \"/etc/kato/ca.pem\"\n\
                 proxy = \"http://{HOST}:{PARENT_PORT}\"\nproxy_credentials_file = \"/etc/kato/parent.credentials\"\n"
            )
        };
        let proxy = site.proxy(&(upstream("plain", "http") + &upstream("secure", "https")))?;
        for path in ["/plain/small", "/secure/small"] {
            assert_eq!(site.get(path)?, site.content("small")?, "{path}: {}", proxy.log());
        }
        // The parent sees what it is asked for in absolute-form, and only a tunnel of the rest.
        let requests = site.requests()?;
        assert_eq!(requests.len(), 2);
        assert!(
            requests[0].ends_with("by parent") && requests[1].starts_with("HTTP/2.0"),
            "{requests:?}"
        );
        Ok(())
    }

    #[test]
    fn a_parent_without_its_password_is_told_by_name() -> Result<()> {
        let lab = lab()?;
        let site = Site::start(&lab)?;
        let _proxy = site.proxy(&format!(
            "[origins]\nproxy = \"http://{HOST}:{PARENT_PORT}\"\n[[upstream]]\nname = \"pkg\"\nurls = [\"https://{HOST}/\"]\n"
        ))?;
        let answer = site.answer("/pkg/small")?;
        let text = String::from_utf8_lossy(&answer);
        assert!(
            text.starts_with("HTTP/1.1 502") || text.starts_with("HTTP/1.0 502"),
            "{text}"
        );
        assert!(text.contains("parent proxy") && text.contains("407"), "{text}");
        assert!(site.requests()?.is_empty());
        Ok(())
    }

    #[test]
    fn an_address_that_leads_nowhere_does_not_hang_the_first_request() -> Result<()> {
        let lab = lab()?;
        let site = Site::start(&lab)?;
        let core = lab.node("core")?;
        core.put(
            "/etc/hosts",
            format!("{DEAD} pkg.example\n{HOST} pkg.example\n127.0.0.1 localhost\n").as_bytes(),
            0o644,
        )?;
        let proxy = site.proxy(
            "[[upstream]]\nname = \"pkg\"\nurls = [\"http://pkg.example/\"]\n[origins]\ndns_cache = \"0s\"\n",
        )?;
        let began = Instant::now();
        assert_eq!(site.get("/pkg/small")?, site.content("small")?, "{}", proxy.log());
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());

        // P9: the name service dies, and the mirror lives on with what it knows.
        core.put("/etc/hosts", b"127.0.0.1 localhost\n", 0o644)?;
        assert_eq!(site.get("/pkg/large")?, site.content("large")?, "{}", proxy.log());
        Ok(())
    }

    #[test]
    fn a_body_goes_on_from_the_next_url_when_a_server_dies_in_the_middle() -> Result<()> {
        let lab = lab()?;
        let site = Site::start(&lab)?;
        let slow = site.slow_mirror()?;
        let proxy = site.proxy(&format!(
            "[[upstream]]\nname = \"pkg\"\nurls = [\"http://{HOST}:8080/\", \"http://{HOST}/\"]\n"
        ))?;
        let whole = site.content("large")?;
        let mut reading = site.begin("/pkg/large")?;
        // Some of it is here, so the slow server is in the middle of it.
        let mut received = site.read(&mut reading, 1 << 20)?;
        drop(slow);
        received.extend(site.read(&mut reading, usize::MAX)?);
        let head = received
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .context("no head")?;
        assert!(received[head + 4..] == whole, "{}", proxy.log());
        let rest: Vec<_> = site
            .requests()?
            .into_iter()
            .filter(|request| request.contains(" 206 "))
            .collect();
        assert_eq!(rest.len(), 1, "{}", proxy.log());
        Ok(())
    }
}
