//! Who runs this program: the user, the one who logged in, and from where.
//!
//! `sudo` empties the environment, and a detached run has lost its parents; so each answer is asked for at the place where it
//! survives longest: the login user in the kernel's audit, the client in the environment of this process or of the processes
//! that started it.

use std::{collections::BTreeMap, fs};

use serde::{Deserialize, Serialize};

/// Who does something. All of it but the user's number is what the machine says, and may be absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// The number of the user that the program runs as.
    pub uid: u32,
    /// The name of that user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The user who logged in, whoever he became since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// The user who called `sudo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sudo: Option<String>,
    /// The address that the SSH session came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_client: Option<String>,
}

/// How many processes are looked at upwards; a loop cannot be, a long chain of shells is not worth more.
const ANCESTORS: usize = 16;

impl Who {
    /// Who runs this process.
    pub fn here() -> Self {
        let uid = rustix::process::getuid().as_raw();
        let names = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let own = environment("self");
        let find = |name: &str| own.get(name).filter(|value| !value.is_empty()).cloned();
        let login = fs::read_to_string("/proc/self/loginuid").ok();
        Self {
            uid,
            user: name_of(&names, uid),
            login: login.and_then(|text| logged_in(&names, &text)),
            sudo: find("SUDO_USER"),
            ssh_client: client(&own).or_else(client_of_ancestors),
        }
    }

    /// One line for people.
    pub fn text(&self) -> String {
        let name = self.user.clone().unwrap_or_else(|| format!("uid {}", self.uid));
        let before = self.sudo.as_ref().or(self.login.as_ref());
        let before = before
            .filter(|before| **before != name)
            .map(|before| format!(" (logged in as {before})"));
        let client = self.ssh_client.as_ref().map(|client| format!(" from {client}"));
        [Some(name), before, client].into_iter().flatten().collect()
    }
}

/// The name of the user `uid` in a text like that of `/etc/passwd`.
fn name_of(passwd: &str, uid: u32) -> Option<String> {
    let wanted = uid.to_string();
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _password, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number == wanted).then(|| name.to_owned())
    })
}

/// The user of the login; nobody logged in where the kernel has the largest number.
fn logged_in(passwd: &str, loginuid: &str) -> Option<String> {
    let uid: u32 = loginuid.trim().parse().ok()?;
    (uid != u32::MAX).then(|| name_of(passwd, uid).unwrap_or_else(|| format!("uid {uid}")))
}

/// The first word of `SSH_CONNECTION` or `SSH_CLIENT`: the address of the other side.
fn client(environment: &BTreeMap<String, String>) -> Option<String> {
    let value = environment
        .get("SSH_CONNECTION")
        .or_else(|| environment.get("SSH_CLIENT"))?;
    value.split_whitespace().next().map(ToOwned::to_owned)
}

fn client_of_ancestors() -> Option<String> {
    let mut process = "self".to_owned();
    for _ in 0..ANCESTORS {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        process = parent(&stat)?;
        if process == "0" {
            return None;
        }
        if let Some(found) = client(&environment(&process)) {
            return Some(found);
        }
    }
    None
}

/// The parent in a line of `/proc/<pid>/stat`, whose second field is a name in parentheses that may hold anything.
fn parent(stat: &str) -> Option<String> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1).map(ToOwned::to_owned)
}

/// The variables that say where a session came from; the others are not even kept.
fn environment(process: &str) -> BTreeMap<String, String> {
    let bytes = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
    bytes
        .split(|byte| *byte == 0)
        .filter_map(|entry| {
            let text = String::from_utf8_lossy(entry);
            let (name, value) = text.split_once('=')?;
            let is_wanted = matches!(name, "SUDO_USER" | "SSH_CONNECTION" | "SSH_CLIENT");
            is_wanted.then(|| (name.to_owned(), value.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000::/home/ann:/bin/sh\n";

    #[test]
    fn users_have_names_and_numbers_without_one_stay_numbers() {
        assert_eq!(name_of(PASSWD, 1000).as_deref(), Some("ann"));
        assert_eq!(name_of(PASSWD, 100), None);
        assert_eq!(logged_in(PASSWD, "1000\n").as_deref(), Some("ann"));
        assert_eq!(logged_in(PASSWD, "77").as_deref(), Some("uid 77"));
        assert_eq!(logged_in(PASSWD, "4294967295"), None);
    }

    #[test]
    fn the_parent_is_found_whatever_a_program_calls_itself() {
        assert_eq!(parent("42 (a) b (c)) S 7 42 42").as_deref(), Some("7"));
        assert_eq!(parent("42"), None);
    }

    #[test]
    fn a_person_reads_who_it_was_and_from_where() {
        let who = Who {
            uid: 0,
            user: Some("root".into()),
            sudo: Some("ann".into()),
            ssh_client: Some("192.0.2.7".into()),
            ..Who::default()
        };
        assert_eq!(who.text(), "root (logged in as ann) from 192.0.2.7");
        assert_eq!(
            Who {
                uid: 5,
                ..Who::default()
            }
            .text(),
            "uid 5"
        );
    }

    #[test]
    fn the_running_user_is_known() {
        let here = Who::here();
        assert_eq!(here.uid, rustix::process::getuid().as_raw());
    }
}
