//! The adapters of platforms, against fake programs that keep state and lie; and whole upgrades over them.
//!
//! A fake is right here: none of these platforms is on the machine, and what has to hold is what Kato makes of their answers.
//! What a platform's own program does with these arguments is not shown by these tests.

mod by_hand;
mod docker;
mod fakes;
mod kubernetes;
mod nomad;
mod restarted;
mod restoring;
mod retiring;
mod systemd;
mod words;

use std::time::Duration;

use kato_shared::settings::HumanDuration;
use kato_upgrader::{
    platform::{
        Platform, Words,
        evacuate::{Emptied, EvacuateError, Rules, evacuate},
    },
    settings::OnTimeout,
};
use tokio_util::sync::CancellationToken;

/// How long anything may take on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// Takes the node out of service within `secs` seconds.
async fn empty(platform: &dyn Platform, secs: u64, on_timeout: OnTimeout) -> Result<Emptied, EvacuateError> {
    let rules = Rules {
        limit: HumanDuration::from_secs(secs),
        on_timeout,
    };
    let words = Words::default();
    let stop = CancellationToken::new();
    evacuate(platform, &words, rules, &stop, &mut |_left| {}).await
}

/// An error with all its causes.
fn text(error: &(dyn std::error::Error + 'static)) -> String {
    kato_shared::chain::Chain(error).to_string()
}
