//! What happens to a node is told to web hooks, which never hold an upgrade up.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use aws_lc_rs::hmac;
use integration_tests::{node::names, releases::TestRelease};
use kato_shared::durable;
use tokio::time::Instant;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

use crate::{
    hook::{Hook, Manner},
    setup::Site,
};

/// A site whose node tells `urls`.
async fn telling(urls: &[String], more: &str) -> Result<Site> {
    let mut two = TestRelease::standard("2.0.0");
    two.tail
        .push_str("[[notice]]\nwhen = \"success\"\ntext = \"reload the console\"\n");
    let mut site = Site::with(&[TestRelease::standard("1.0.0"), two]).await?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    site.node
        .add_settings(&format!("[notify]\nurls = {urls:?}\ntimeout = \"2s\"\n{more}"))?;
    Ok(site)
}

fn waiting(site: &Site) -> usize {
    names(&site.node.state("state/notify")).len()
}

#[tokio::test(flavor = "multi_thread")]
async fn r62_beginning_and_success_are_told_with_notices_and_signed() -> Result<()> {
    let hook = Hook::start(Manner::Well).await?;
    let site = telling(&[hook.url("/kato")], "").await?;
    let secret = site.folder.path().join("secret");
    durable::write(&secret, b"a secret of the site\n", 0o600)?;
    let mut node = site.node.clone();
    node.add_settings(&format!("secret_file = {secret:?}\n"))?;
    node.upgrade_ends(0, &[])?;
    assert_eq!(hook.events()?, ["started", "succeeded"]);
    let posted = hook.posted();
    for post in &posted {
        assert_eq!(post.path, "/kato");
        assert_eq!(post.headers["content-type"], "application/json");
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"a secret of the site");
        let digits = post.headers["x-kato-signature-256"]
            .strip_prefix("sha256=")
            .context("a signature")?;
        let tag: Vec<u8> = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16))
            .collect::<Result<_, _>>()?;
        assert!(hmac::verify(&key, &post.body, &tag).is_ok());
    }
    let last = posted.last().context("two documents")?;
    let document = last.document()?;
    assert_eq!(last.headers["x-kato-event"], "succeeded");
    assert_eq!(
        document["id"].as_str(),
        Some(last.headers["x-kato-delivery"].as_str())
    );
    assert_eq!(
        (
            &document["schema"],
            &document["from"],
            &document["to"],
            &document["version"]
        ),
        (&1.into(), &"1.0.0".into(), &"2.0.0".into(), &"2.0.0".into())
    );
    assert_eq!(document["notices"], serde_json::json!(["reload the console"]));
    // It names the last record of the audit log, which is the run's end.
    let log = std::fs::read_to_string(site.node.state("audit/audit.jsonl"))?;
    assert_eq!(
        document["audit"]["seq"].as_u64(),
        Some(log.lines().count() as u64)
    );
    assert_eq!(waiting(&site), 0);
    // Looking at a plan, and being at the newest release, is no news.
    site.node.upgrade_ends(0, &["--plan"])?;
    site.node.upgrade_ends(0, &[])?;
    assert_eq!(hook.posted().len(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_told_with_the_last_lines_and_a_rollback_as_one() -> Result<()> {
    let hook = Hook::start(Manner::Well).await?;
    let mut broken = TestRelease::standard("3.0.0");
    broken
        .tail
        .push_str("[[check]]\nid = \"command\"\nargv = [\"false\"]\ndeadline = \"0s\"\n");
    let site = telling(&[hook.url("/")], "events = [\"failed\", \"rolled-back\"]\n").await?;
    site.host.fail(
        "console-2.0.0.tar.zst",
        integration_tests::static_server::Fault::Status(404),
    );
    site.node.upgrade_ends(75, &["--version", "2.0.0"])?;
    let document = hook.posted()[0].document()?;
    assert_eq!(
        (&document["event"], &document["step"], &document["exit"]),
        (&"failed".into(), &"stage".into(), &75.into())
    );
    let lines = document["last_lines"].to_string();
    assert!(
        lines.contains("upgrading from 1.0.0 to 2.0.0") && lines.contains("stage"),
        "{lines}"
    );
    assert!(document["error"]["hint"].is_string(), "{document}");
    site.repository.publish(&broken).await?;
    site.node.upgrade_ends(22, &["--version", "3.0.0"])?;
    assert_eq!(hook.events()?, ["failed", "rolled-back"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_listens_holds_an_upgrade_up_and_the_next_run_tries_again() -> Result<()> {
    let (good, silent, angry, moved) = (
        Hook::start(Manner::Well).await?,
        Hook::start(Manner::Silent).await?,
        Hook::start(Manner::Status(500)).await?,
        Hook::start(Manner::Status(307)).await?,
    );
    let hooks = [&good, &silent, &angry, &moved];
    let urls: Vec<_> = hooks.iter().map(|hook| hook.url("/kato")).collect();
    let site = telling(&urls, "").await?;
    let began = Instant::now();
    let said = site.node.upgrade_ends(0, &[])?;
    assert!(began.elapsed() < Duration::from_secs(60));
    assert!(said.contains("could not be delivered"), "{said}");
    assert_eq!(site.node.installed().as_deref(), Some("2.0.0"));
    assert_eq!(good.events()?, ["started", "succeeded"]);
    // Redirects are refused: nothing was posted elsewhere.
    assert!(moved.posted().iter().all(|post| post.path == "/kato"));
    assert_eq!(waiting(&site), 6);

    for hook in hooks {
        hook.answer(Manner::Well);
    }
    let told_before: Vec<_> = hooks.iter().map(|hook| hook.posted().len()).collect();
    site.node.upgrade_ends(0, &[])?;
    assert_eq!(waiting(&site), 0);
    for (hook, before) in hooks.iter().zip(told_before).skip(1) {
        assert_eq!(hook.events()?[before..], ["started", "succeeded"]);
    }
    assert_eq!(good.posted().len(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_takes_long_is_told_while_it_takes_long() -> Result<()> {
    let hook = Hook::start(Manner::Well).await?;
    let site = telling(
        &[hook.url("/")],
        "waiting = \"1s\"\nevents = [\"waiting\"]\n[upgrade]\nretire_timeout = \"2s\"\n",
    )
    .await?;
    site.node.put("platform/units", "3")?;
    site.node.upgrade_ends(20, &[])?;
    let document = hook.posted().first().context("a document")?.document()?;
    assert_eq!(
        (&document["event"], &document["step"]),
        (&"waiting".into(), &"retire".into())
    );
    assert_eq!(hook.events()?.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_behind_tls_is_told_only_when_its_authority_is_known() -> Result<()> {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let certificate: CertificateDer<'static> = certified.cert.der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    let hook = Hook::with(Manner::Well, Some(TlsAcceptor::from(Arc::new(config)))).await?;
    let url = format!("https://localhost:{}/", hook.port());
    let mut site = telling(&[url], "").await?;
    site.node.upgrade_ends(0, &[])?;
    assert_eq!((hook.posted().len(), waiting(&site)), (0, 2));
    let authority = site.folder.path().join("ca.pem");
    durable::write(&authority, certified.cert.pem().as_bytes(), 0o644)?;
    site.node.add_settings(&format!("ca_file = {authority:?}\n"))?;
    site.node.upgrade_ends(0, &[])?;
    assert_eq!(
        (hook.events()?, waiting(&site)),
        (vec!["started".to_owned(), "succeeded".to_owned()], 0)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_used_are_said_and_nothing_is_lost() -> Result<()> {
    let hook = Hook::start(Manner::Well).await?;
    let site = telling(&[hook.url("/")], "secret_file = \"/nonexistent/secret\"\n").await?;
    let said = site.node.upgrade_ends(0, &[])?;
    assert!(
        said.contains("`/nonexistent/secret` of `[notify].secret_file`"),
        "{said}"
    );
    // Never without the signature that was asked for.
    assert_eq!((hook.posted().len(), waiting(&site)), (0, 2));
    Ok(())
}
