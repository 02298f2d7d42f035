//! Takes a node out of service and waits until it is empty.
//!
//! ```text
//!   retire ──ends well──▶ count, again and again ──0 twice, and not in service──▶ empty
//!     │ fails with work left        │ time is up
//!     └──────────────┬──────────────┘
//!                    ▼ on_timeout: fail │ proceed │ force ──▶ count … ──▶ empty, or it fails
//! ```
//!
//! Invariants: the retire command's own word is never taken for "empty"; "cannot see" is never "empty" either; there is always
//! a deadline, also while the command itself is at work. Whoever calls this puts the node back when it fails.

use std::{fmt, time::Duration};

use kato_shared::settings::HumanDuration;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Platform, PlatformError, Resident, Verb, Words, resident};
use crate::{failpoint, settings::OnTimeout};

/// After how long is looked again; it doubles up to [`SLOWEST`], because some counts are expensive.
const POLL: Duration = Duration::from_millis(250);
const SLOWEST: Duration = Duration::from_secs(2);
/// How many times in a row the count must be zero.
const CONFIRMATIONS: u32 = 2;
/// How many counts in a row may fail: the platform's own parts may restart while work moves.
const BLIND: u32 = 3;
/// How long a count may take that begins when time is up, or nearly so.
const LAST_LOOK: Duration = Duration::from_secs(5);
/// How long a node may take to be empty after its work was ended by force.
const AFTER_FORCE: HumanDuration = HumanDuration::from_secs(60);

/// How long a node may take to become empty, and what then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// From the beginning of the retire command on.
    pub limit: HumanDuration,
    /// What happens to a node that is not empty by then.
    pub on_timeout: OnTimeout,
}

/// How it ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Emptied {
    /// Nothing runs on the node.
    Empty,
    /// The platform does not say how much is on the node.
    Uncounted,
    /// Work is left, and [`OnTimeout::Proceed`] takes no offence at it.
    Left(Resident),
    /// Nothing runs on the node any more, and this had to be ended.
    Forced(Resident),
}

/// How it failed.
#[derive(Debug, thiserror::Error)]
pub enum EvacuateError {
    /// The platform's retire, count or force failed.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// Work is left.
    #[error(
        "the node still has {} of work {limit} after it was retired; {}{}",
        found.units(), blocked_by(found), because(cause.as_ref())
    )]
    Left {
        /// What is left.
        found: Resident,
        /// How long it was waited for.
        limit: HumanDuration,
        /// What the retire command said, when it failed.
        #[source]
        cause: Option<PlatformError>,
    },
    /// The retire command ended well, and the node takes work.
    #[error("the platform says that the node is in service {limit} after it was retired")]
    InService {
        /// How long it was waited for.
        limit: HumanDuration,
    },
    /// No work was seen, but not twice in a row.
    #[error(
        "the work on the node came and went: it was never seen empty twice in a row {limit} after it was retired"
    )]
    Unsteady {
        /// How long it was waited for.
        limit: HumanDuration,
    },
    /// Nobody could say what is on the node.
    #[error("how much work is on the node could not be seen {limit} after it was retired")]
    Unseen {
        /// How long it was waited for.
        limit: HumanDuration,
    },
    /// The work that is left cannot be ended.
    #[error("the node still has {} of work, and the platform has no command to end them; {}", found.units(), blocked_by(found))]
    NoForce {
        /// What is left.
        found: Resident,
    },
    /// The operator stopped the run.
    #[error("stopped while the node was taken out of service")]
    Stopped,
}

fn blocked_by(found: &Resident) -> impl fmt::Display {
    if found.blockers.is_empty() {
        "the platform does not say what blocks them".to_owned()
    } else {
        format!("blocked by {}", found.blockers.join(", "))
    }
}

fn because(cause: Option<&PlatformError>) -> &'static str {
    cause.map_or("", |_| "; the platform gave up")
}

/// Takes the node out of service and waits until it is empty; `tell` hears what is left whenever that changes.
///
/// # Errors
/// [`EvacuateError`]; the node may then be out of service.
///
/// # Cancel safety
/// When dropped, the platform's command is killed; the node may be out of service.
pub async fn evacuate(
    platform: &dyn Platform,
    words: &Words,
    rules: Rules,
    stop: &CancellationToken,
    tell: &mut (dyn FnMut(&Resident) + Send),
) -> Result<Emptied, EvacuateError> {
    let deadline = Instant::now() + rules.limit.get();
    let mut watch = Watch {
        platform,
        words,
        stop,
        tell,
        last: None,
        blind: 0,
    };
    let cause = match watch.retire(deadline).await {
        Retired::Done => {
            failpoint::hit("retire.acted");
            match watch.until_empty(deadline).await? {
                Some(emptied) => return Ok(emptied),
                None => None,
            }
        }
        Retired::Failed(error) => Some(error),
        Retired::TimeIsUp => None,
        Retired::Stopped => return Err(EvacuateError::Stopped),
    };
    let found = match watch.look(deadline).await {
        Look::Found(found) => found,
        Look::Stopped => return Err(EvacuateError::Stopped),
        Look::Failed(_) | Look::TimeIsUp => None,
    };
    let Some(found) = found.or(watch.last.take()) else {
        let limit = rules.limit;
        return Err(cause.map_or(EvacuateError::Unseen { limit }, Into::into));
    };
    watch.time_is_up(rules, found, cause).await
}

