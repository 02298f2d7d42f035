//! Who may use the door, and for what: users with a secret each, in a file of the operator's.
//!
//! ```text
//! Basic name:secret    the line of the file says (see `users`): at once for what machines have made, by bcrypt for passwords
//! Bearer secret        the same, for a secret that a machine has made
//! Bearer token         what `/-/token` gave for name and secret a moment ago (see `tokens`)
//! ```
//!
//! bcrypt is slow on purpose. So it runs beside the workers, few at a time, and what it has proved is remembered as a seal over line
//! and secret: [`Guests::who`] answers at once for whoever is known, and says [`Seen::Claim`] for whoever is not. What is refused
//! takes as long for names that are in the file as for others. Of one client's passwords one is verified at a time, and few wait
//! ([`Seen::Crowded`] beyond): a client that guesses delays itself.
//!
//! Invariant: nothing is remembered that outlives the line of the file from which it follows, for more than a second.

mod guest;
mod queues;
mod rights;
mod shown;
mod tokens;
mod users;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::HeaderMap;
use jiff::Timestamp;
use kato_shared::{Digest, chain::Chain, settings::HumanDuration};
use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::settings::Registry;
pub(crate) use guest::{Guest, Leave};
use queues::Queues;
use rights::{Reach, Rights};
use shown::Shown;
pub(crate) use shown::basic;
use tokens::{Key, Seal, Token, end};
use users::{File, Secret, User, Users};

/// Passwords that are verified at a time: they are work for a core each, and whoever guesses must not get more of them.
const AT_A_TIME: usize = 2;
/// The most repositories that one token is for; clients name one or two.
const MOST_SCOPES: usize = 32;

/// See the module. Clones share what was read and proved.
#[derive(Debug, Clone, Default)]
pub(crate) enum Guests {
    /// There is no file: whoever the networks allow.
    #[default]
    Everybody,
    /// There is no telling who is who.
    Nobody,
    /// The users of a file.
    Listed(Arc<Door>),
}

/// The file, and what follows from it.
#[derive(Debug)]
pub(crate) struct Door {
    file: File,
    rights: Rights,
    token_lifetime: Option<Duration>,
    keeper: Keeper,
}

/// What outlives a change of the settings: the key, and the passwords that were proved.
#[derive(Debug, Clone)]
struct Keeper {
    key: Key,
    /// By user; no more than the file has lines.
    proved: Arc<Mutex<HashMap<String, Seal>>>,
    at_work: Arc<Semaphore>,
    queues: Queues,
}

/// Who has sent a request.
#[derive(Debug)]
pub(crate) enum Seen {
    /// Somebody who may use the door.
    Guest(Guest),
    /// Nobody that is known.
    Stranger,
    /// Somebody with a password that is to be verified.
    Claim(Claim),
    /// Somebody with a password, of whose others enough are being verified.
    Crowded,
}

/// Why there is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotGiven {
    /// Name and secret are not those of a user.
    Stranger,
    /// As [`Seen::Crowded`].
    Crowded,
}

/// A password against a line of the file.
#[derive(Debug)]
pub(crate) struct Claim {
    secret: Vec<u8>,
    hash: Arc<str>,
    /// Whose line it is; `None` where the name is in no line, or the line is not of this kind.
    user: Option<String>,
}

/// What a guest gets at the token service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Given {
    /// The text of the token.
    pub(crate) token: String,
    /// How long it is good.
    pub(crate) lifetime: Duration,
}

impl Guests {
    /// Those of `settings`; without a file everybody is a guest. What `before` has proved stays proved.
    pub(crate) fn new(settings: &Registry, before: Option<&Self>) -> Self {
        let Some(path) = &settings.users_file else {
            return Self::Everybody;
        };
        let before = before.and_then(Self::door);
        let Some(keeper) = before.map(|door| door.keeper.clone()).or_else(Keeper::new) else {
            return Self::Nobody;
        };
        Self::Listed(Arc::new(Door {
            file: File::new(path),
            rights: Rights::new(&settings.rights),
            token_lifetime: settings.token_lifetime.map(HumanDuration::get),
            keeper,
        }))
    }

    /// Whether everybody may use the door.
    pub(crate) const fn is_everybody(&self) -> bool {
        matches!(self, Self::Everybody)
    }

    /// Whether what one guest may pull another may not.
    pub(crate) fn differ(&self) -> bool {
        self.door().is_some_and(|door| door.rights.is_restricted())
    }

    /// Whether name and secret can be changed for a token.
    pub(crate) fn give_tokens(&self) -> bool {
        self.door().is_some_and(|door| door.token_lifetime.is_some())
    }

    fn door(&self) -> Option<&Door> {
        match self {
            Self::Listed(door) => Some(door),
            Self::Everybody | Self::Nobody => None,
        }
    }

    /// Who has sent a request with `headers` at `now`, as far as that is told without delay.
    pub(crate) fn who(&self, headers: &HeaderMap, now: Timestamp) -> Seen {
        let door = match self {
            Self::Listed(door) => door,
            Self::Nobody => return Seen::Stranger,
            Self::Everybody => {
                return Seen::Guest(Guest {
                    reach: Reach::All,
                    token: None,
                });
            }
        };
        let users = door.file.users();
        match Shown::of(headers) {
            None => Seen::Stranger,
            Some(Shown::Basic(name, secret)) => door.by_name(&users, &name, secret),
            Some(Shown::Bearer(text)) => door
                .by_token(&users, &text, now)
                .or_else(|| {
                    let user = users.machine_with(&Digest::of(text.as_bytes()))?;
                    Some(door.guest(user))
                })
                .map_or(Seen::Stranger, Seen::Guest),
        }
    }

