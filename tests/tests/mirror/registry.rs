//! Images.

use std::path::Path;

use anyhow::Result;
use integration_tests::{
    command,
    image::Image,
    proxy::{Settings, run_to_end},
    registry::Registry,
};

use crate::site::{put, succeed};

fn skopeo(proxy: &str, reference: &str, to: &Path) -> std::process::Command {
    let mut skopeo = command::new("skopeo");
    skopeo.args([
        "--insecure-policy",
        "copy",
        "--src-tls-verify=false",
        "--preserve-digests",
        "--all",
    ]);
    skopeo.arg(format!("docker://{proxy}/hub/{reference}"));
    skopeo.arg(format!("dir:{}", to.display()));
    skopeo
}

/// An image is filled by its tag; then the registry is gone, and skopeo copies it by tag and by digest.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_by_tag_and_digest_without_its_registry() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let registry = Registry::start(&folder.path().join("registry"), None)?;
    let image = Image::build(&folder.path().join("image"), "prefetched")?;
    image.push(&format!("{}/team/app:1.0", registry.address))?;
    let text = format!(
        "[cache]\nmin_free = \"0B\"\n[[upstream]]\nname = \"hub\"\nkind = \"registry\"\nurls = [\"http://{}/\"]\n",
        registry.address
    );
    let settings = put(folder.path(), "proxy.toml", text.as_bytes())?
        .display()
        .to_string();
    let cache = folder.path().join("cache");
    let store = cache.display().to_string();
    let fill = [
        "prefetch",
        "--config",
        &settings,
        "--cache-dir",
        &store,
        "--image",
        "hub/team/app:1.0",
    ];
    let ended = run_to_end(&fill).await?;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("exactly"),
        "registries say every size: {}",
        ended.stderr
    );
    let asked = registry
        .requests()
        .iter()
        .filter(|answered| answered.is_blob())
        .count();
    let again = run_to_end(&fill).await?;
    assert!(again.stderr.contains("0 files are missing"), "{}", again.stderr);
    assert_eq!(
        registry
            .requests()
            .iter()
            .filter(|answered| answered.is_blob())
            .count(),
        asked
    );
    drop(registry);

    let proxy = Settings::new(&cache)
        .arguments(&["--config", &settings, "--offline"])
        .start()
        .await?;
    let address = proxy.data.to_string();
    let by_digest = format!("team/app@{}", image.digest());
    for (nth, reference) in ["team/app:1.0", by_digest.as_str()].iter().enumerate() {
        succeed(skopeo(&address, reference, &folder.path().join(nth.to_string()))).await?;
    }
    let client = proxy.client();
    let manifest = client
        .get("/v2/hub/team/app/manifests/1.0")
        .header("accept", "*/*");
    let (answer, _) = manifest.fetch().await?;
    assert_eq!(
        answer.header("docker-content-digest"),
        Some(image.digest().to_string().as_str())
    );
    let (absent, body) = client.fetch("/v2/hub/team/app/manifests/2.0").await?;
    assert_eq!(absent.status, 404);
    assert!(String::from_utf8(body)?.contains("MANIFEST_UNKNOWN"));
    Ok(())
}