/// How the retire command ended.
enum Retired {
    Done,
    Failed(PlatformError),
    TimeIsUp,
    Stopped,
}

/// How a count ended.
enum Look {
    Found(Option<Resident>),
    Failed(PlatformError),
    TimeIsUp,
    Stopped,
}

/// Looks at the node while it becomes empty.
struct Watch<'a> {
    platform: &'a dyn Platform,
    words: &'a Words,
    stop: &'a CancellationToken,
    tell: &'a mut (dyn FnMut(&Resident) + Send),
    last: Option<Resident>,
    /// How many counts in a row have failed.
    blind: u32,
}

impl Watch<'_> {
    /// Calls the retire command, and tells what is left while it is at work.
    async fn retire(&mut self, deadline: Instant) -> Retired {
        let platform = self.platform;
        let command = platform.call(Verb::Retire, self.words);
        tokio::pin!(command);
        loop {
            tokio::select! {
                ended = &mut command => return match ended {
                    Ok(_said) => Retired::Done,
                    Err(error) => Retired::Failed(error),
                },
                () = sleep_until(deadline) => return Retired::TimeIsUp,
                () = self.stop.cancelled() => return Retired::Stopped,
                () = sleep(SLOWEST) => {}
            }
            let look = resident(platform, self.words);
            tokio::select! {
                // What is found here only informs: a count of zero before the command has ended may be its first moment.
                found = look => if let Ok(Some(found)) = found { self.hear(found) },
                ended = &mut command => return match ended {
                    Ok(_said) => Retired::Done,
                    Err(error) => Retired::Failed(error),
                },
                () = self.stop.cancelled() => return Retired::Stopped,
            }
        }
    }

    /// Counts what is left, at most until `deadline` and a last moment.
    async fn look(&mut self, deadline: Instant) -> Look {
        tokio::select! {
            found = resident(self.platform, self.words) => found.map_or_else(Look::Failed, Look::Found),
            () = sleep_until(deadline.max(Instant::now() + LAST_LOOK)) => Look::TimeIsUp,
            () = self.stop.cancelled() => Look::Stopped,
        }
    }

    fn hear(&mut self, found: Resident) {
        if self.last.as_ref() != Some(&found) {
            (self.tell)(&found);
            self.last = Some(found);
        }
    }

    /// Counts until the node is empty; `None` when time is up.
    async fn until_empty(&mut self, deadline: Instant) -> Result<Option<Emptied>, EvacuateError> {
        if !self.platform.knows(Verb::Resident) {
            return Ok(Some(Emptied::Uncounted));
        }
        let mut zeros = 0;
        let mut pause = POLL;
        loop {
            match self.look(deadline).await {
                Look::Found(None) => return Ok(Some(Emptied::Uncounted)),
                Look::TimeIsUp => return Ok(None),
                Look::Stopped => return Err(EvacuateError::Stopped),
                Look::Found(Some(found)) => {
                    self.blind = 0;
                    let is_empty = found.count == 0 && found.retired != Some(false);
                    zeros = if is_empty { zeros + 1 } else { 0 };
                    if zeros >= CONFIRMATIONS {
                        return Ok(Some(Emptied::Empty));
                    }
                    pause = if is_empty { POLL } else { (pause * 2).min(SLOWEST) };
                    self.hear(found);
                }
                Look::Failed(error) => {
                    zeros = 0;
                    self.blind += 1;
                    if self.blind >= BLIND {
                        return Err(error.into());
                    }
                }
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = self.stop.cancelled() => return Err(EvacuateError::Stopped),
            }
        }
    }

    /// What becomes of a node that has `found` when its time is over, or when its retire command failed with `cause`.
    async fn time_is_up(
        &mut self,
        rules: Rules,
        found: Resident,
        cause: Option<PlatformError>,
    ) -> Result<Emptied, EvacuateError> {
        let limit = rules.limit;
        if found.count == 0 {
            return Err(match cause {
                Some(error) => error.into(),
                None if found.retired == Some(false) => EvacuateError::InService { limit },
                None => EvacuateError::Unsteady { limit },
            });
        }
        match rules.on_timeout {
            OnTimeout::Fail => Err(EvacuateError::Left { found, limit, cause }),
            OnTimeout::Proceed => Ok(Emptied::Left(found)),
            OnTimeout::Force if !self.platform.knows(Verb::Force) => Err(EvacuateError::NoForce { found }),
            OnTimeout::Force => {
                self.platform.call(Verb::Force, self.words).await?;
                let deadline = Instant::now() + AFTER_FORCE.get();
                match self.until_empty(deadline).await? {
                    Some(_empty) => Ok(Emptied::Forced(found)),
                    None => Err(EvacuateError::Left {
                        found: self.last.take().unwrap_or(found),
                        limit: AFTER_FORCE,
                        cause: None,
                    }),
                }
            }
        }
    }
}