    /// As [`Guests::who`], of somebody at `client`, with all the time that it takes. Never a claim.
    ///
    /// # Cancel safety
    /// A password that is being verified goes on being so, and is remembered only for those who wait.
    pub(crate) async fn recognise(&self, headers: &HeaderMap, client: IpAddr, now: Timestamp) -> Seen {
        let seen = self.who(headers, now);
        let (Some(door), Seen::Claim(_)) = (self.door(), &seen) else {
            return seen;
        };
        let Some(queue) = door.keeper.queues.join(client) else {
            return Seen::Crowded;
        };
        let (Ok(_turn), Ok(_place)) = (queue.acquire().await, door.keeper.at_work.acquire().await) else {
            return Seen::Stranger;
        };
        // Clients come with many requests at once: whoever waited may find that another has proved the same.
        let Seen::Claim(claim) = self.who(headers, now) else {
            return self.who(headers, now);
        };
        let Claim { secret, hash, user } = claim;
        let verifying = spawn_blocking(move || {
            let holds = bcrypt::verify(&secret, &hash).unwrap_or(false);
            (holds, secret, hash)
        });
        match (verifying.await, user) {
            (Ok((true, secret, hash)), Some(user)) => {
                let seal = door.keeper.seal(&user, &hash, &secret);
                door.keeper.proved().insert(user, seal);
                match self.who(headers, now) {
                    Seen::Guest(guest) => Seen::Guest(guest),
                    Seen::Stranger | Seen::Claim(_) | Seen::Crowded => Seen::Stranger,
                }
            }
            _ => Seen::Stranger,
        }
    }

    /// A token for whoever shows name and secret in `headers`, for those of `repositories` (`UPSTREAM/REPOSITORY`) that it may
    /// pull; `list` for the lists of repositories, too.
    ///
    /// # Errors
    /// [`NotGiven`].
    pub(crate) async fn token(
        &self,
        headers: &HeaderMap,
        (repositories, list): (Vec<String>, bool),
        (client, now): (IpAddr, Timestamp),
    ) -> Result<Given, NotGiven> {
        let door = self.door().ok_or(NotGiven::Stranger)?;
        let lifetime = door.token_lifetime.ok_or(NotGiven::Stranger)?;
        let Some(Shown::Basic(name, _)) = Shown::of(headers) else {
            return Err(NotGiven::Stranger);
        };
        let guest = match self.recognise(headers, client, now).await {
            Seen::Guest(guest) => guest,
            Seen::Crowded => return Err(NotGiven::Crowded),
            Seen::Stranger | Seen::Claim(_) => return Err(NotGiven::Stranger),
        };
        let users = door.file.users();
        let may = repositories.into_iter().take(MOST_SCOPES);
        let token = Token {
            mark: users.named(&name).ok_or(NotGiven::Stranger)?.mark(),
            user: name,
            until: end(now, lifetime),
            may: may.filter(|repository| guest.reach.covers(repository)).collect(),
            list: list && guest.reach == Reach::All,
        };
        Ok(Given {
            token: door.keeper.key.sign(&token),
            lifetime,
        })
    }
}

impl Door {
    fn guest(&self, user: &User) -> Guest {
        Guest {
            reach: self.rights.of(&user.name),
            token: None,
        }
    }

    fn by_name(&self, users: &Users, name: &str, secret: Vec<u8>) -> Seen {
        let user = users.named(name);
        match user.map(|user| (user, &user.secret)) {
            Some((user, Secret::Machine(_))) if user.is_machine_with(&Digest::of(&secret)) => {
                return Seen::Guest(self.guest(user));
            }
            Some((user, Secret::Person(hash))) => {
                let seal = self.keeper.seal(name, hash, &secret);
                if self
                    .keeper
                    .proved()
                    .get(name)
                    .is_some_and(|known| known.is(&seal))
                {
                    return Seen::Guest(self.guest(user));
                }
                return Seen::Claim(Claim {
                    secret,
                    hash: Arc::clone(hash),
                    user: Some(name.to_owned()),
                });
            }
            Some((_, Secret::Machine(_))) | None => {}
        }
        users.some_person().map_or(Seen::Stranger, |hash| {
            Seen::Claim(Claim {
                secret,
                hash: Arc::clone(hash),
                user: None,
            })
        })
    }

    fn by_token(&self, users: &Users, text: &str, now: Timestamp) -> Option<Guest> {
        self.token_lifetime?;
        let token = self.keeper.key.read(text, now)?;
        let user = users
            .named(&token.user)
            .filter(|user| user.mark() == token.mark)?;
        Some(Guest {
            token: Some((token.may, token.list)),
            ..self.guest(user)
        })
    }
}

impl Keeper {
    fn new() -> Option<Self> {
        let key = Key::new().inspect_err(
            |error| tracing::error!(error = %Chain(error), "registry.users_file: nobody is let in"),
        );
        Some(Self {
            key: key.ok()?,
            proved: Arc::default(),
            at_work: Arc::new(Semaphore::new(AT_A_TIME)),
            queues: Queues::default(),
        })
    }

    fn seal(&self, name: &str, hash: &str, secret: &[u8]) -> Seal {
        self.key.seal(&[name.as_bytes(), hash.as_bytes(), secret])
    }

    fn proved(&self) -> MutexGuard<'_, HashMap<String, Seal>> {
        self.proved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
