//! What did not arrive whole is never taken for whole: by a client, or by the store.

use anyhow::Result;
use integration_tests::{
    client::Body,
    origin::{Fault, Framing, Origin, Resource},
    proxy::Settings,
    toxics::Toxics,
};

use crate::{MIB, Setup, assert_same, content};

/// All that a client may ever see: the whole, or something that broke off and was right so far.
fn assert_honest(got: &Body, expected: &[u8], whose: &str) {
    if got.looks_whole {
        assert_same(&got.bytes, expected, whose);
    } else {
        assert_same(&got.bytes, &expected[..got.bytes.len()], whose);
    }
}

#[tokio::test]
async fn row_e_a_connection_lost_half_way_is_resumed_out_of_the_clients_sight() -> Result<()> {
    for fault in [Fault::Cut(2 * MIB as u64), Fault::Reset(2 * MIB as u64)] {
        let setup = Setup::start().await?;
        let body = content(4 * MIB, 11);
        let what = format!("{fault:?}");
        let is_cut = matches!(fault, Fault::Cut(_));
        // Throttled, so that a reset finds something that has arrived.
        let resource = Resource::cacheable(body.clone()).bytes_per_second(16 * MIB as u64);
        setup.origin.serve("/a", resource.fault(fault.clone()));
        let (_, got) = setup.client().fetch("/files/a").await?;
        assert_same(&got, &body, &what);
        let requests = setup.origin.requests("/a");
        assert_eq!(requests.len(), 2, "{what}");
        let resumed = requests[1].header("range").unwrap_or_default().to_owned();
        assert!(
            resumed.starts_with("bytes=") && resumed != "bytes=0-",
            "{what}: {resumed:?}"
        );
        assert_eq!(requests[1].header("if-range"), Some("\"v1\""), "{what}");
        // A reset throws away what is on its way in either machine's buffers: that is the network's loss, not counted here.
        if is_cut {
            let fetched_twice = setup.origin.body_bytes() - body.len() as u64;
            assert!(
                fetched_twice <= MIB as u64,
                "{what}: {fetched_twice} bytes crossed the WAN again"
            );
        }
        setup
            .proxy
            .wait_until_stored(&setup.client().get("/files/a"), &body)
            .await?;
        let (hit, again) = setup.client().fetch("/files/a").await?;
        assert!(
            hit.cache_status().contains("hit"),
            "{what}: {}",
            hit.cache_status()
        );
        assert_same(&again, &body, &what);
    }
    Ok(())
}

#[tokio::test]
async fn p05_a_body_that_breaks_off_for_good_looks_broken_and_is_not_stored() -> Result<()> {
    for framing in [Framing::Length, Framing::Chunked] {
        for fault in [Fault::Cut(MIB as u64), Fault::Reset(MIB as u64)] {
            let setup = Setup::start().await?;
            let body = content(2 * MIB, 12);
            let what = format!("{framing:?}, {fault:?}");
            // No validator and no ranges: there is nothing to resume by.
            let resource = Resource::new(body.clone())
                .header("cache-control", "max-age=3600")
                .without_ranges()
                .framing(framing)
                .always(fault);
            setup.origin.serve("/a", resource.clone());
            for _ in 0..2 {
                // A refusal instead of a beginning is honest too.
                if let Ok(mut response) = setup.client().get("/files/a").send().await
                    && response.status == 200
                {
                    let got = response.finish().await?;
                    assert!(
                        !got.looks_whole,
                        "{what}: {} of {} bytes",
                        got.bytes.len(),
                        body.len()
                    );
                    assert_honest(&got, &body, &what);
                }
            }
            setup.origin.serve("/a", resource.always(Fault::None));
            let (response, got) = setup.client().fetch("/files/a").await?;
            assert!(
                response.cache_status().contains("fwd="),
                "{what}: {}",
                response.cache_status()
            );
            assert_same(&got, &body, &what);
        }
    }
    Ok(())
}

