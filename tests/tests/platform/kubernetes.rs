//! Kubernetes: what counts as work, who blocks, and drains that lie, fail or hang.

use anyhow::Result;
use kato_upgrader::{
    platform::{
        self, Verb, Words,
        evacuate::{Emptied, EvacuateError},
    },
    settings::OnTimeout,
};

use crate::{
    LONG, empty,
    fakes::{Fake, pod},
    text,
};

const ALL: &str = "timeout = \"30s\"";

fn with_pods() -> Result<Fake> {
    let fake = Fake::kubectl()?;
    fake.put("pods/web-1", &pod("web-1", "ReplicaSet", "Running", ""))?;
    fake.put("pods/agent", &pod("agent", "DaemonSet", "Running", ""))?;
    fake.put(
        "pods/static",
        &pod(
            "static",
            "Node",
            "Running",
            r#""kubernetes.io/config.mirror": "x""#,
        ),
    )?;
    fake.put("pods/job-1", &pod("job-1", "Job", "Succeeded", ""))?;
    Ok(fake)
}

#[tokio::test]
async fn r38_a_kubernetes_node_is_cordoned_drained_and_uncordoned() -> Result<()> {
    let fake = with_pods()?;
    let platform = fake.platform("kubernetes", ALL)?;
    let words = Words::default();
    let before = platform::resident(platform.as_ref(), &words)
        .await?
        .unwrap_or_default();
    // A daemon set's pod, a static pod and a finished one are no work.
    assert_eq!((before.count, before.retired), (1, Some(false)));
    assert_eq!(
        empty(platform.as_ref(), 30, OnTimeout::Fail).await?,
        Emptied::Empty
    );
    let calls = fake.calls();
    let at = |start: &str| calls.iter().position(|call| call.starts_with(start));
    assert!(
        at("cordon w1").is_some() && at("cordon w1") < at("drain w1"),
        "{calls:?}"
    );
    let drain = &calls[at("drain w1").unwrap_or_default()];
    assert_eq!(
        drain,
        "drain w1 --timeout=600s --ignore-daemonsets --delete-emptydir-data"
    );
    platform.call(Verb::Rejoin, &words).await?;
    assert!(!fake.state("cordoned").exists());
    Ok(())
}

#[tokio::test]
async fn c04_what_blocks_a_drain_is_named_with_its_disruption_budget() -> Result<()> {
    let fake = with_pods()?;
    fake.put("budget", "")?;
    let platform = fake.platform("kubernetes", ALL)?;
    let error = empty(platform.as_ref(), 30, OnTimeout::Fail).await.unwrap_err();
    let said = text(&error);
    assert!(
        said.contains("1 unit of work")
            && said.contains("shop/web-1 (the disruption budget web allows 0 more)"),
        "{said}"
    );
    assert!(
        said.contains("would violate the pod's disruption budget"),
        "{said}"
    );
    // Whoever wants it so has the rest ended by force, and it is counted again.
    let forced = empty(platform.as_ref(), 30, OnTimeout::Force).await?;
    assert!(matches!(forced, Emptied::Forced(left) if left.count == 1));
    Ok(())
}

#[tokio::test]
async fn c05_a_drain_that_says_done_while_pods_run_is_not_believed() -> Result<()> {
    let fake = with_pods()?;
    fake.put("lies", "")?;
    let platform = fake.platform("kubernetes", ALL)?;
    let error = empty(platform.as_ref(), 1, OnTimeout::Fail).await.unwrap_err();
    assert!(matches!(error, EvacuateError::Left { found, cause: None, .. } if found.count == 1));
    let left = empty(platform.as_ref(), 1, OnTimeout::Proceed).await?;
    assert!(matches!(left, Emptied::Left(found) if found.count == 1));
    Ok(())
}

#[tokio::test]
async fn c05_answers_that_are_no_json_are_an_error_and_never_empty() -> Result<()> {
    let fake = with_pods()?;
    fake.put("garbage", "")?;
    let platform = fake.platform("kubernetes", ALL)?;
    let error = empty(platform.as_ref(), 30, OnTimeout::Fail).await.unwrap_err();
    let said = text(&error);
    assert!(
        said.contains("the platform's `resident` printed") && said.contains("expected a list of pods"),
        "{said}"
    );
    Ok(())
}

#[tokio::test]
async fn c20_a_program_that_hangs_is_ended_at_its_deadline() -> Result<()> {
    let fake = with_pods()?;
    fake.put("hang", "")?;
    let platform = fake.platform("kubernetes", "timeout = \"1s\"")?;
    let error = empty(platform.as_ref(), 30, OnTimeout::Fail).await.unwrap_err();
    assert!(text(&error).contains("was stopped after 1s"), "{}", text(&error));

    // The whole time ends a command whose own deadline is longer, too.
    let patient = fake.platform("kubernetes", ALL)?;
    let error = empty(patient.as_ref(), 1, OnTimeout::Fail);
    let error = tokio::time::timeout(LONG, error).await?.unwrap_err();
    assert!(matches!(error, EvacuateError::Unseen { .. }), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn a_sick_node_is_not_healthy_and_the_condition_is_named() -> Result<()> {
    let fake = with_pods()?;
    let platform = fake.platform("kubernetes", ALL)?;
    platform.call(Verb::Health, &Words::default()).await?;
    fake.put("sick", "")?;
    let error = platform.call(Verb::Health, &Words::default()).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("Ready of w1 is False: the kubelet stopped"),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn r22_what_a_node_has_and_could_take_is_memory_that_pods_request() -> Result<()> {
    let fake = Fake::kubectl()?;
    fake.put("memory", "4000Mi")?;
    let requesting = |name: &str, owner: &str, phase: &str, memory: &str| {
        let spec = format!(
            r#""spec": {{"containers": [{{"resources": {{"requests": {{"memory": "{memory}"}}}}}}]}}, "status""#
        );
        pod(name, owner, phase, "").replace(r#""status""#, &spec)
    };
    fake.put(
        "pods/web-1",
        &requesting("web-1", "ReplicaSet", "Running", "1000Mi"),
    )?;
    fake.put(
        "pods/web-2",
        &requesting("web-2", "ReplicaSet", "Pending", "524289Ki"),
    )?;
    // Requests nothing, and counts as nothing.
    fake.put("pods/web-3", &pod("web-3", "ReplicaSet", "Running", ""))?;
    // Stays on the node, and takes room there.
    fake.put("pods/log", &requesting("log", "DaemonSet", "Running", "100Mi"))?;
    fake.put("pods/done", &requesting("done", "Job", "Succeeded", "2000Mi"))?;
    let platform = fake.platform("kubernetes", "timeout = \"30s\"")?;
    let found = platform::capacity(platform.as_ref(), &Words::default()).await?;
    // 1000 + 512 and a bit; 4000 without these and the 100 of the daemon set.
    assert_eq!(found.map(|found| (found.used, found.free)), Some((1513, 2387)));
    fake.put("cordoned", "")?;
    let found = platform::capacity(platform.as_ref(), &Words::default()).await?;
    assert_eq!(found.map(|found| (found.used, found.free)), Some((1513, 0)));
    fake.put("memory", "much")?;
    assert!(
        platform::capacity(platform.as_ref(), &Words::default())
            .await
            .is_err()
    );
    Ok(())
}
