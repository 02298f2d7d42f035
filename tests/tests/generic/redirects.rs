//! Downloads that the host redirects to signed URLs elsewhere (P17).

use anyhow::Result;
use integration_tests::origin::{Fault, Resource};

use crate::Site;

const SIGNED: &str = "/objects/1?signature=s3cr3t-signature";

/// `/dl/a` of the host leads to the signed URL of the objects.
fn redirect(site: &Site) {
    let location = site.objects.url(SIGNED);
    let found = Resource::new("").status(302).header("location", &location);
    site.host
        .serve("/dl/a", found.header("cache-control", "max-age=3600"));
}

#[tokio::test]
async fn p17_content_behind_a_signed_redirect_is_bound_to_the_url_that_was_asked() -> Result<()> {
    let site = Site::start("").await?;
    redirect(&site);
    site.objects
        .serve(SIGNED, Resource::cacheable(b"released".to_vec()));
    let proxy = format!("http://{}", site.proxy.data);
    let (mirror, url) = (format!("{proxy}/files/dl/a"), site.host.url("/dl/a"));
    for argv in [
        &["curl", "--fail", "--silent", "--location", &mirror][..],
        &[
            "curl",
            "--fail",
            "--silent",
            "--location",
            "--proxy",
            &proxy,
            &url,
        ],
        &["curl", "--fail", "--silent", "--location", &mirror],
    ] {
        assert_eq!(site.run(argv).await?, "released");
    }
    assert_eq!(site.host.requests("/dl/a").len(), 1);
    assert_eq!(site.objects.requests(SIGNED).len(), 1);
    // Neither the signature nor the signed URL is known anywhere.
    let (_, entries) = site.proxy.admin_client().fetch("/-/api/entries").await?;
    let entries = String::from_utf8(entries)?;
    assert!(
        entries.contains("/dl/a") && !entries.contains("/objects/"),
        "{entries}"
    );
    assert!(!site.proxy.log().contains("s3cr3t"));
    Ok(())
}

#[tokio::test]
async fn p17_a_download_that_breaks_off_asks_the_first_url_where_it_lies_now() -> Result<()> {
    let site = Site::start("").await?;
    redirect(&site);
    let content: Vec<u8> = (0_u32..500_000).flat_map(u32::to_le_bytes).collect();
    site.objects.serve(
        SIGNED,
        Resource::cacheable(content.clone()).fault(Fault::Cut(1_000_000)),
    );
    let (status, _, body) = site.get("/dl/a").await?;
    assert_eq!(status, 200);
    assert!(body == content);
    assert_eq!(
        site.host.requests("/dl/a").len(),
        2,
        "its signature may have run out"
    );
    let requests = site.objects.requests(SIGNED);
    assert_eq!(requests.len(), 2);
    let range = requests[1].header("range").unwrap_or_default();
    assert!(range.starts_with("bytes=") && range != "bytes=0-", "{range}");
    Ok(())
}

#[tokio::test]
async fn p19_redirects_lead_to_listed_hosts_alone_where_there_is_a_list() -> Result<()> {
    let port_of_objects = "redirect_hosts = [\"objects.example\", \"127.0.0.1:PORT\"]";
    for (rules, is_followed) in [
        (port_of_objects, true),
        ("redirect_hosts = [\"127.0.0.0/8\"]", true),
        ("redirect_hosts = [\"objects.example\", \"127.0.0.1:1\"]", false),
        ("redirect_hosts = []", false),
    ] {
        let with_port = |port: u16| rules.replace("PORT", &port.to_string());
        let site = Site::start_with(|objects| with_port(objects.address().port())).await?;
        redirect(&site);
        site.objects
            .serve(SIGNED, Resource::cacheable(b"released".to_vec()));
        let (status, _, body) = site.get("/dl/a").await?;
        if is_followed {
            assert_eq!(body, b"released", "{rules}");
        } else {
            assert_eq!(status, 502, "{rules}");
            let told = String::from_utf8(body)?;
            assert!(
                told.contains("redirect_hosts") && !told.contains("s3cr3t"),
                "{told}"
            );
            assert_eq!(site.objects.connections(), 0, "{rules}");
        }
        // Its own host needs no place in the list.
        let within = site.host.url("/real");
        site.host.serve(
            "/moved",
            Resource::new("").status(301).header("location", &within),
        );
        site.host.serve("/real", Resource::cacheable(b"here".to_vec()));
        assert_eq!(site.get("/moved").await?.2, b"here", "{rules}");
    }
    Ok(())
}
