//! Collapsed requests: at most one origin request per cache key and variant, however many clients ask.
//!
//! Flow: the first to [`Collapse::join`] gets a [`FillPermit`], everyone else a [`Joiner`] that waits for what the permit's
//! holder makes known: the head of a response that may be shared, or that there is nothing to share. A permit that is dropped
//! before it says anything wakes the joiners, and the first of them to come back gets the next permit.
//!
//! While the head of a flight is not known, every request for the key waits for it: whether `Vary` separates them can
//! only be known then. Afterwards only requests that the head's selecting fields match join it; others fly on their own.
//!
//! Deliberately absent: timers. A flight ends when its task ends, and the task has deadlines of its own.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use http::HeaderMap;
use tokio::sync::{Notify, watch};

use crate::quick_map::QuickMap;

/// What can be known about a flight.
#[derive(Debug)]
pub enum State<S> {
    /// The origin has not answered.
    Waiting,
    /// This is shared with everyone whose request matches.
    Shared(Arc<S>),
    /// What came is not to be shared: each joiner asks for itself.
    Private,
    /// What came is for whoever asked like the one that began: a joiner that does not joins again.
    Personal,
    /// The holder is gone: join again.
    Abandoned,
}

impl<S> Clone for State<S> {
    fn clone(&self) -> Self {
        match self {
            Self::Waiting => Self::Waiting,
            Self::Shared(shared) => Self::Shared(Arc::clone(shared)),
            Self::Private => Self::Private,
            Self::Personal => Self::Personal,
            Self::Abandoned => Self::Abandoned,
        }
    }
}

/// What a flight shares: it can tell which requests it answers.
pub trait Answers {
    /// Whether a request with these fields is answered, too.
    fn answers(&self, request: &HeaderMap) -> bool;

    /// Whether everything has been received, and only storing it is left.
    fn is_received(&self) -> bool;

    /// Whether this is a failure: it is for those who waited for it. Who comes later asks anew, and may fare better.
    fn is_failure(&self) -> bool;
}

/// All flights of the process.
#[derive(Debug)]
pub struct Collapse<S>(Arc<Mutex<Flights<S>>>);

type Flights<S> = QuickMap<Arc<str>, Vec<Flight<S>>>;

#[derive(Debug)]
struct Flight<S> {
    id: u64,
    state: watch::Receiver<State<S>>,
    tainted: Arc<AtomicBool>,
    left: Arc<Notify>,
}

impl<S> Flight<S> {
    fn joiner(&self) -> Joiner<S> {
        Joiner {
            state: self.state.clone(),
            _leaving: Leaving(Arc::clone(&self.left)),
        }
    }
}

impl<S> Clone for Collapse<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Default for Collapse<S> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// Flights have numbers of their own, so that one that was tainted cannot end its successor.
static NEXT_FLIGHT: AtomicU64 = AtomicU64::new(0);

/// The receiver that all who come later get theirs from.
const IN_THE_MAP: usize = 1;

/// What a request gets.
#[derive(Debug)]
pub enum Joined<S> {
    /// The right, and the duty, to ask the origin.
    Lead(FillPermit<S>),
    /// Somebody else is asking.
    Follow(Joiner<S>),
}

impl<S: Answers> Collapse<S> {
    /// Joins a flight for `key` that answers `request`, or begins one.
    pub fn join(&self, key: &str, request: &HeaderMap) -> Joined<S> {
        let mut flights = self.lock();
        let key: Arc<str> = key.into();
        let of_key = flights.entry(Arc::clone(&key)).or_default();
        let follow = of_key.iter().find(|flight| match &*flight.state.borrow() {
            State::Waiting => true,
            State::Shared(shared) => !shared.is_failure() && shared.answers(request),
            State::Private | State::Personal | State::Abandoned => false,
        });
        if let Some(flight) = follow {
            return Joined::Follow(flight.joiner());
        }
        let id = NEXT_FLIGHT.fetch_add(1, Ordering::Relaxed);
        let (state, watched) = watch::channel(State::Waiting);
        let tainted = Arc::new(AtomicBool::new(false));
        let left = Arc::new(Notify::new());
        of_key.push(Flight {
            id,
            state: watched,
            tainted: Arc::clone(&tainted),
            left: Arc::clone(&left),
        });
        Joined::Lead(FillPermit {
            collapse: self.clone(),
            key,
            id,
            state,
            tainted,
            left,
        })
    }

