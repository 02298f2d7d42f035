//! Secrets go through every path, and are then looked for everywhere.

use std::{fs, path::Path};

use anyhow::Result;

use crate::Setup;

/// Marks that must be found nowhere. Each goes in by a way of its own.
const SECRETS: [&str; 9] = [
    "s3cretAuthorization",
    "s3cretCookie",
    "s3cretProxyAuthorization",
    "s3cretTargetPassword",
    "s3cretUpstreamPassword",
    "s3cretRedirectSignature",
    "s3cretRefusedQuery",
    "s3cretBodyOfAPost",
    "s3cretFailingQuery",
];

#[tokio::test]
async fn secrets_stand_in_no_log_metric_answer_or_file() -> Result<()> {
    let (setup, open) = set_up().await?;
    send_secrets(&setup).await?;
    let stored = setup.stored().await?;
    assert!(stored.contains(&"/redirected".to_owned()), "{stored:?}");
    let (heads, of_open) = (setup.origin.heads().concat(), open.heads().concat());
    for (heads, sent_on) in [
        (&heads, "s3cretCookie"),
        (&heads, "s3cretRedirectSignature"),
        (&of_open, "s3cretAuthorization"),
    ] {
        assert!(
            heads.contains(sent_on),
            "{sent_on} never got as far as the origin"
        );
    }
    assert!(
        !heads.contains("s3cretAuthorization"),
        "where the operator has an account, the client's is not shown"
    );
    assert!(
        !heads.contains("s3cretProxyAuthorization") && !of_open.contains("s3cretProxyAuthorization"),
        "for us, not for the origin"
    );

    let mut places = pages(&setup).await?;
    assert!(places[0].1.len() > 1000, "the log says something");
    files(setup.folder(), &mut places)?;
    assert!(places.len() > 8, "the store has files");
    for (place, bytes) in &places {
        for secret in SECRETS {
            let found = bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} stands in {place}");
        }
    }
    Ok(())
}

const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nCache-Control: public, s-maxage=60\r\nVary: Cookie, Authorization\r\nContent-Length: 4\r\n\r\ngood";

/// A proxy that logs all it can, before an origin that redirects to a signed URL and has pages that vary by secrets; and one where the
/// operator has no account.
async fn set_up() -> Result<(Setup, crate::RawOrigin)> {
    let folder = tempfile::tempdir()?;
    let (origin, open) = (crate::RawOrigin::start().await?, crate::RawOrigin::start().await?);
    let url = format!("http://user:s3cretUpstreamPassword@{}/", origin.address);
    let proxy = integration_tests::proxy::Settings::new(folder.path())
        .upstream("files", &url)
        .upstream("open", &format!("http://{}/", open.address))
        // A port where nobody listens, so that failures are logged, too.
        .upstream("dead", "http://user:s3cretUpstreamPassword@127.0.0.1:1/")
        .arguments(&["--log", "debug,kato_proxy=trace,access=info"])
        .start()
        .await?;
    let setup = Setup {
        origin,
        proxy,
        cache: folder,
    };
    setup.origin.answer(
        "/redirected",
        b"HTTP/1.1 302 Found\r\nLocation: /signed?X-Signature=s3cretRedirectSignature\r\nCache-Control: public, max-age=600\r\n\
          Content-Length: 0\r\n\r\n",
    );
    for path in [
        "/signed?X-Signature=s3cretRedirectSignature",
        "/public",
        "/cookie",
    ] {
        setup.origin.answer(path, GOOD);
    }
    open.answer("/public", GOOD);
    Ok((setup, open))
}

/// Requests with a secret in every place that one can have, answered, refused and failing.
async fn send_secrets(setup: &Setup) -> Result<()> {
    let secret_fields = "Authorization: Bearer s3cretAuthorization\r\nCookie: id=s3cretCookie\r\n\
                         Proxy-Authorization: Basic s3cretProxyAuthorization\r\n";
    for request in [
        format!("GET /files/public HTTP/1.1\r\nHost: c\r\n{secret_fields}\r\n"),
        format!("GET /files/cookie HTTP/1.1\r\nHost: c\r\n{secret_fields}\r\n"),
        format!("HEAD /files/cookie HTTP/1.1\r\nHost: c\r\nCache-Control: no-cache\r\n{secret_fields}\r\n"),
        format!("GET /files/redirected HTTP/1.1\r\nHost: c\r\n{secret_fields}\r\n"),
        format!("GET /open/public HTTP/1.1\r\nHost: c\r\n{secret_fields}\r\n"),
        "POST /files/public HTTP/1.1\r\nHost: c\r\nContent-Length: 17\r\n\r\ns3cretBodyOfAPost".to_owned(),
        "GET http://u:s3cretTargetPassword@HOST/a HTTP/1.1\r\nHost: c\r\n\r\n".to_owned(),
        "GET http://unknown.example/a?sig=s3cretRefusedQuery HTTP/1.1\r\nHost: c\r\n\r\n".to_owned(),
        "GET /unknown/a?sig=s3cretRefusedQuery HTTP/1.1\r\nHost: c\r\n\r\n".to_owned(),
        format!("GET /dead/a?sig=s3cretFailingQuery HTTP/1.1\r\nHost: c\r\n{secret_fields}\r\n"),
        format!("CONNECT unknown.example:443 HTTP/1.1\r\nHost: c\r\n{secret_fields}\r\n"),
    ] {
        let folder = setup.folder().display().to_string();
        for answer in setup.send(&request).await? {
            let said = answer.head.clone() + &answer.text();
            // Who we are towards the upstream, how we came to the content, and where it lies here.
            for hidden in ["user:", "user@", "s3cretUpstream", "s3cretRedirect", &folder] {
                assert!(
                    !said.contains(hidden),
                    "{hidden} in the answer to {request}: {said}"
                );
            }
        }
    }
    Ok(())
}

/// The log and what the admin API tells.
async fn pages(setup: &Setup) -> Result<Vec<(String, Vec<u8>)>> {
    let mut places = vec![("the log".to_owned(), setup.proxy.log().into_bytes())];
    for page in [
        "/-/metrics",
        "/-/healthz",
        "/-/api/stats",
        "/-/api/entries",
        "/-/api/show?url=/files/public",
        "/-/api/show?url=/files/redirected",
        "/-/api/show?url=/dead/a",
    ] {
        let (_, body) = setup.proxy.admin_client().fetch(page).await?;
        places.push((page.to_owned(), body));
    }
    Ok(places)
}

/// All files below `folder`, with their content.
fn files(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, found)?;
        } else if path.is_file() {
            // Sockets hold nothing.
            found.push((path.display().to_string(), fs::read(&path)?));
        }
    }
    Ok(())
}
