//! `check-config` refuses what `serve` refuses, in the same words.

use anyhow::{Context, Result};
use integration_tests::proxy;

use crate::site::put;

#[tokio::test(flavor = "multi_thread")]
async fn check_config_refuses_what_serve_refuses() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let short = put(folder.path(), "token", b"short\n")?;
    let no_pem = put(folder.path(), "ca.pem", b"no certificate\n")?;
    let upstream = "[[upstream]]\nname = \"a\"\nurls = [\"https://a.example/\"]\n";
    for (what, settings) in [
        (
            "a token that is too short",
            format!("[admin]\ntoken_file = {short:?}\n"),
        ),
        (
            "no token",
            format!("[admin]\ntoken_file = {:?}\n", folder.path().join("absent")),
        ),
        (
            "no certificate of an authority",
            format!("[origins]\nca_file = {no_pem:?}\n"),
        ),
        (
            "no such file of an authority",
            format!("{upstream}ca_file = {:?}\n", folder.path().join("absent")),
        ),
        (
            "a client certificate that is none",
            format!("{upstream}client_certificate = {no_pem:?}\nclient_key = {no_pem:?}\n"),
        ),
        (
            "a certificate that is none",
            format!("[tls]\ncertificate = {no_pem:?}\nkey = {no_pem:?}\n"),
        ),
        ("a filter that is none", "[log]\nfilter = \"a=b=c\"\n".to_owned()),
        (
            "two listeners at one port",
            "[listen]\ndata = \"0.0.0.0:3999\"\nadmin = \"127.0.0.1:3999\"\n".to_owned(),
        ),
    ] {
        let file = put(folder.path(), "proxy.toml", settings.as_bytes())?;
        let cache = folder.path().join("cache");
        let (file, cache) = (file.to_str().context("ASCII")?, cache.to_str().context("ASCII")?);
        let mut said = Vec::new();
        for verb in ["check-config", "serve"] {
            let ended = proxy::run_to_end(&[verb, "--config", file, "--cache-dir", cache]).await?;
            assert!(
                !ended.stderr.is_empty() && ended.code != Some(0),
                "{verb}: {what}"
            );
            // What a log line says before it is no refusal.
            let refusal = ended.stderr.split_once("kato-proxy: ");
            let refusal = refusal.with_context(|| format!("{verb}: {}", ended.stderr))?.1;
            said.push((ended.code, refusal.to_owned()));
        }
        assert_eq!(said[0], said[1], "{what}");
    }
    Ok(())
}