#[tokio::test]
async fn p05_a_length_that_was_a_lie_never_makes_a_whole_body() -> Result<()> {
    let setup = Setup::start().await?;
    let body = content(100_000, 13);
    let lying = Resource::new(body.clone())
        .header("cache-control", "max-age=3600")
        .without_ranges()
        .framing(Framing::Claimed(200_000));
    setup.origin.serve("/a", lying.clone());
    if let Ok(mut response) = setup.client().get("/files/a").send().await
        && response.status == 200
    {
        let got = response.finish().await?;
        assert!(!got.looks_whole, "{} bytes", got.bytes.len());
    }
    setup.origin.serve("/a", lying.framing(Framing::Length));
    let (_, got) = setup.client().fetch("/files/a").await?;
    assert_same(&got, &body, "after the lie");
    Ok(())
}

#[tokio::test]
async fn a_body_that_changed_before_it_could_be_resumed_is_never_spliced() -> Result<()> {
    let setup = Setup::start().await?;
    let (old, new) = (content(2 * MIB, 14), content(2 * MIB, 15));
    let first = Resource::cacheable(old.clone()).fault(Fault::Cut(MIB as u64));
    setup.origin.serve("/a", first);
    let mut response = setup.client().get("/files/a").send().await?;
    let changed = Resource::new(new.clone())
        .header("cache-control", "max-age=3600")
        .header("etag", "\"v2\"");
    setup.origin.serve("/a", changed);
    let got = response.finish().await?;
    // The resume may have come before the change; a mixture may not.
    assert!(
        !got.looks_whole || got.bytes == old || got.bytes == new,
        "a mixture of two representations was served as whole"
    );
    let (_, got) = setup.client().fetch("/files/a").await?;
    assert!(
        got == old || got == new,
        "a mixture of two representations was stored"
    );
    Ok(())
}

#[tokio::test]
async fn a_head_that_drips_in_slowly_is_read_all_the_same() -> Result<()> {
    let setup = Setup::start().await?;
    setup
        .origin
        .serve("/a", Resource::cacheable("slow").fault(Fault::DripHead));
    let (_, got) = setup.client().fetch("/files/a").await?;
    assert_eq!(got, b"slow");
    Ok(())
}

#[tokio::test]
async fn an_end_by_connection_close_is_passed_on_but_the_next_client_still_gets_the_truth() -> Result<()> {
    let setup = Setup::start().await?;
    let body = content(300_000, 16);
    let resource = Resource::cacheable(body.clone()).framing(Framing::UntilClose);
    setup.origin.serve("/a", resource);
    for whose in ["the first", "the second"] {
        let (_, got) = setup.client().fetch("/files/a").await?;
        assert_same(&got, &body, whose);
    }
    Ok(())
}

#[tokio::test]
async fn p05_whatever_the_network_does_no_client_takes_a_part_for_the_whole() -> Result<()> {
    let body = content(2 * MIB, 17);
    for seed in 0..16 {
        let origin = Origin::start().await?;
        let framing = if seed % 2 == 0 {
            Framing::Length
        } else {
            Framing::Chunked
        };
        origin.serve("/a", Resource::cacheable(body.clone()).framing(framing));
        let network = Toxics::start(origin.address(), seed).await?;
        let cache = tempfile::tempdir()?;
        let upstream = format!("http://{}/", network.address());
        let proxy = Settings::new(cache.path())
            .upstream("files", &upstream)
            .start()
            .await?;
        let mut whole = 0;
        // More requests than bad connections: the last ones must be well.
        for _ in 0..8 {
            let Ok(mut response) = proxy.client().get("/files/a").send().await else {
                continue;
            };
            if response.status == 200 {
                let got = response.finish().await?;
                assert_honest(&got, &body, &format!("seed {seed}"));
                whole += usize::from(got.looks_whole);
            }
        }
        assert!(whole > 0, "seed {seed}: no request of eight succeeded");
    }
    Ok(())
}
