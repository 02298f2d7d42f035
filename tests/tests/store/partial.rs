//! An origin that dies when it has sent two fifths of a body.

use anyhow::Result;
use integration_tests::origin::{Fault, Framing, Resource};

use crate::{MIB, Site, assert_same, content};

const SIZE: usize = 20 * MIB;

/// Past 40 %, and not at a boundary of anything.
const STOPS_AT: u64 = (SIZE as u64) * 2 / 5 + 12_345;

#[tokio::test]
async fn an_origin_that_dies_at_40_percent_cuts_no_client_short_and_only_the_rest_is_asked_for() -> Result<()>
{
    let site = Site::new().await?;
    let proxy = site.start("").await?;
    let body = content(SIZE, 7);
    let whole = Resource::cacheable(body.clone());
    for (path, framing) in [("/length", Framing::Length), ("/chunked", Framing::Chunked)] {
        let before = site.origin.body_bytes();
        // It breaks off, and refuses whoever comes back.
        let resource = whole.clone().framing(framing).fault(Fault::Reset(STOPS_AT));
        site.origin.serve(path, resource.always(Fault::Reset(0)));
        let target = format!("/files{path}");
        let request = proxy.client().get(&target);
        let clients = (0..4).map(|_| async {
            let mut response = request.send().await?;
            response.finish().await
        });
        for ended in futures_util::future::join_all(clients).await {
            let Ok(ended) = ended else { continue };
            assert!(
                !ended.looks_whole,
                "{path}: a client took {} bytes for all",
                ended.bytes.len()
            );
            assert_same(&ended.bytes, &body[..ended.bytes.len()], path);
        }
        // It is back: only what is missing is asked for.
        site.origin.serve(path, whole.clone().framing(framing));
        let (response, got) = proxy.client().fetch(&target).await?;
        assert_eq!(response.status, 200);
        assert_same(&got, &body, path);
        let sent = site.origin.body_bytes() - before;
        // Where no length was announced, nothing says that what is missing belongs to what is there: all is fetched again.
        let wasted = if framing == Framing::Length {
            SIZE as u64 / 20
        } else {
            STOPS_AT + SIZE as u64 / 20
        };
        assert!(sent <= SIZE as u64 + wasted, "{path}: {sent} bytes for {SIZE}");
        proxy
            .wait_until_stored(&proxy.client().get(&target), &body)
            .await?;
    }
    Ok(())
}
