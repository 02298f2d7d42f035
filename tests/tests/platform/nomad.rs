//! Nomad: allocations are counted beside the drain.

use anyhow::Result;
use kato_upgrader::{
    platform::{
        self, Verb, Words,
        evacuate::{Emptied, EvacuateError},
    },
    settings::OnTimeout,
};

use crate::{
    empty,
    fakes::{Fake, allocation},
    text,
};

const ALL: &str = "timeout = \"30s\"";

fn with_work() -> Result<Fake> {
    let fake = Fake::nomad()?;
    fake.put("allocations/a1", &allocation("a1", "running", "service"))?;
    fake.put("allocations/a2", &allocation("a2", "complete", "batch"))?;
    fake.put("allocations/a3", &allocation("a3", "running", "system"))?;
    Ok(fake)
}

#[tokio::test]
async fn r38_a_nomad_client_is_drained_and_made_eligible_again() -> Result<()> {
    let fake = with_work()?;
    let platform = fake.platform("nomad", "address = \"http://agent.example:4646\"")?;
    assert_eq!(
        empty(platform.as_ref(), 30, OnTimeout::Fail).await?,
        Emptied::Empty
    );
    let drain = "node drain -address=http://agent.example:4646 -enable -deadline 600s -yes -self";
    assert!(
        fake.calls().iter().any(|call| call == drain),
        "{:?}",
        fake.calls()
    );
    platform.call(Verb::Rejoin, &Words::default()).await?;
    assert!(!fake.state("ineligible").exists());
    Ok(())
}

#[tokio::test]
async fn c05_allocations_that_outlive_the_drain_are_counted_and_named() -> Result<()> {
    let fake = with_work()?;
    fake.put("lies", "")?;
    let platform = fake.platform("nomad", ALL)?;
    let error = empty(platform.as_ref(), 1, OnTimeout::Fail).await.unwrap_err();
    assert!(
        matches!(&error, EvacuateError::Left { found, .. } if found.count == 2),
        "{error:?}"
    );
    assert!(text(&error).contains("shop.web[0] (a1) is running"), "{error}");
    let forced = empty(platform.as_ref(), 1, OnTimeout::Force).await?;
    assert!(matches!(forced, Emptied::Forced(_)));
    Ok(())
}

#[tokio::test]
async fn system_jobs_stay_where_the_settings_say_so_and_unknown_states_count() -> Result<()> {
    let fake = with_work()?;
    fake.put("allocations/a4", &allocation("a4", "unknown", "service"))?;
    let platform = fake.platform("nomad", "ignore_system = true")?;
    let found = platform::resident(platform.as_ref(), &Words::default())
        .await?
        .unwrap_or_default();
    assert_eq!((found.count, found.retired), (2, Some(false)));
    Ok(())
}

#[tokio::test]
async fn a_client_that_is_down_is_not_healthy() -> Result<()> {
    let fake = with_work()?;
    fake.put("down", "")?;
    let platform = fake.platform("nomad", ALL)?;
    let error = platform.call(Verb::Health, &Words::default()).await.unwrap_err();
    assert!(
        error.to_string().contains("n-1 is down, expected ready"),
        "{error}"
    );
    fake.put("garbage", "")?;
    let error = platform::resident(platform.as_ref(), &Words::default())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("expected a node"), "{error}");
    Ok(())
}

#[tokio::test]
async fn r22_what_a_node_has_and_could_take_is_memory_that_is_allocated() -> Result<()> {
    let fake = Fake::nomad()?;
    let having = |id: &str, status: &str, job: &str, mib: u64| {
        let tasks = format!(
            r#""AllocatedResources": {{"Tasks": {{"a": {{"Memory": {{"MemoryMB": {mib}}}}}, "b": {{"Memory": {{"MemoryMB": 1}}}}}}}}, "Job""#
        );
        allocation(id, status, job).replace(r#""Job""#, &tasks)
    };
    fake.put("allocations/a1", &having("a1", "running", "service", 99))?;
    fake.put("allocations/a2", &having("a2", "complete", "service", 999))?;
    fake.put("allocations/a3", &having("a3", "running", "system", 49))?;
    let platform = fake.platform("nomad", "ignore_system = true")?;
    let words = Words::default();
    let asked = || platform::capacity(platform.as_ref(), &words);
    assert!(asked().await.is_err(), "it does not say how much there is");
    let resources = r#", "NodeResources": {"Memory": {"MemoryMB": 1000}}, "ReservedResources": {"Memory": {"MemoryMB": 100}}"#;
    fake.put("resources", resources)?;
    assert_eq!(
        asked().await?.map(|found| (found.used, found.free)),
        Some((100, 750))
    );
    let all = fake.platform("nomad", "")?;
    let found = platform::capacity(all.as_ref(), &Words::default()).await?;
    assert_eq!(found.map(|found| (found.used, found.free)), Some((150, 750)));
    fake.put("ineligible", "")?;
    assert_eq!(
        asked().await?.map(|found| (found.used, found.free)),
        Some((100, 0))
    );
    // Work whose memory nobody tells is not taken for none.
    fake.put("allocations/a4", &allocation("a4", "running", "service"))?;
    assert!(asked().await.is_err());
    Ok(())
}
