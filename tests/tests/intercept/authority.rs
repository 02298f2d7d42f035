//! The local authority, as operators and openssl see it.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use anyhow::{Context, Result};

use crate::site::{Site, ca_to_end, configure, run, serving, text, to_end};

/// The key of the authority of `site`.
fn key(site: &Site) -> Result<PathBuf> {
    let folder = site.folder.path().join("cache/ca");
    let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let mut keys = entries.into_iter().map(|entry| entry.path());
    keys.find(|path| path.extension().is_some_and(|ending| ending == "key"))
        .context("no key")
}

/// Lets the authority of `site` sign a leaf with `names`, whatever its constraints say; the leaf.
async fn forge(site: &Site, names: &str) -> Result<String> {
    let [leaf_key, request, leaf, extensions] =
        ["forged.key", "forged.csr", "forged.crt", "forged.ext"].map(|name| site.folder.path().join(name));
    let (ca, ca_key) = (site.ca().await?, text(&key(site)?)?);
    let [leaf_key, request, leaf, extensions] = [
        text(&leaf_key)?,
        text(&request)?,
        text(&leaf)?,
        text(&extensions)?,
    ];
    kato_shared::durable::write(
        extensions.as_ref(),
        format!("subjectAltName={names}\n").as_bytes(),
        0o600,
    )?;
    run(&[
        "openssl",
        "req",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=forged leaf",
        "-keyout",
        &leaf_key,
        "-out",
        &request,
    ])
    .await?;
    run(&[
        "openssl",
        "x509",
        "-req",
        "-in",
        &request,
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-days",
        "9",
        "-extfile",
        &extensions,
        "-out",
        &leaf,
    ])
    .await?;
    Ok(leaf)
}

