//! Many clients, one download.

use anyhow::Result;
use integration_tests::origin::{Fault, Framing, Gate, Resource};
use tokio::{task::JoinSet, time::Instant};

use crate::{MIB, Setup, assert_same, content};

/// How much a client must have before the origin goes on: proof that it is attached and that bytes flow.
const FIRST_BYTES: usize = 64 * 1024;

/// An origin that stops half-way until the gate opens.
fn held_half_way(body: &[u8]) -> (Resource, Gate) {
    let gate = Gate::closed();
    let half = (body.len() / 2) as u64;
    (
        Resource::cacheable(body.to_vec()).fault(Fault::HoldBody(half, gate.clone())),
        gate,
    )
}

#[tokio::test]
async fn row_a_eight_clients_at_once_are_one_download_and_each_has_bytes_before_it_ends() -> Result<()> {
    for framing in [Framing::Length, Framing::Chunked] {
        let setup = Setup::start().await?;
        let body = content(8 * MIB, 1);
        let (resource, gate) = held_half_way(&body);
        setup.origin.serve("/a", resource.framing(framing));
        let mut arriving = JoinSet::new();
        for _ in 0..8 {
            let client = setup.client();
            arriving.spawn(async move {
                let mut response = client.get("/files/a").send().await?;
                response.read_at_least(FIRST_BYTES).await?;
                anyhow::Ok(response)
            });
        }
        let responses = arriving
            .join_all()
            .await
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        // All eight have bytes while the origin holds the second half back.
        gate.open();
        let mut collapsed = 0;
        for mut response in responses {
            collapsed += usize::from(response.cache_status().contains("collapsed"));
            let got = response.finish().await?;
            assert!(got.looks_whole, "{framing:?}");
            assert_same(&got.bytes, &body, "a client of eight");
        }
        assert_eq!(setup.asked("/a"), 1, "{framing:?}");
        assert_eq!(collapsed, 7, "all but the first joined: {framing:?}");
    }
    Ok(())
}

#[tokio::test]
async fn row_a2_a_download_of_eight_seconds_stays_one_download() -> Result<()> {
    let setup = Setup::start().await?;
    let body = content(8 * MIB, 2);
    setup.origin.serve(
        "/a",
        Resource::cacheable(body.clone()).bytes_per_second(MIB as u64),
    );
    let started = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let client = setup.client();
        clients.spawn(async move {
            let mut response = client.get("/files/a").send().await?;
            response.read_at_least(1).await?;
            let first_byte = started.elapsed();
            anyhow::Ok((first_byte, response.finish().await?))
        });
    }
    for client in clients.join_all().await {
        let (first_byte, got) = client?;
        assert!(
            first_byte.as_secs() < 4,
            "first byte after {first_byte:?} of an 8 s download"
        );
        assert!(got.looks_whole);
        assert_same(&got.bytes, &body, "a client of eight");
    }
    assert!(
        started.elapsed().as_secs() < 16,
        "two downloads in a row: {:?}",
        started.elapsed()
    );
    assert_eq!(setup.asked("/a"), 1);
    Ok(())
}

#[tokio::test]
async fn row_b_a_late_joiner_gets_what_is_there_at_once() -> Result<()> {
    let setup = Setup::start().await?;
    let body = content(4 * MIB, 3);
    let (resource, gate) = held_half_way(&body);
    setup.origin.serve("/a", resource);
    let mut first = setup.client().get("/files/a").send().await?;
    first.read_at_least(body.len() / 2).await?;
    // The first half is here; the joiner must have all of it before the origin goes on.
    let mut late = setup.client().get("/files/a").send().await?;
    late.read_at_least(body.len() / 2).await?;
    gate.open();
    for (whose, response) in [("the first", &mut first), ("the late one", &mut late)] {
        let got = response.finish().await?;
        assert!(got.looks_whole, "{whose}");
        assert_same(&got.bytes, &body, whose);
    }
    assert_eq!(setup.asked("/a"), 1);
    Ok(())
}

#[tokio::test]
async fn row_c_a_follower_is_whole_though_the_leader_is_killed() -> Result<()> {
    let setup = Setup::start().await?;
    let body = content(8 * MIB, 4);
    let (resource, gate) = held_half_way(&body);
    setup
        .origin
        .serve("/a", resource.bytes_per_second(16 * MIB as u64));
    let mut leader = setup.client().get("/files/a").send().await?;
    leader.read_at_least(FIRST_BYTES).await?;
    let mut follower = setup.client().get("/files/a").send().await?;
    follower.read_at_least(FIRST_BYTES).await?;
    drop(leader);
    gate.open();
    let got = follower.finish().await?;
    assert!(got.looks_whole);
    assert_same(&got.bytes, &body, "the follower");
    assert_eq!(setup.asked("/a"), 1);
    Ok(())
}

#[tokio::test]
async fn row_c2_a_download_without_any_client_left_is_finished_and_used() -> Result<()> {
    let setup = Setup::start().await?;
    let body = content(8 * MIB, 5);
    let (resource, gate) = held_half_way(&body);
    setup
        .origin
        .serve("/a", resource.bytes_per_second(16 * MIB as u64));
    let mut only = setup.client().get("/files/a").send().await?;
    only.read_at_least(FIRST_BYTES).await?;
    drop(only);
    gate.open();
    // Joins the download or hits what it left; either way the origin is not asked again.
    let (_, got) = setup.client().fetch("/files/a").await?;
    assert_same(&got, &body, "the next client");
    assert_eq!(setup.asked("/a"), 1);
    assert_eq!(
        setup.origin.body_bytes(),
        body.len() as u64,
        "each byte crossed the WAN once"
    );
    Ok(())
}

#[tokio::test]
async fn row_i_p04_a_fast_follower_is_not_paced_by_a_leader_that_stands_still() -> Result<()> {
    let setup = Setup::start().await?;
    // Far more than the sockets between us can hold for the leader.
    let body = content(48 * MIB, 6);
    setup.origin.serve("/a", Resource::cacheable(body.clone()));
    let mut leader = setup.client().get("/files/a").send().await?;
    leader.read_at_least(1).await?;
    let (_, got) = setup.client().fetch("/files/a").await?;
    assert_same(&got, &body, "the follower");
    let got = leader.finish().await?;
    assert!(got.looks_whole);
    assert_same(&got.bytes, &body, "the leader, at last");
    assert_eq!(setup.asked("/a"), 1);
    Ok(())
}

#[tokio::test]
async fn p22_memory_does_not_grow_with_the_body() -> Result<()> {
    let setup = Setup::start().await?;
    setup.origin.serve("/small", Resource::cacheable("warm"));
    setup.client().fetch("/files/small").await?;
    let before = setup.proxy.resident_bytes()?;
    let body = content(96 * MIB, 7);
    setup.origin.serve("/a", Resource::cacheable(body.clone()));
    let mut slow = setup.client().get("/files/a").send().await?;
    slow.read_at_least(1).await?;
    let (_, got) = setup.client().fetch("/files/a").await?;
    assert_same(&got, &body, "the client");
    let grown = setup.proxy.resident_bytes()?.saturating_sub(before);
    assert!(
        grown < 48 * MIB as u64,
        "resident memory grew by {} MiB for a body of 96",
        grown / MIB as u64
    );
    Ok(())
}
