//! The Debian packages of a list such as `tests/packages.txt`: installed by root, named to everybody else.

use std::{collections::BTreeSet, env, fs, path::Path, thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};

use crate::{Stop, process::Tool, workspace};

/// Mirrors hiccup: that many tries of one apt command, with [`PAUSE`] between them.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(5);
/// What keeps services from starting while their packages are installed (invoke-rc.d asks it).
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs what is missing of the packages in `list`, a file of the workspace.
///
/// # Errors
/// [`Stop::Operator`] with the one command, for a user who is not root.
pub(crate) fn ensure(list: &str) -> Result<(), Stop> {
    let path = workspace().join(list);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let wanted = without_those_here(parse(list, &text)?);
    let missing = missing(&wanted)?;
    if missing.is_empty() {
        println!("all {} are installed", wanted.len());
        return Ok(());
    }
    let names = missing.join(" ");
    if !is_root()? {
        return Err(Stop::Operator(format!(
            "{} packages are missing. As root:\n\n    apt-get update && apt-get install -y --no-install-recommends {names}\n",
            missing.len()
        )));
    }
    println!("installing {names}");
    apt(&["update"])?;
    let mut install = vec!["install", "-y", "--no-install-recommends"];
    install.extend(missing.iter().map(String::as_str));
    quietly(|| apt(&install))?;
    Ok(())
}

/// Runs `install` while nothing may start: only the programs are wanted. A policy that is there already is somebody's, and stays as
/// it is.
fn quietly(install: impl FnOnce() -> Result<()>) -> Result<()> {
    let ours = !Path::new(POLICY).exists();
    if ours {
        place_policy()?;
    }
    let installed = install();
    if ours {
        fs::remove_file(POLICY)
            .with_context(|| format!("cannot remove `{POLICY}`; remove it, or no service starts"))?;
    }
    installed
}

fn place_policy() -> Result<()> {
    let script = workspace().join("xtask/policy-rc.d");
    let status = Tool::new("install")
        .args(["-m", "755"])
        .args([script.as_path(), Path::new(POLICY)])
        .status()?;
    ensure!(status.success(), "cannot write `{POLICY}`");
    Ok(())
}

/// Whether we run as root.
///
/// # Errors
/// When `id` fails.
pub(crate) fn is_root() -> Result<bool> {
    Ok(Tool::new("id").args(["-u"]).stdout()?.trim() == "0")
}

/// A package, and the program for which alone it is wanted.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    name: String,
    program: Option<String>,
}

/// Leaves out packages whose program is here already, whoever brought it: Debian's may not go together with another's.
fn without_those_here(wanted: Vec<Wanted>) -> Vec<String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let is_here = |program: &String| env::split_paths(&path).any(|folder| folder.join(program).is_file());
    wanted
        .into_iter()
        .filter(|package| !package.program.as_ref().is_some_and(is_here))
        .map(|package| package.name)
        .collect()
}

/// One package a line, maybe with its program in brackets; `#` begins a comment.
fn parse(list: &str, text: &str) -> Result<Vec<Wanted>> {
    let mut names = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let (name, program) = match line.strip_suffix(')').and_then(|line| line.split_once(" (")) {
            Some((name, program)) => (name, Some(program.to_owned())),
            None => (line, None),
        };
        let valid = name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.'));
        ensure!(
            valid,
            "{list}:{}: `{name}` is not the name of a Debian package",
            number + 1
        );
        if !name.is_empty() {
            names.push(Wanted {
                name: name.to_owned(),
                program,
            });
        }
    }
    Ok(names)
}

fn missing(wanted: &[String]) -> Result<Vec<String>> {
    // Ends with 1 when it does not know one of the names, and still lists the others.
    let output = Tool::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(wanted)
        .output()
        .context("this runs on Debian 12")?;
    let listed = String::from_utf8_lossy(&output.stdout);
    let installed: BTreeSet<&str> = listed
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .collect();
    Ok(wanted
        .iter()
        .filter(|name| !installed.contains(name.as_str()))
        .cloned()
        .collect())
}

fn apt(args: &[&str]) -> Result<()> {
    for attempt in 1..=TRIES {
        let status = Tool::new("apt-get")
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .status()?;
        if status.success() {
            return Ok(());
        }
        if attempt < TRIES {
            println!(
                "apt-get {} ended with {status}; try {} of {TRIES}",
                args[0],
                attempt + 1
            );
            thread::sleep(PAUSE * attempt);
        }
    }
    bail!("`apt-get {}` failed {TRIES} times", args.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blank_lines_are_not_packages() {
        let text = "# for the lab\nopenssh-server\n\niproute2  # links\nlibstdc++6\n";
        let parsed = without_those_here(parse("list", text).unwrap());
        assert_eq!(parsed, ["openssh-server", "iproute2", "libstdc++6"]);
    }

    #[test]
    fn a_package_is_not_wanted_where_its_program_is_here() {
        let text = "one (sh)\ntwo (no-such-program)\n";
        assert_eq!(without_those_here(parse("list", text).unwrap()), ["two"]);
    }

    #[test]
    fn an_option_cannot_slip_in_as_a_package() {
        let error = parse("tests/packages.txt", "ok\nnginx; reboot\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("tests/packages.txt:2"), "{error}");
    }
}
