use std::path::Path;

use jiff::Timestamp;

use super::*;

fn wanted() -> Wanted {
    Wanted {
        run: "r1".into(),
        about: "the upgrade to 2.0.0".into(),
        term: TERM,
    }
}

struct Core {
    _folder: tempfile::TempDir,
    paths: NodePaths,
    clock: Clock,
}

fn core() -> Core {
    let folder = tempfile::tempdir().unwrap();
    Core {
        paths: NodePaths::new(folder.path(), Path::new("/var/k")),
        _folder: folder,
        clock: Clock::held_at(Timestamp::UNIX_EPOCH),
    }
}

impl Core {
    async fn take(&self) -> Result<Lease, LeaseError> {
        Lease::take(&self.paths, &wanted(), &self.clock).await
    }

    /// As if the holder had been stopped for longer than its term.
    fn let_expire(&self) {
        let mut record = Record::load(&self.paths).unwrap().unwrap();
        record.term_secs = 1;
        record.renewed_uptime_secs = 0;
        record.save(&self.paths).unwrap();
    }
}

#[tokio::test]
async fn c03_tokens_grow_from_lease_to_lease_whatever_the_clock_does() {
    let core = core();
    let first = core.take().await.unwrap().token();
    assert_eq!(core.take().await.unwrap().token(), first + 1);
    // Core was set up again: its record is gone, and its clock has gone on.
    durable::remove(&core.paths.cluster_lease()).unwrap();
    core.clock.advance(jiff::SignedDuration::from_hours(1));
    assert_eq!(core.take().await.unwrap().token(), 3600);
}

#[tokio::test]
async fn c03_a_holder_at_work_is_named_and_cannot_be_robbed() {
    let core = core();
    let lease = core.take().await.unwrap();
    let error = core.take().await.unwrap_err();
    assert!(
        error.to_string().contains("the upgrade to 2.0.0") && error.to_string().contains("it is at work"),
        "{error}"
    );
    let error = break_silent(&core.paths).unwrap_err();
    let failure = Failure::from(error);
    assert_eq!(failure.exit, Exit::LockHeld);
    assert!(failure.hint.unwrap().contains("kill "));
    assert!(lease.holds());
}

#[tokio::test]
async fn c03_a_silent_holder_is_broken_by_hand_and_finds_out_at_its_next_renewal() {
    let core = core();
    let old = core.take().await.unwrap();
    core.let_expire();
    let refused = Failure::from(core.take().await.unwrap_err());
    assert!(
        refused
            .hint
            .unwrap()
            .contains("kato lock break --cluster --reason")
    );
    assert_eq!(break_silent(&core.paths).unwrap().unwrap().token, old.token());
    assert!(
        !old.holds() && !old.held.renew(),
        "it renewed a lock that nobody sees"
    );
    let new = core.take().await.unwrap();
    assert!(new.token() > old.token());
    assert!(!old.held.renew() && new.holds());
    // What it says of itself is written only by whoever has it.
    old.say("nonsense");
    assert_eq!(look(&core.paths).unwrap().0.about, "the upgrade to 2.0.0");
    new.say("plan p1");
    assert_eq!(look(&core.paths).unwrap().0.about, "plan p1");
}

#[tokio::test]
async fn c03_a_lease_that_ended_is_free() {
    let core = core();
    assert!(look(&core.paths).is_none());
    drop(core.take().await.unwrap());
    assert_eq!(look(&core.paths).unwrap().1, Standing::Free);
    assert_eq!(break_silent(&core.paths).unwrap(), None);
}
