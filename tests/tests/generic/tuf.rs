//! Repositories of The Update Framework: what the names of metadata say.

use anyhow::{Context, Result};
use integration_tests::origin::Resource;

use crate::Site;

/// Metadata, as far as a cache can tell.
const ROOT: &[u8] = br#"{"signed":{"_type":"root","version":1},"signatures":[]}"#;
/// The next version.
const NEXT: &[u8] = br#"{"signed":{"_type":"root","version":2},"signatures":[]}"#;

#[tokio::test]
async fn a_version_of_metadata_is_fetched_once_and_its_absence_is_asked_for_each_time() -> Result<()> {
    let site = Site::start("kind = \"release\"").await?;
    let versioned = Resource::new(ROOT)
        .header("cache-control", "no-cache")
        .header("etag", "\"1\"");
    site.host.serve("/metadata/1.root.json", versioned);
    for _ in 0..3 {
        assert_eq!(site.get("/metadata/1.root.json").await?.2, ROOT);
        // A client goes on until there is no later root.
        assert_eq!(site.get("/metadata/2.root.json").await?.0, 404);
    }
    assert_eq!(site.host.requests("/metadata/1.root.json").len(), 1);
    assert_eq!(site.host.requests("/metadata/2.root.json").len(), 3);
    site.host.serve("/metadata/2.root.json", Resource::new(NEXT));
    assert_eq!(
        site.get("/metadata/2.root.json").await?.2,
        NEXT,
        "a new root is seen at once"
    );
    Ok(())
}

#[tokio::test]
async fn what_changes_in_place_is_a_minute_fresh_whatever_the_host_says() -> Result<()> {
    for (rules, most) in [("kind = \"release\"", 60), ("", 3600)] {
        let site = Site::start(rules).await?;
        site.host
            .serve("/metadata/timestamp.json", Resource::cacheable(ROOT));
        site.get("/metadata/timestamp.json").await?;
        let (_, cache_status, _) = site.get("/metadata/timestamp.json").await?;
        let (_, ttl) = cache_status.split_once("ttl=").context(cache_status.clone())?;
        let digits: String = ttl.chars().take_while(char::is_ascii_digit).collect();
        let ttl: u32 = digits.parse()?;
        assert!(ttl <= most && ttl + 30 > most, "{rules}: {cache_status}");
    }
    Ok(())
}
