//! Names to addresses: asked of this host's own resolver, in bounded time, and remembered.
//!
//! Flow: an answer is used for [`Lifetimes::fresh`]; then the next request asks again, once for all who want the same name. An
//! answer that cannot be renewed is used on (a mirror must survive the death of its name service), and from the second failure on
//! nobody waits: the question is asked beside the request.
//!
//! Deliberately absent: the records' own TTLs, which the system's resolver does not tell; a short time of our own stands in.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, ToSocketAddrs},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, watch},
    task::spawn_blocking,
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;

/// Questions to the system's resolver at once: each holds a thread for as long as the resolver likes.
const QUESTIONS: usize = 16;
/// After a failure the next question waits this long, so that a dead name service is not hammered.
const PAUSE: Duration = Duration::from_secs(5);
/// Names remembered. Only hosts of upstreams and of their redirects are asked for; a redirect chain may invent names.
const MAX_NAMES: usize = 1024;

/// What answers questions. Blocking: it runs on a thread of its own.
pub(super) trait Lookup: Send + Sync + 'static {
    /// The addresses of `host`, best first.
    fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// `getaddrinfo`, which orders addresses as RFC 6724 says.
#[derive(Debug)]
pub(super) struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
    }
}

/// How long things may take and count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lifetimes {
    /// A question is waited for this long.
    pub(super) timeout: Duration,
    /// An answer is used this long without asking again.
    pub(super) fresh: Duration,
}

/// The resolver; clones share what it knows.
#[derive(Clone)]
pub(super) struct Resolver(Arc<Inner>);

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

struct Inner {
    lookup: Arc<dyn Lookup>,
    lifetimes: Lifetimes,
    names: Arc<Mutex<HashMap<String, Known>>>,
    questions: Arc<Semaphore>,
    tasks: TaskTracker,
}

/// What is known about a name.
#[derive(Debug)]
struct Known {
    addresses: Arc<[IpAddr]>,
    /// Until when nobody asks.
    settled_until: Instant,
    /// The last question brought no answer.
    is_failing: bool,
    /// The question under way; its end is told with or without an answer.
    question: Option<watch::Receiver<Option<Outcome>>>,
}

type Outcome = Result<Arc<[IpAddr]>, io::ErrorKind>;

impl Resolver {
    pub(super) fn new(lookup: impl Lookup, lifetimes: Lifetimes) -> Self {
        Self(Arc::new(Inner {
            lookup: Arc::new(lookup),
            lifetimes,
            names: Arc::default(),
            questions: Arc::new(Semaphore::new(QUESTIONS)),
            tasks: TaskTracker::new(),
        }))
    }

    /// The same knowledge, under other lifetimes.
    pub(super) fn with(&self, lifetimes: Lifetimes) -> Self {
        Self(Arc::new(Inner {
            lookup: Arc::clone(&self.0.lookup),
            lifetimes,
            names: Arc::clone(&self.0.names),
            questions: Arc::clone(&self.0.questions),
            tasks: self.0.tasks.clone(),
        }))
    }

    /// The addresses of the name `host`. Never empty.
    ///
    /// # Errors
    /// When the name is unknown, or the name service does not answer in time and never did.
    pub(super) async fn resolve(&self, host: &str) -> io::Result<Arc<[IpAddr]>> {
        let (mut question, stand_in) = {
            let mut names = self.lock();
            let now = Instant::now();
            let known = names.get(host);
            if let Some(known) =
                known.filter(|known| now < known.settled_until && !known.addresses.is_empty())
            {
                return Ok(Arc::clone(&known.addresses));
            }
            let stand_in = known.filter(|known| !known.addresses.is_empty());
            let (is_failing, stand_in) = (
                stand_in.is_some_and(|known| known.is_failing),
                stand_in.map(|known| Arc::clone(&known.addresses)),
            );
            let question = self.ask(&mut names, host, now);
            if let (true, Some(addresses)) = (is_failing, &stand_in) {
                return Ok(Arc::clone(addresses));
            }
            (question, stand_in)
        };
        let answer = timeout(self.0.lifetimes.timeout, question.wait_for(Option::is_some)).await;
        let answer = match answer {
            Ok(Ok(outcome)) => outcome.clone(),
            Ok(Err(_asker_gone)) => None,
            Err(_elapsed) => None,
        };
        let failure = match answer {
            Some(Ok(addresses)) => return Ok(addresses),
            Some(Err(kind)) => kind,
            None => io::ErrorKind::TimedOut,
        };
        self.failed(host);
        match stand_in {
            Some(addresses) => {
                tracing::warn!(
                    host,
                    "the name service does not answer; the addresses known before are used"
                );
                Ok(addresses)
            }
            None => Err(io::Error::new(
                failure,
                format!("the name `{host}` cannot be resolved"),
            )),
        }
    }