    /// An unsafe request changed what `key` names: what is on its way may be from before. Nobody new joins it, and it is
    /// not to be stored.
    ///
    /// Returns the flights for which that may come too late, as they are being stored: once they have ended, what they
    /// stored can be invalidated.
    pub fn taint(&self, key: &str) -> Vec<Joiner<S>> {
        let tainted = self.lock().remove(key).unwrap_or_default();
        tainted
            .into_iter()
            .filter_map(|flight| {
                // First the mark, then the look: a flight publishes its end before it looks for the mark.
                flight.tainted.store(true, Ordering::SeqCst);
                let is_settling =
                    matches!(&*flight.state.borrow(), State::Shared(shared) if shared.is_received());
                is_settling.then(|| flight.joiner())
            })
            .collect()
    }

    /// A flight for `key` that has received everything and is being stored.
    pub fn settling(&self, key: &str) -> Option<Joiner<S>> {
        let flights = self.lock();
        let settling = flights.get(key)?.iter().find(
            |flight| matches!(&*flight.state.borrow(), State::Shared(shared) if shared.is_received()),
        )?;
        Some(settling.joiner())
    }

    /// Flights under way.
    pub fn len(&self) -> usize {
        self.lock().values().map(Vec::len).sum()
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<S> Collapse<S> {
    fn lock(&self) -> MutexGuard<'_, Flights<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to ask the origin. The flight lasts as long as this value; it is not `Clone`, so that it ends with its task.
#[derive(Debug)]
pub struct FillPermit<S> {
    collapse: Collapse<S>,
    key: Arc<str>,
    id: u64,
    state: watch::Sender<State<S>>,
    tainted: Arc<AtomicBool>,
    left: Arc<Notify>,
}

impl<S> FillPermit<S> {
    /// Whether what this flight brings may be out of date already.
    pub fn is_tainted(&self) -> bool {
        self.tainted.load(Ordering::SeqCst)
    }

    /// Ends when nobody is in this flight who waits for what it brings; whoever comes then finds it all the same.
    ///
    /// # Cancel safety
    /// May be dropped and asked anew.
    pub async fn deserted(&self) {
        // One that left since the last look has left a permit here.
        while self.state.receiver_count() > IN_THE_MAP {
            self.left.notified().await;
        }
    }

    /// Lets everyone who matches join. The flight stays joinable until the permit is dropped.
    pub fn share(&self, shared: Arc<S>) {
        self.state.send_replace(State::Shared(shared));
    }

    /// What was shared turned out to be nothing worth joining: whoever comes from now on waits for what is said next.
    pub fn reopen(&self) {
        self.state.send_replace(State::Waiting);
    }

    /// Sends everyone who waits on their own way, and ends the flight.
    pub fn keep_private(self) {
        self.state.send_replace(State::Private);
    }

    /// As [`Self::keep_private`], where what came may follow from who asked.
    pub fn keep_personal(self) {
        self.state.send_replace(State::Personal);
    }
}

impl<S> Drop for FillPermit<S> {
    fn drop(&mut self) {
        {
            let mut flights = self.collapse.lock();
            if let Some(of_key) = flights.get_mut(&*self.key) {
                of_key.retain(|flight| flight.id != self.id);
                if of_key.is_empty() {
                    flights.remove(&*self.key);
                }
            }
        }
        // Out of the map first: who wakes up now and joins again must not find this flight.
        self.state.send_if_modified(|state| {
            let is_silent = matches!(state, State::Waiting);
            if is_silent {
                *state = State::Abandoned;
            }
            is_silent
        });
    }
}

/// A place in somebody else's flight.
#[derive(Debug)]
pub struct Joiner<S> {
    state: watch::Receiver<State<S>>,
    /// Dropped after the receiver, which then counts no more.
    _leaving: Leaving,
}

/// Says that a joiner has left.
#[derive(Debug)]
struct Leaving(Arc<Notify>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl<S> Joiner<S> {
    /// Waits until the flight has something to say; never returns [`State::Waiting`].
    ///
    /// # Cancel safety
    /// Dropping it leaves the flight.
    pub async fn outcome(&mut self) -> State<S> {
        match self
            .state
            .wait_for(|state| !matches!(state, State::Waiting))
            .await
        {
            Ok(state) => state.clone(),
            Err(_sender_gone) => State::Abandoned,
        }
    }

    /// Waits until the flight is over and what it brought is stored, or not.
    ///
    /// # Cancel safety
    /// Dropping it leaves the flight.
    pub async fn ended(mut self) {
        while self.state.changed().await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Head(&'static str);

    impl Answers for Head {
        fn answers(&self, request: &HeaderMap) -> bool {
            request.get("accept").is_some_and(|value| value == self.0)
        }

        fn is_received(&self) -> bool {
            self.0 == "received"
        }

        fn is_failure(&self) -> bool {
            self.0 == "failure"
        }
    }

    fn accept(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(http::header::ACCEPT, http::HeaderValue::from_static(value))])
    }

    fn lead(collapse: &Collapse<Head>, accepted: &'static str) -> FillPermit<Head> {
        match collapse.join("k", &accept(accepted)) {
            Joined::Lead(permit) => permit,
            Joined::Follow(_) => panic!("a flight was joined"),
        }
    }

    fn follow(collapse: &Collapse<Head>, accepted: &'static str) -> Joiner<Head> {
        match collapse.join("k", &accept(accepted)) {
            Joined::Follow(joiner) => joiner,
            Joined::Lead(_) => panic!("a second flight began"),
        }
    }

    #[tokio::test]
    async fn all_who_match_share_one_flight_and_others_fly_on_their_own() {
        let collapse = Collapse::default();
        let permit = lead(&collapse, "a");
        let mut waiting = follow(&collapse, "b");
        permit.share(Arc::new(Head("a")));
        assert!(matches!(waiting.outcome().await, State::Shared(head) if !head.answers(&accept("b"))));
        assert!(matches!(follow(&collapse, "a").outcome().await, State::Shared(_)));
        let other = lead(&collapse, "b");
        assert_eq!(collapse.len(), 2);
        drop((permit, other));
        assert!(collapse.is_empty());
    }

    #[tokio::test]
    async fn a_failure_is_told_to_those_who_waited_and_to_nobody_who_comes_before_its_flight_has_ended() {
        let collapse = Collapse::default();
        let permit = lead(&collapse, "failure");
        let mut waiting = follow(&collapse, "failure");
        permit.share(Arc::new(Head("failure")));
        assert!(matches!(waiting.outcome().await, State::Shared(head) if head.is_failure()));
        let next = lead(&collapse, "failure");
        drop(permit);
        let _joined = follow(&collapse, "failure");
        drop(next);
        assert!(collapse.is_empty());
    }

    #[tokio::test]
    async fn a_flight_is_deserted_when_the_last_who_joined_has_left() {
        let collapse = Collapse::default();
        let permit = lead(&collapse, "a");
        permit.deserted().await;
        let (one, other) = (follow(&collapse, "a"), follow(&collapse, "a"));
        let deserted = permit.deserted();
        tokio::pin!(deserted);
        let mut look = async || {
            std::future::poll_fn(|cx| std::task::Poll::Ready(deserted.as_mut().poll(cx).is_ready())).await
        };
        assert!(!look().await);
        drop(one);
        assert!(!look().await);
        drop(other);
        assert!(look().await);
    }

    #[tokio::test]
    async fn a_permit_that_is_dropped_elects_the_next() {
        let collapse = Collapse::default();
        let permit = lead(&collapse, "a");
        let mut first = follow(&collapse, "a");
        let mut second = follow(&collapse, "a");
        drop(permit);
        assert!(matches!(first.outcome().await, State::Abandoned));
        let _elected = lead(&collapse, "a");
        assert!(matches!(second.outcome().await, State::Abandoned));
        let _joined = follow(&collapse, "a");
    }

    #[tokio::test]
    async fn a_tainted_flight_is_joined_no_more_and_its_end_leaves_its_successor_alone() {
        let collapse = Collapse::default();
        let before = lead(&collapse, "a");
        assert!(collapse.taint("k").is_empty());
        let after = lead(&collapse, "a");
        assert!(before.is_tainted() && !after.is_tainted());
        drop(before);
        let _joined = follow(&collapse, "a");
    }

    #[tokio::test]
    async fn a_flight_that_only_has_to_be_stored_is_found_until_it_is() {
        let collapse = Collapse::default();
        let permit = lead(&collapse, "received");
        assert!(collapse.settling("k").is_none());
        permit.share(Arc::new(Head("received")));
        let settling = collapse.settling("k").unwrap();
        drop(permit);
        settling.ended().await;
        assert!(collapse.settling("k").is_none());
    }

    #[tokio::test]
    async fn whoever_taints_a_flight_that_is_being_stored_can_wait_for_its_end() {
        let collapse = Collapse::default();
        let permit = lead(&collapse, "received");
        permit.share(Arc::new(Head("received")));
        let mut settling = collapse.taint("k");
        let ended = settling.pop().unwrap().ended();
        tokio::pin!(ended);
        assert!(
            std::future::poll_fn(|cx| std::task::Poll::Ready(ended.as_mut().poll(cx)))
                .await
                .is_pending()
        );
        drop(permit);
        ended.await;
    }

    #[tokio::test]
    async fn what_is_private_is_not_shared() {
        let collapse = Collapse::default();
        let permit = lead(&collapse, "a");
        let mut waiting = follow(&collapse, "a");
        permit.keep_private();
        assert!(matches!(waiting.outcome().await, State::Private));
        assert!(collapse.is_empty());
    }
}
