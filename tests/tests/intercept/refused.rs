//! What is not about the host of the CONNECT, is no TLS, or does not trust the local authority.

use anyhow::Result;
use integration_tests::proxy;
use kato_shared::durable;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::site::{SOON, Site, text, to_end};

/// What comes until the connection ends; an end without TLS's goodbye is one, too.
async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> Result<String> {
    let mut answer = Vec::new();
    if let Err(error) = timeout(SOON, stream.read_to_end(&mut answer)).await? {
        assert!(
            !answer.is_empty() || error.kind() != std::io::ErrorKind::TimedOut,
            "{error}"
        );
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn rfc9110_s15_5_20_a_request_about_another_host_is_misdirected_by_either_protocol() -> Result<()> {
    let site = Site::start("").await?;
    site.serve(b"content");
    let ca = site.ca().await?;
    let tunnelled = format!("Host: 127.0.0.1:{}", site.port);
    for version in ["--http1.1", "--http2"] {
        for host in ["Host: other.example", &tunnelled, "Host: localhost:1"] {
            let said = site
                .curl("localhost", &["--cacert", &ca, version, "--header", host])
                .await?;
            assert!(
                said.ends_with(" 421") && said.contains("urn:kato:problem:misdirected"),
                "{host}: {said}"
            );
        }
    }
    assert_eq!(site.asked(), 0);
    Ok(())
}

#[tokio::test]
async fn inside_there_are_no_mirror_paths_no_pages_of_ours_no_other_scheme_and_no_connect() -> Result<()> {
    let site = Site::start("").await?;
    site.serve(b"content");
    let host = format!("localhost:{}", site.port);
    for (line, host, status) in [
        // What is a mirror path outside is a path of the host inside, and the origin has none such.
        ("GET /opened/a".to_owned(), host.as_str(), "404"),
        ("GET /-/ca.crt".to_owned(), &host, "404"),
        (format!("GET http://{host}/a"), &host, "421"),
        (format!("GET https://127.0.0.1:{}/a", site.port), &host, "421"),
        ("OPTIONS *".to_owned(), &host, "421"),
        (format!("CONNECT {host}"), &host, "405"),
        ("GET /a".to_owned(), "", "400"),
        ("GET /a".to_owned(), "a b", "400"),
    ] {
        let mut inside = site.inside().await?;
        let head = format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        inside.write_all(head.as_bytes()).await?;
        let answer = rest(&mut inside).await?;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{line} {host:?}: {answer}"
        );
    }
    assert_eq!(site.asked(), 0);
    assert_eq!(site.origin.requests("/opened/a").len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_handshake_for_another_host_than_that_of_connect_gets_an_alert() -> Result<()> {
    let site = Site::start("").await?;
    let (proxy, connect) = (site.proxy.data.to_string(), format!("localhost:{}", site.port));
    let common = ["openssl", "s_client", "-proxy", &proxy, "-connect", &connect];
    let good = to_end(&[&common[..], &["-servername", "localhost"]].concat()).await?;
    assert!(good.status.success());
    let bad = to_end(&[&common[..], &["-servername", "other.example"]].concat()).await?;
    assert!(!bad.status.success());
    let said = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert!(said.contains("alert"), "{said}");
    site.proxy
        .wait_for_log("a client names another host in its TLS handshake than in CONNECT")
        .await?;
    // Clients that name none, as old ones do, get what they asked CONNECT for.
    let none = to_end(&[&common[..], &["-noservername"]].concat()).await?;
    assert!(none.status.success());
    Ok(())
}

#[tokio::test]
async fn a_client_that_does_not_trust_us_leaves_and_the_log_says_what_to_do() -> Result<()> {
    let site = Site::start("").await?;
    site.serve(b"content");
    let origin_ca = site.file("origin-ca.pem")?;
    let ended = site.curl_to_end("localhost", &["--cacert", &origin_ca]).await?;
    assert_eq!(
        ended.status.code(),
        Some(60),
        "curl's code for a certificate that it does not know"
    );
    site.proxy
        .wait_for_log("a client does not trust the local authority")
        .await?;
    assert!(
        site.proxy.log().contains("kato-proxy ca show"),
        "{}",
        site.proxy.log()
    );
    assert_eq!(site.asked(), 0);
    Ok(())
}

#[tokio::test]
async fn what_is_no_tls_is_closed_and_said() -> Result<()> {
    let site = Site::start("").await?;
    let mut stream = site.connect().await?;
    stream
        .write_all(b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await?;
    let answer = rest(&mut stream).await?;
    assert!(!answer.contains("HTTP/"), "{answer}");
    site.proxy
        .wait_for_log("a client does not speak TLS inside CONNECT; closed")
        .await?;
    Ok(())
}

#[tokio::test]
async fn slow_handshakes_and_slow_heads_have_their_time_inside_too() -> Result<()> {
    let site = Site::start("[limits]\nheader_timeout = \"300ms\"\n").await?;
    let mut silent = site.connect().await?;
    assert_eq!(rest(&mut silent).await?, "");
    let mut slow = site.inside().await?;
    slow.write_all(b"GET /a HT").await?;
    slow.flush().await?;
    assert_eq!(rest(&mut slow).await?, "");
    site.serve(b"content");
    let ca = site.ca().await?;
    assert_eq!(site.curl("localhost", &["--cacert", &ca]).await?, "content 2 200");
    Ok(())
}

#[tokio::test]
async fn clients_that_are_not_listed_get_no_connection_to_open() -> Result<()> {
    let site = Site::start("[access]\nclients = [\"203.0.113.0/24\"]\n").await?;
    let mut stream = TcpStream::connect(site.proxy.data).await?;
    let head = format!(
        "CONNECT localhost:{0} HTTP/1.1\r\nHost: localhost:{0}\r\n\r\n",
        site.port
    );
    stream.write_all(head.as_bytes()).await?;
    assert!(rest(&mut stream).await?.starts_with("HTTP/1.1 403 "));
    Ok(())
}

#[tokio::test]
async fn interception_of_what_would_be_asked_for_in_clear_is_refused_by_name() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("proxy.toml");
    let settings = "[[upstream]]\nname = \"pkg\"\nurls = [\"https://pkg.example/\", \"http://mirror.example/\"]\nintercept = true\n";
    durable::write(&file, settings.as_bytes(), 0o644)?;
    let ended = proxy::run_to_end(&["check-config", "--config", &text(&file)?]).await?;
    assert_eq!(ended.code, Some(2));
    assert!(
        ended
            .stderr
            .contains("the upstream `pkg` has intercept = true and the URL http://mirror.example/"),
        "{}",
        ended.stderr
    );
    Ok(())
}
