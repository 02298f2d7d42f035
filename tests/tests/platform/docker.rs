//! Docker: only what runs is stopped, and only what we stopped is started.

use anyhow::Result;
use kato_upgrader::{
    platform::{Verb, Words, evacuate::Emptied},
    settings::OnTimeout,
};

use crate::{empty, fakes::Fake};

const ALL: &str = "timeout = \"30s\"";

fn with_containers() -> Result<Fake> {
    let fake = Fake::docker()?;
    fake.put("containers/c1", "running healthy")?;
    fake.put("containers/c2", "exited")?;
    fake.put("containers/c3", "running healthy")?;
    Ok(fake)
}

#[tokio::test]
async fn c02_only_the_containers_that_we_stopped_are_started_again() -> Result<()> {
    let fake = with_containers()?;
    let platform = fake.platform("docker", ALL)?;
    let words = Words::default();
    assert_eq!(
        empty(platform.as_ref(), 30, OnTimeout::Fail).await?,
        Emptied::Empty
    );
    assert!(
        fake.calls()
            .iter()
            .any(|call| call.contains("label=kato.service"))
    );
    // Retired twice, and one was replaced meanwhile by a module: it is not waited for.
    assert_eq!(
        empty(platform.as_ref(), 30, OnTimeout::Fail).await?,
        Emptied::Empty
    );
    fake.remove("containers/c3")?;
    // A restart before the node is back starts them as well, so that their health can be seen.
    platform.call(Verb::Restart, &words).await?;
    platform.call(Verb::Health, &words).await?;
    platform.call(Verb::Rejoin, &words).await?;
    assert_eq!(fake.text("containers/c1").trim(), "running healthy");
    assert_eq!(
        fake.text("containers/c2").trim(),
        "exited",
        "somebody else stopped it"
    );
    // Nothing is remembered: the next rejoin starts nothing.
    fake.put("containers/c1", "exited")?;
    platform.call(Verb::Rejoin, &words).await?;
    assert_eq!(fake.text("containers/c1").trim(), "exited");
    Ok(())
}

#[tokio::test]
async fn c05_a_container_that_does_not_stop_is_counted_and_killed_only_by_force() -> Result<()> {
    let fake = with_containers()?;
    fake.put("stubborn", "")?;
    let platform = fake.platform("docker", ALL)?;
    let error = empty(platform.as_ref(), 1, OnTimeout::Fail).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("blocked by c1-name is running, c3-name is running"),
        "{error}"
    );
    let forced = empty(platform.as_ref(), 1, OnTimeout::Force).await?;
    assert!(matches!(forced, Emptied::Forced(left) if left.count == 2));
    Ok(())
}

#[tokio::test]
async fn an_unhealthy_container_is_named() -> Result<()> {
    let fake = with_containers()?;
    fake.put("containers/c1", "running unhealthy")?;
    let platform = fake.platform("docker", ALL)?;
    let error = platform.call(Verb::Health, &Words::default()).await.unwrap_err();
    assert!(error.to_string().contains("c1-name is unhealthy"), "{error}");
    Ok(())
}

#[tokio::test]
async fn r70_a_restart_of_roles_is_one_of_all_labelled_containers() -> Result<()> {
    let fake = with_containers()?;
    let words = Words {
        roles: "web".into(),
        ..Words::default()
    };
    fake.platform("docker", ALL)?.call(Verb::Restart, &words).await?;
    assert_eq!(
        fake.calls()
            .iter()
            .filter(|call| *call == "restart -- c1 c3")
            .count(),
        1
    );
    Ok(())
}
