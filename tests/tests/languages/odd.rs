//! An index that answers oddly for a moment, and is off afterwards: what is held is served.

use anyhow::Result;
use integration_tests::origin::Resource;

use crate::site::Site;

#[tokio::test]
async fn p10_what_an_index_denies_for_a_moment_is_served_once_it_is_off() -> Result<()> {
    for (kind, folder, document) in [
        ("npm", "", r#"{"name":"a","versions":{}}"#),
        (
            "cargo",
            "ab/cd/",
            "{\"name\":\"abcd\",\"vers\":\"1.0.0\",\"cksum\":\"0\",\"deps\":[],\"features\":{},\"yanked\":false}\n",
        ),
    ] {
        let mut site = Site::start("up", kind).await?;
        let client = site.proxy.client();
        // What the client is given at once: the held one, or what came.
        let cases = [
            (200, 200),
            (204, 200),
            (301, 200),
            (405, 200),
            (501, 200),
            (404, 404),
            (410, 410),
            (403, 403),
        ];
        let path = |status: u16| format!("/{folder}abcd{status}");
        for (status, expected) in cases {
            let good = Resource::new(document).header("content-type", "application/json");
            site.index.serve(&path(status), good);
            let target = format!("/up{}", path(status));
            assert_eq!(client.fetch(&target).await?.0.status, 200, "{kind} {status}");
            let body = if status == 204 { "" } else { "<html>" };
            let odd = Resource::new(body)
                .status(status)
                .header("content-type", "text/html");
            site.index.serve(&path(status), odd);
            for _ in 0..2 {
                let (said, _) = client.fetch(&target).await?;
                assert_eq!(said.status, expected, "{kind} {status}: {}", said.cache_status());
            }
        }
        site.cut_off().await;
        for (status, _) in cases {
            let (said, body) = client.fetch(&format!("/up{}", path(status))).await?;
            assert_eq!(said.status, 200, "{kind} {status}: {}", said.cache_status());
            assert!(body.starts_with(b"{"), "{kind} {status}");
        }
    }
    Ok(())
}