    /// The question for `host` that is under way, begun if there is none.
    fn ask(
        &self,
        names: &mut HashMap<String, Known>,
        host: &str,
        now: Instant,
    ) -> watch::Receiver<Option<Outcome>> {
        if !names.contains_key(host) && names.len() >= MAX_NAMES {
            names.retain(|_, known| known.question.is_some() || now < known.settled_until);
        }
        let known = names.entry(host.to_owned()).or_insert_with(|| Known {
            addresses: Arc::new([]),
            settled_until: now,
            is_failing: false,
            question: None,
        });
        if let Some(under_way) = &known.question {
            return under_way.clone();
        }
        let (told, question) = watch::channel(None);
        known.question = Some(question.clone());
        let (resolver, host) = (self.clone(), host.to_owned());
        self.0.tasks.spawn(async move {
            let outcome = resolver.answer(&host).await;
            resolver.learn(&host, &outcome);
            told.send_replace(Some(outcome));
        });
        question
    }

    async fn answer(&self, host: &str) -> Outcome {
        let Ok(permit) = Arc::clone(&self.0.questions).acquire_owned().await else {
            return Err(io::ErrorKind::Interrupted);
        };
        let (lookup, host) = (Arc::clone(&self.0.lookup), host.to_owned());
        let found = spawn_blocking(move || {
            let found = lookup.lookup(&host);
            drop(permit);
            found
        });
        match found.await {
            Ok(Ok(addresses)) if addresses.is_empty() => Err(io::ErrorKind::NotFound),
            Ok(Ok(addresses)) => Ok(addresses.into()),
            Ok(Err(error)) => Err(error.kind()),
            Err(_panicked) => Err(io::ErrorKind::Other),
        }
    }

    fn learn(&self, host: &str, outcome: &Outcome) {
        let mut names = self.lock();
        let Some(known) = names.get_mut(host) else { return };
        known.question = None;
        if let Ok(addresses) = outcome {
            known.addresses = Arc::clone(addresses);
            known.settled_until = Instant::now() + self.0.lifetimes.fresh;
            known.is_failing = false;
        }
    }

    fn failed(&self, host: &str) {
        let mut names = self.lock();
        if let Some(known) = names.get_mut(host) {
            known.is_failing = true;
            known.settled_until = Instant::now() + PAUSE;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.0.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Answers as the test says, and counts.
    #[derive(Default)]
    pub(in crate::origin) struct Scripted {
        pub(in crate::origin) answers: Mutex<Vec<Option<Vec<IpAddr>>>>,
        pub(in crate::origin) asked: AtomicUsize,
    }

    impl Lookup for Arc<Scripted> {
        fn lookup(&self, _: &str) -> io::Result<Vec<IpAddr>> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let mut answers = self.answers.lock().unwrap();
            let answer = if answers.len() > 1 {
                answers.remove(0)
            } else {
                answers[0].clone()
            };
            answer.ok_or_else(|| io::ErrorKind::NotConnected.into())
        }
    }

    fn resolver(answers: &[Option<[u8; 4]>], fresh: Duration) -> (Resolver, Arc<Scripted>) {
        let answers = answers
            .iter()
            .map(|one| one.map(|octets| vec![IpAddr::from(octets)]));
        let scripted = Arc::new(Scripted {
            answers: Mutex::new(answers.collect()),
            asked: AtomicUsize::new(0),
        });
        let lifetimes = Lifetimes {
            timeout: Duration::from_secs(5),
            fresh,
        };
        (Resolver::new(Arc::clone(&scripted), lifetimes), scripted)
    }

    const ONE: [u8; 4] = [192, 0, 2, 1];

    #[tokio::test]
    async fn an_answer_is_asked_for_once_while_it_is_fresh() {
        let (resolver, scripted) = resolver(&[Some(ONE)], Duration::from_secs(60));
        let all = tokio::join!(
            resolver.resolve("a"),
            resolver.resolve("a"),
            resolver.resolve("a")
        );
        assert_eq!(*all.0.unwrap(), [IpAddr::from(ONE)]);
        assert!(all.1.is_ok() && all.2.is_ok());
        resolver.resolve("a").await.unwrap();
        assert_eq!(scripted.asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn p09_an_answer_known_before_survives_a_dead_name_service() {
        let (resolver, scripted) = resolver(&[Some(ONE), None], Duration::ZERO);
        for _ in 0..3 {
            assert_eq!(*resolver.resolve("a").await.unwrap(), [IpAddr::from(ONE)]);
        }
        // The first failure is paid for; then the answer is settled for a while.
        assert_eq!(scripted.asked.load(Ordering::SeqCst), 2);
        assert!(resolver.resolve("b").await.is_err());
    }

    struct Hanging(std::sync::mpsc::Sender<()>, Mutex<std::sync::mpsc::Receiver<()>>);

    impl Lookup for Hanging {
        fn lookup(&self, _: &str) -> io::Result<Vec<IpAddr>> {
            let _end = self.1.lock().unwrap().recv();
            drop(self.0.clone());
            Ok(Vec::new())
        }
    }

    #[tokio::test]
    async fn a_name_service_that_hangs_is_not_waited_for_beyond_the_timeout() {
        let (end, ends) = std::sync::mpsc::channel();
        let lifetimes = Lifetimes {
            timeout: Duration::from_millis(20),
            fresh: Duration::from_secs(1),
        };
        let resolver = Resolver::new(Hanging(end.clone(), Mutex::new(ends)), lifetimes);
        let failed = resolver.resolve("a").await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        end.send(()).unwrap();
    }
}
