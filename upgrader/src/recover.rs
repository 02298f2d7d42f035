//! `fix-kato.sh`: brings `kato` back when an upgrade was cut off while it replaced `kato` itself.
//!
//! It is a POSIX shell script that needs neither the network nor `kato`: it checks the staged copy's digest, puts it into
//! place and points the link to it. It is written before anything of `kato` is changed and removed when the upgrade is
//! recorded. Running it twice is the same as running it once.

use std::path::Path;

use kato_shared::{
    Digest,
    durable::{self, DurableError},
};

use crate::{
    failpoint,
    paths::{self, NodePaths},
};

/// Writes the script: `copy` with `digest` becomes `program`, and `link` points to it.
///
/// # Errors
/// [`DurableError`].
pub fn write(
    paths: &NodePaths,
    copy: &Path,
    program: &Path,
    digest: &Digest,
    link: &Path,
) -> Result<(), DurableError> {
    let script = script(copy, program, digest, link);
    durable::create_folder(paths.state_dir())?;
    durable::write(&paths.fix_kato(), script.as_bytes(), 0o755)?;
    failpoint::hit("recover.written");
    Ok(())
}

/// Removes the script.
///
/// # Errors
/// [`DurableError`].
pub fn clear(paths: &NodePaths) -> Result<(), DurableError> {
    durable::remove(&paths.fix_kato())
}

fn script(copy: &Path, program: &Path, digest: &Digest, link: &Path) -> String {
    // As the link of an upgrade: it holds when the root is moved or mounted elsewhere.
    let target = paths::relative(link, program).unwrap_or_else(|_| program.to_owned());
    format!(
        r#"#!/bin/sh
# Brings kato back after an upgrade was cut off, e.g. when the shell says
#   -bash: {shown}: No such file or directory
#   -bash: kato: command not found
# Needs neither the network nor kato. Then run the upgrade again: kato node upgrade
set -eu
copy={copy}
program={program}
link={link}
target={target}
digest={digest}

# A machine that loses its power now must have the one or the other, and all of it.
flush() {{ if command -v sync > /dev/null 2>&1; then sync; fi; }}
whole() {{ [ -f "$1" ] && [ "$(sha256sum < "$1" | cut -d ' ' -f 1)" = "$digest" ]; }}

if ! whole "$program"; then
    if ! whole "$copy"; then
        echo "fix-kato: $copy is not the program that was verified (sha256 $digest)" >&2
        exit 1
    fi
    mkdir -p "$(dirname "$program")"
    cp "$copy" "$program.fix"
    chmod 755 "$program.fix"
    flush
    mv -f "$program.fix" "$program"
fi
mkdir -p "$(dirname "$link")"
rm -f "$link.fix"
ln -s "$target" "$link.fix"
flush
mv -f "$link.fix" "$link"
flush
echo "fix-kato: $link is back; run the upgrade again: kato node upgrade"
"#,
        shown = link.display(),
        copy = quote(copy),
        program = quote(program),
        link = quote(link),
        target = quote(&target),
        digest = digest.hex(),
    )
}

/// A path as one word of a POSIX shell.
fn quote(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_one_word_each_whatever_they_are() {
        assert_eq!(quote(Path::new("/a b/$c'd")), r"'/a b/$c'\''d'");
    }

    #[test]
    fn r61_the_link_of_the_script_is_relative_where_its_folder_is_there() {
        let root = tempfile::tempdir().unwrap();
        let (bin, slot) = (root.path().join("home/bin"), root.path().join("var/slot"));
        let script = || {
            script(
                &slot.join("copy"),
                &slot.join("kato"),
                &Digest::of(b"kato"),
                &bin.join("kato"),
            )
        };
        assert!(script().contains(&format!("target={}\n", quote(&slot.join("kato")))));
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::create_dir_all(&slot).unwrap();
        assert!(
            script().contains("target='../../var/slot/kato'\n"),
            "{}",
            script()
        );
    }
}