#[tokio::test]
async fn rfc5280_s4_2_1_10_openssl_takes_leaves_for_the_hosts_of_the_constraints_and_no_others() -> Result<()>
{
    let site = Site::start("").await?;
    let ca = site.ca().await?;
    let about = run(&["openssl", "x509", "-in", &ca, "-noout", "-text"]).await?;
    for expected in [
        "X509v3 Name Constraints: critical",
        "DNS:localhost",
        "CA:TRUE, pathlen:1",
        "IP:0.0.0.0/0.0.0.0",
    ] {
        assert!(about.contains(expected), "{expected}: {about}");
    }
    for (names, is_taken) in [
        ("DNS:localhost", true),
        ("DNS:other.example", false),
        ("DNS:localhost.example", false),
        ("DNS:localhost,DNS:other.example", false),
        ("IP:127.0.0.1", false),
        ("IP:::1", false),
    ] {
        let leaf = forge(&site, names).await?;
        let verified = to_end(&["openssl", "verify", "-CAfile", &ca, &leaf]).await?;
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        assert_eq!(verified.status.success(), is_taken, "{names}: {said}");
        assert!(is_taken || said.contains("subtree"), "{names}: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn the_chain_that_is_shown_verifies_for_its_host_for_three_months() -> Result<()> {
    let site = Site::start("").await?;
    let (proxy, connect, ca) = (
        site.proxy.data.to_string(),
        format!("localhost:{}", site.port),
        site.ca().await?,
    );
    let said = run(&[
        "openssl",
        "s_client",
        "-proxy",
        &proxy,
        "-connect",
        &connect,
        "-servername",
        "localhost",
        "-CAfile",
        &ca,
        "-verify_hostname",
        "localhost",
        "-verify_return_error",
        "-alpn",
        "h2,http/1.1",
    ])
    .await?;
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
    assert!(said.contains("ALPN protocol: h2"), "{said}");
    let begin = said.find("-----BEGIN").context("no leaf")?;
    let leaf = site.folder.path().join("leaf.pem");
    kato_shared::durable::write(&leaf, &said.as_bytes()[begin..], 0o644)?;
    let leaf = text(&leaf)?;
    for (seconds, is_valid) in [(85 * 86_400, true), (398 * 86_400, false)] {
        let checked = to_end(&[
            "openssl",
            "x509",
            "-in",
            &leaf,
            "-noout",
            "-checkend",
            &seconds.to_string(),
        ])
        .await?;
        assert_eq!(checked.status.success(), is_valid, "{seconds}");
    }
    Ok(())
}

#[tokio::test]
async fn only_the_owner_can_read_the_key_and_nobody_sees_it_elsewhere() -> Result<()> {
    let mut site = Site::start("").await?;
    let key = key(&site)?;
    assert_eq!(fs::metadata(&key)?.permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(&key)?.contains("PRIVATE KEY"));
    let shown = site.ca_command(&["ca", "show"]).await? + &site.ca_command(&["ca", "show", "--json"]).await?;
    assert!(!shown.contains("PRIVATE"), "{shown}");
    assert!(!site.proxy.log().contains("PRIVATE"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640))?;
    site.proxy.terminate()?;
    site.proxy.ended().await?;
    let ended = serving(site.folder.path(), &[]).run_to_end().await?;
    assert_eq!(ended.code, Some(20));
    assert!(
        ended.stderr.contains("has mode 640: expected 600"),
        "{}",
        ended.stderr
    );
    Ok(())
}

#[tokio::test]
async fn init_makes_one_once_and_show_tells_the_fingerprint_that_openssl_tells() -> Result<()> {
    let folder = tempfile::tempdir()?;
    configure(folder.path(), 443, "", [false, false])?;
    let none = ca_to_end(folder.path(), &["ca", "init"]).await?;
    assert_eq!(none.status.code(), Some(20), "nothing is to be opened");
    configure(folder.path(), 443, "", [true, false])?;
    let absent = ca_to_end(folder.path(), &["ca", "show"]).await?;
    assert_eq!(absent.status.code(), Some(20));
    assert!(String::from_utf8_lossy(&absent.stderr).contains("hint: `kato-proxy ca init`"));
    let first = ca_to_end(folder.path(), &["ca", "init"]).await?;
    assert!(first.status.success());
    let again = ca_to_end(folder.path(), &["ca", "init"]).await?;
    assert_eq!(first.stdout, again.stdout, "it is there");

    let shown = folder.path().join("shown.pem");
    kato_shared::durable::write(&shown, &first.stdout, 0o644)?;
    let fingerprint = run(&[
        "openssl",
        "x509",
        "-in",
        &text(&shown)?,
        "-noout",
        "-fingerprint",
        "-sha256",
    ])
    .await?;
    let (_, fingerprint) = fingerprint.split_once('=').context("no fingerprint")?;
    let json = ca_to_end(folder.path(), &["ca", "show", "--json"]).await?;
    let json: serde_json::Value = serde_json::from_slice(&json.stdout)?;
    assert_eq!(json["schema"], 1);
    assert_eq!(json["fingerprint"], fingerprint);
    assert_eq!(json["hosts"], serde_json::json!(["localhost"]));
    assert!(String::from_utf8_lossy(&first.stdout).contains(fingerprint));
    // The server takes what is there.
    let proxy = serving(folder.path(), &[]).start().await?;
    let (_, served) = proxy.client().fetch("/-/ca.crt").await?;
    assert!(first.stdout.ends_with(&served));
    assert!(!proxy.log().contains("a local authority was made"));
    Ok(())
}

#[tokio::test]
async fn a_new_host_needs_a_rotation_and_clients_of_the_old_authority_are_served_meanwhile() -> Result<()> {
    let site = Site::start("").await?;
    site.serve(b"content");
    let old = site.file("old.pem")?;
    fs::copy(site.ca().await?, &old)?;
    assert!(
        site.proxy.log().contains("a local authority was made"),
        "it says so"
    );

    site.configure("", [true, true])?;
    site.proxy.reload()?;
    site.proxy
        .wait_for_log("may not sign for 127.0.0.1: its constraints name localhost")
        .await?;
    let log = site.proxy.log();
    assert!(
        log.contains("kato-proxy ca rotate") && log.contains("the settings stay as they were"),
        "{log}"
    );
    let checked = ca_to_end(site.folder.path(), &["check-config"]).await?;
    assert_eq!(checked.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&checked.stderr).contains("kato-proxy ca rotate"));
    assert_eq!(
        site.curl("localhost", &["--cacert", &old]).await?,
        "content 2 200"
    );

    let rotated = site.ca_command(&["ca", "rotate"]).await?;
    assert!(rotated.contains("may sign for 127.0.0.1, localhost"), "{rotated}");
    site.proxy.reload()?;
    site.proxy.wait_for_log("are in force").await?;
    let new = site.ca().await?;
    assert_ne!(fs::read(&new)?, fs::read(&old)?);
    for (ca, host, is_served) in [
        (&old, "localhost", true),
        (&new, "localhost", true),
        (&new, "127.0.0.1", true),
        // What the old one was never trusted for.
        (&old, "127.0.0.1", false),
    ] {
        let said = site.curl(host, &["--cacert", ca]).await;
        assert_eq!(said.is_ok(), is_served, "{host} by {ca}: {said:?}");
    }
    Ok(())
}
