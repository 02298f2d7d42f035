//! The file of users, and what each line says about a secret.
//!
//! ```text
//! node:sha256:<hex digest>     a secret that a machine has made: a digest of 24 random bytes cannot be guessed at whatever speed
//! ada:$2y$10$…                 a password that a person has chosen: bcrypt, as `htpasswd -B` writes it, slow on purpose
//! ```
//!
//! The file is looked at once a second at most. One that cannot be read lets nobody in.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use bcrypt::HashParts;
use kato_shared::Digest;
use tokio::time::Instant;

/// How long the file is taken to be as it was.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// `htpasswd` goes up to 17, which takes some ten seconds: whoever logs in would be taken for hanging, and keep a core busy.
const DEAREST: u32 = 15;

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) secret: Secret,
}

/// What is known of a secret.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Secret {
    /// Its digest.
    Machine(Digest),
    /// What bcrypt has made of it, in the form of the file.
    Person(Arc<str>),
}

impl User {
    /// Whether `secret` is its own, where that is told without delay.
    pub(super) fn is_machine_with(&self, secret: &Digest) -> bool {
        matches!(&self.secret, Secret::Machine(own)
            if verify_slices_are_equal(own.as_bytes(), secret.as_bytes()).is_ok())
    }

    /// Another one as soon as the line says something else: what was given to this user ends then.
    pub(super) fn mark(&self) -> String {
        let secret = match &self.secret {
            Secret::Machine(digest) => digest.hex(),
            Secret::Person(hash) => hash.to_string(),
        };
        let mut mark = Digest::of(format!("{}\0{secret}", self.name).as_bytes()).hex();
        mark.truncate(16);
        mark
    }
}

/// The lines of the file.
#[derive(Debug, Default)]
pub(super) struct Users(Vec<User>);

impl Users {
    pub(super) fn named(&self, name: &str) -> Option<&User> {
        self.0.iter().find(|user| user.name == name)
    }

    /// Who has this secret, of those whose secrets are no two people's by chance.
    pub(super) fn machine_with(&self, secret: &Digest) -> Option<&User> {
        self.0.iter().find(|user| user.is_machine_with(secret))
    }

    /// Some line that takes its time: who names nobody should wait as long as who errs.
    pub(super) fn some_person(&self) -> Option<&Arc<str>> {
        self.0.iter().find_map(|user| match &user.secret {
            Secret::Person(hash) => Some(hash),
            Secret::Machine(_) => None,
        })
    }
}

/// The file, and what was read in it.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    read: Mutex<Option<Read>>,
}

#[derive(Debug)]
struct Read {
    looked: Instant,
    stamp: Option<(SystemTime, u64)>,
    users: Arc<Users>,
}

impl File {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            read: Mutex::new(None),
        }
    }

    /// The users of the file as it is now, or was a second ago.
    pub(super) fn users(&self) -> Arc<Users> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some(known) = read.as_ref().filter(|known| now < known.looked + LOOK_EVERY) {
            return Arc::clone(&known.users);
        }
        let stamp = std::fs::metadata(&self.path)
            .and_then(|found| Ok((found.modified()?, found.len())))
            .ok();
        if let Some(known) = read
            .as_mut()
            .filter(|known| stamp.is_some() && known.stamp == stamp)
        {
            known.looked = now;
            return Arc::clone(&known.users);
        }
        let users = std::fs::read_to_string(&self.path)
            .map_err(|error| error.to_string())
            .and_then(|text| parse(&text))
            .unwrap_or_else(|error| {
                tracing::error!(path = %self.path.display(), error, "registry.users_file cannot be used; nobody is let in");
                Users::default()
            });
        let users = Arc::new(users);
        *read = Some(Read {
            looked: now,
            stamp,
            users: Arc::clone(&users),
        });
        users
    }
}

/// The users of a file; empty lines and lines that begin with `#` say nothing.
fn parse(text: &str) -> Result<Users, String> {
    let lines = text.lines().enumerate().map(|(nth, line)| (nth + 1, line.trim()));
    let users = lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(nth, line)| {
            let (name, secret) = line.split_once(':').unwrap_or_default();
            let secret = read(secret).filter(|_| !name.is_empty()).ok_or_else(|| {
                format!(
                    "line {nth}: expected name:sha256:<64 hexadecimal digits>, or name:$2y$… of `htpasswd -B` with a cost of at most {DEAREST}"
                )
            })?;
            Ok(User {
                name: name.to_owned(),
                secret,
            })
        })
        .collect::<Result<_, String>>()?;
    Ok(Users(users))
}

fn read(secret: &str) -> Option<Secret> {
    if secret.starts_with("sha256:") {
        return secret.parse().ok().map(Secret::Machine);
    }
    let parts: HashParts = secret.parse().ok()?;
    (4..=DEAREST)
        .contains(&parts.get_cost())
        .then(|| Secret::Person(secret.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `htpasswd -nbB -C 4 ada opensesame`.
    const ADA: &str = "ada:$2y$04$0RjH4FzSBaKxAcmgS7yN2Oouvj3iNIQq7Pl4haJTzLyE4b/V2cu42";

    #[test]
    fn lines_are_digests_or_of_htpasswd_and_nothing_else() {
        let node = format!("node:{}", Digest::of(b"s3cret"));
        let users = parse(&format!("# nodes\n\n{node}\n{ADA}\n")).unwrap();
        assert!(
            users
                .named("node")
                .unwrap()
                .is_machine_with(&Digest::of(b"s3cret"))
        );
        assert!(
            !users
                .named("node")
                .unwrap()
                .is_machine_with(&Digest::of(b"other"))
        );
        assert_eq!(users.machine_with(&Digest::of(b"s3cret")).unwrap().name, "node");
        assert!(users.some_person().is_some() && users.named("eve").is_none());
        for wrong in [
            "node",
            ":sha256:00",
            "node:sha256:00",
            "node:secret",
            "node:{SHA}abc",
            "node:$apr1$a$b",
            "ada:$2y$16$0RjH4FzSBaKxAcmgS7yN2Oouvj3iNIQq7Pl4haJTzLyE4b/V2cu42",
        ] {
            let refused = parse(&format!("{node}\n{wrong}\n")).unwrap_err();
            assert!(
                refused.starts_with("line 2: expected name:sha256:"),
                "{wrong}: {refused}"
            );
        }
    }

    #[test]
    fn a_mark_changes_with_the_line() {
        let mark = |line: &str| parse(line).unwrap().0[0].mark();
        let node = |secret: &[u8]| mark(&format!("node:{}", Digest::of(secret)));
        assert_eq!(node(b"a"), node(b"a"));
        assert_ne!(node(b"a"), node(b"b"));
        assert_ne!(mark(ADA), mark(&ADA.replace("ada", "eve")));
    }
}
