//! The origin proves itself: what the cache tests rely on is asserted here, with a client and no proxy between.

use super::*;
use crate::client::Client;

async fn serving(resource: Resource) -> Result<(Origin, Client)> {
    let origin = Origin::start().await?;
    origin.serve("/a", resource);
    let client = Client::new(origin.address());
    Ok((origin, client))
}

#[tokio::test]
async fn each_framing_is_read_back_whole_and_the_request_is_recorded() -> Result<()> {
    let body = vec![7; 100_000];
    for framing in [Framing::Length, Framing::Chunked, Framing::UntilClose] {
        let (origin, client) = serving(Resource::new(body.clone()).framing(framing)).await?;
        let (response, got) = client.get("/a").header("X-Mine", "1").fetch().await?;
        assert_eq!((response.status, got == body), (200, true), "{framing:?}");
        assert_eq!(origin.requests("/a")[0].header("x-mine"), Some("1"));
        assert_eq!((origin.body_bytes(), origin.connections()), (100_000, 1));
    }
    Ok(())
}

#[tokio::test]
async fn a_cut_a_reset_and_a_lie_each_look_broken_once_and_then_no_more() -> Result<()> {
    for framing in [Framing::Length, Framing::Chunked] {
        for fault in [Fault::Cut(40_000), Fault::Reset(40_000)] {
            let what = format!("{framing:?} {fault:?}");
            let resource = Resource::new(vec![7; 100_000]).framing(framing).fault(fault);
            let (_origin, client) = serving(resource).await?;
            let broken = client.get("/a").send().await?.finish().await?;
            assert!(!broken.looks_whole && broken.bytes.len() <= 40_000, "{what}");
            assert_eq!(client.fetch("/a").await?.1.len(), 100_000, "{what}");
        }
    }
    let (_origin, client) = serving(Resource::new("short").framing(Framing::Claimed(9))).await?;
    let lied = client.get("/a").send().await?.finish().await?;
    assert_eq!(
        (lied.looks_whole, lied.bytes.as_slice()),
        (false, b"short".as_slice())
    );
    Ok(())
}

#[tokio::test]
async fn a_gate_holds_a_body_where_it_should() -> Result<()> {
    let gate = Gate::closed();
    let resource = Resource::new(vec![7; 100_000]).fault(Fault::HoldBody(50_000, gate.clone()));
    let (origin, client) = serving(resource).await?;
    let mut response = client.get("/a").send().await?;
    response.read_at_least(50_000).await?;
    assert_eq!(origin.body_bytes(), 50_000);
    gate.open();
    assert_eq!(response.finish().await?.bytes.len(), 100_000);
    Ok(())
}

#[tokio::test]
async fn ranges_and_conditions_are_honoured() -> Result<()> {
    let resource = Resource::cacheable("0123456789");
    let (_origin, client) = serving(resource).await?;
    for (fields, status, expected) in [
        (&[("range", "bytes=2-4")][..], 206, "234"),
        (&[("range", "bytes=7-"), ("if-range", "\"v1\"")], 206, "789"),
        (
            &[("range", "bytes=7-"), ("if-range", "\"v0\"")],
            200,
            "0123456789",
        ),
        (&[("if-none-match", "\"v0\", \"v1\"")], 304, ""),
        (&[("if-none-match", "\"v0\"")], 200, "0123456789"),
    ] {
        let request = fields.iter().fold(client.get("/a"), |request, (name, value)| {
            request.header(name, value)
        });
        let (response, got) = request.fetch().await?;
        assert_eq!(
            (response.status, got.as_slice()),
            (status, expected.as_bytes()),
            "{fields:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_stopped_origin_refuses_connections() -> Result<()> {
    let (mut origin, client) = serving(Resource::new("x")).await?;
    client.fetch("/a").await?;
    origin.stop().await;
    assert!(client.fetch("/a").await.is_err());
    Ok(())
}
