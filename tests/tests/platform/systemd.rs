//! systemd: units by role, masked ones left alone, flapping ones not believed.

use anyhow::Result;
use kato_upgrader::{
    platform::{
        self, Verb, Words,
        evacuate::{Emptied, EvacuateError},
    },
    settings::OnTimeout,
};

use crate::{empty, fakes::Fake};

const ALL: &str = "units = { web = [\"web.service\"], db = [\"db.service\"], \"*\" = [\"agent.service\"] }, settle = \"0s\"";

fn with_units() -> Result<Fake> {
    let fake = Fake::systemctl()?;
    for unit in ["web", "db", "agent"] {
        fake.put(&format!("units/{unit}.service"), "loaded active running 0\n")?;
    }
    Ok(fake)
}

#[tokio::test]
async fn r38_the_units_of_the_nodes_roles_are_stopped_and_started() -> Result<()> {
    let fake = with_units()?;
    let platform = fake.platform("systemd", ALL)?;
    assert_eq!(
        empty(platform.as_ref(), 30, OnTimeout::Fail).await?,
        Emptied::Empty
    );
    assert_eq!(
        fake.text("units/db.service"),
        "loaded active running 0\n",
        "another role's"
    );
    let words = Words::default();
    let error = platform.call(Verb::Health, &words).await.unwrap_err();
    assert!(
        error.to_string().contains("is inactive (dead, success)"),
        "{error}"
    );
    platform.call(Verb::Restart, &words).await?;
    platform.call(Verb::Health, &words).await?;
    platform.call(Verb::Rejoin, &words).await?;
    let calls = fake.calls();
    assert!(
        calls
            .iter()
            .any(|call| call == "stop -- agent.service web.service"),
        "{calls:?}"
    );
    assert!(calls.iter().any(|call| call == "daemon-reload"), "{calls:?}");
    Ok(())
}

#[tokio::test]
async fn c02_units_that_an_operator_masked_are_left_alone() -> Result<()> {
    let fake = with_units()?;
    fake.put("units/web.service", "masked inactive dead 0\n")?;
    let platform = fake.platform("systemd", ALL)?;
    let words = Words::default();
    platform.call(Verb::Restart, &words).await?;
    platform.call(Verb::Health, &words).await?;
    assert_eq!(fake.text("units/web.service"), "masked inactive dead 0\n");
    fake.put("units/agent.service", "masked inactive dead 0\n")?;
    let found = platform::resident(platform.as_ref(), &words)
        .await?
        .unwrap_or_default();
    assert_eq!((found.count, found.retired), (0, Some(true)));
    Ok(())
}

#[tokio::test]
async fn c05_a_unit_that_flaps_is_not_taken_for_stopped() -> Result<()> {
    let fake = Fake::systemctl()?;
    fake.put("units/web.service", "loaded active running 0\n")?;
    fake.put("flaps", "")?;
    let platform = fake.platform("systemd", "units = { web = [\"web.service\"] }")?;
    let error = empty(platform.as_ref(), 2, OnTimeout::Fail).await.unwrap_err();
    assert!(
        matches!(
            error,
            EvacuateError::Left { .. } | EvacuateError::InService { .. }
        ),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_unit_that_systemd_restarts_again_and_again_is_not_healthy() -> Result<()> {
    let fake = with_units()?;
    fake.put("loops", "")?;
    let platform = fake.platform("systemd", ALL)?;
    let error = platform.call(Verb::Health, &Words::default()).await.unwrap_err();
    assert!(
        error.to_string().contains("was restarted 1 time within"),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn units_that_are_not_there_cannot_be_stopped_and_an_answer_that_is_none_is_an_error() -> Result<()> {
    let fake = with_units()?;
    fake.remove("units/web.service")?;
    let platform = fake.platform("systemd", ALL)?;
    assert_eq!(
        empty(platform.as_ref(), 30, OnTimeout::Fail).await?,
        Emptied::Empty
    );
    let error = platform.call(Verb::Rejoin, &Words::default()).await.unwrap_err();
    assert!(
        kato_shared::chain::Chain(&error)
            .to_string()
            .contains("web.service not loaded"),
        "{error}"
    );
    fake.put("garbage", "")?;
    let error = platform::resident(platform.as_ref(), &Words::default())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("told of 0 units, expected 2"),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn r70_a_restart_of_roles_is_one_of_their_units_and_never_of_their_names() -> Result<()> {
    for (services, roles, expected) in [
        ("", "web", "restart -- web.service"),
        ("", "WEB", "restart -- web.service"),
        ("", "", "restart -- agent.service web.service"),
        // A role without units of its own is in those of the whole node.
        ("", "router", "restart -- agent.service web.service"),
        ("", "web,router", "restart -- agent.service web.service"),
        ("agent.service", "web", "restart -- agent.service"),
    ] {
        let fake = with_units()?;
        let platform = fake.platform("systemd", ALL)?;
        let words = Words {
            services: services.into(),
            roles: roles.into(),
            ..Words::default()
        };
        platform.call(Verb::Restart, &words).await?;
        let calls = fake.calls();
        assert_eq!(
            calls.last().map(String::as_str),
            Some(expected),
            "{services:?} {roles:?}"
        );
    }
    // One that an operator masked stays as it is.
    let fake = with_units()?;
    fake.put("units/web.service", "masked inactive dead 0\n")?;
    let words = Words {
        roles: "web".into(),
        ..Words::default()
    };
    fake.platform("systemd", ALL)?.call(Verb::Restart, &words).await?;
    assert!(!fake.calls().iter().any(|call| call.starts_with("restart")));
    Ok(())
}
