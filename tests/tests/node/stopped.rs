//! A signal ends a run at once while nothing of the node was changed, also in the middle of a command of the platform.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::Result;
use integration_tests::{command, wait};
use rustix::process::{Pid, Signal};

use crate::setup::Site;

const LONG: Duration = Duration::from_secs(60);

/// Far less than the command would take.
const SOON: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn c20_a_signal_ends_preflight_in_the_middle_of_a_command() -> Result<()> {
    for signal in [Signal::TERM, Signal::INT] {
        let mut site = Site::at_one().await?;
        let noted = site.node.path("platform/sleeper");
        // A child of the command as well: it must not be left behind.
        site.node.platform_is(&format!(
            "health = {{ argv = [\"sh\", \"-c\", \"sleep 600 & echo $! > {0}.new; mv {0}.new {0}; wait\"], timeout = \"10m\" }}\n",
            noted.display()
        ))?;
        let before = site.node.product()?;
        let mut kato = site.node.kato(&["node", "upgrade", "--skip-confirmation"])?;
        let mut kato = kato.stderr(Stdio::piped()).spawn()?;
        let sleeper = wait::until("the platform is asked", LONG, || {
            site.node.text("platform/sleeper")
        })?;
        let process = Path::new("/proc").join(sleeper.trim());
        assert!(process.exists());
        if let Some(pid) = Pid::from_raw(i32::try_from(kato.id())?) {
            rustix::process::kill_process(pid, signal)?;
        }
        let status = command::end(&mut kato, "kato node upgrade", SOON)?;
        assert_eq!(status.code(), Some(75), "{signal:?}");
        wait::until("what it had started is gone", SOON, || {
            (!process.exists()).then_some(())
        })?;
        assert_eq!(site.node.product()?, before);
        // The lock is free, and the same command goes on.
        site.node.platform_is("")?;
        site.node.upgrade_ends(0, &[])?;
    }
    Ok(())
}
