//! HTTP/2, over TLS and with prior knowledge.

use anyhow::Result;

use super::{Setup, path, run};

#[tokio::test]
async fn http2_with_prior_knowledge_shares_the_port_with_http1() -> Result<()> {
    let setup = Setup::start(&[]).await?;
    setup.serve(b"content");
    let url = format!("http://{}/files/a", setup.proxy.data);
    for (version, expected) in [
        ("--http2-prior-knowledge", "content 2 200"),
        ("--http1.1", "content 1.1 200"),
        ("--http1.0", "content 1 200"),
        // An offer to upgrade is declined by answering in HTTP/1.1 (RFC 9113 dropped it).
        ("--http2", "content 1.1 200"),
    ] {
        let write_out = " %{http_version} %{http_code}";
        let said = run(&["curl", "--silent", version, "--write-out", write_out, &url]).await?;
        assert_eq!(said, expected, "{version}");
    }
    assert_eq!(setup.origin.requests("/a").len(), 1);
    Ok(())
}

#[tokio::test]
async fn many_streams_on_few_connections_all_succeed() -> Result<()> {
    let setup = Setup::start(&[]).await?;
    setup.serve(&vec![9; 100_000]);
    let clear = format!("http://{}/files/a", setup.proxy.data);
    for url in [clear, setup.url()?] {
        let report = run(&["h2load", "-n", "2000", "-c", "8", "-m", "50", &url]).await?;
        assert!(
            report.contains("2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed"),
            "{report}"
        );
    }
    assert_eq!(setup.origin.requests("/a").len(), 1);
    Ok(())
}

#[tokio::test]
async fn nghttp_gets_the_same_bytes_and_the_fields_that_say_how() -> Result<()> {
    let setup = Setup::start(&[]).await?;
    setup.serve(b"content");
    let url = format!("http://{}/files/a", setup.proxy.data);
    let told = run(&["nghttp", "--verbose", "--no-dep", &url]).await?;
    for expected in [
        ":status: 200",
        "cache-status: ",
        "via: ",
        "content-length: 7",
        "content",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    Ok(())
}

#[tokio::test]
async fn ranges_and_conditions_are_the_same_over_http2() -> Result<()> {
    let setup = Setup::start(&[]).await?;
    setup.serve(b"0123456789");
    let certificate = path(&setup.pair.certificate)?.to_owned();
    for (field, expected) in [
        ("Range: bytes=2-4", "234 206"),
        ("Range: bytes=-3", "789 206"),
        ("Range: bytes=20-", " 416"),
        ("If-None-Match: *", " 304"),
    ] {
        let said = run(&[
            "curl",
            "--silent",
            "--http2",
            "--cacert",
            &certificate,
            "--header",
            field,
            "--write-out",
            " %{http_code}",
            &setup.url()?,
        ])
        .await?;
        assert!(said.ends_with(expected), "{field}: {said}");
    }
    Ok(())
}
