//! SIGKILL again and again on one node, and at any time: also in the middle of a write, where no place is.

use std::{os::unix::process::ExitStatusExt as _, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use integration_tests::{command, wait};
use tokio::time::Instant;

use crate::{
    scenario,
    stage::{LONG, Stage, said},
};

/// How many runs are killed by the clock.
const TIMES: u32 = 16;

/// Names that the program gave to places of its own: short ones, without a line of the code.
fn is_named(visit: &str) -> bool {
    !visit.contains(' ') && visit.ends_with(":1")
}

/// One node, killed at the first visit of every named place in turn; then it is left alone.
async fn on_one_node(name: &str) -> Result<()> {
    let stage = Stage::set(scenario::named(name)?).await?;
    let node = stage.node_before(0, "battered")?;
    let mut kills = 0;
    for visit in stage.visits.iter().filter(|visit| is_named(&visit.name)) {
        let mut kato = stage.call(&node, 0)?;
        kato.env("KATO_KILL_AT", &visit.name);
        let output = command::run(kato, LONG, &[])?;
        // A place that the run needs to pass no more lets it come to its end.
        let may_end = stage.scenario.calls[0].ends;
        ensure!(
            output.status.signal() == Some(9)
                || output.status.code().is_some_and(|code| may_end.contains(&code)),
            "{visit:?}: {}: {}",
            output.status,
            said(&output)
        );
        kills += u32::from(output.status.signal() == Some(9));
    }
    ensure!(kills > 5, "only {kills} runs were killed");
    let found = stage.again(&node, 0)?;
    ensure!(found.is_empty(), "{found:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r56_killed_again_and_again_on_the_way() -> Result<()> {
    on_one_node("upgrade").await
}

#[tokio::test(flavor = "multi_thread")]
async fn c23_killed_again_and_again_on_the_way_back() -> Result<()> {
    on_one_node("rollback").await
}

#[tokio::test(flavor = "multi_thread")]
async fn r56_killed_at_any_time() -> Result<()> {
    let stage = Stage::set(scenario::named("upgrade")?).await?;
    let node = stage.node_before(0, "measured")?;
    let began = Instant::now();
    command::run(stage.call(&node, 0)?, LONG, &[])?;
    let slice = began.elapsed() / TIMES;
    // Fresh nodes, each killed a little later than the one before.
    for time in 0..TIMES {
        let node = stage.node_before(0, "killed")?;
        let mut child = stage.call(&node, 0)?.stderr(Stdio::null()).spawn()?;
        // Not a wait for a state: the point is to hit it anywhere.
        wait::until("the end", slice * time, || child.try_wait().ok().flatten()).ok();
        // It may have ended already.
        child.kill().ok();
        command::end(&mut child, "kato node upgrade", LONG)?;
        let found = stage
            .again(&node, 0)
            .with_context(|| format!("killed after {:?}", slice * time))?;
        ensure!(found.is_empty(), "killed after {:?}: {found:#?}", slice * time);
        stage.done_with("killed")?;
    }
    Ok(())
}
