//! A note whose node has another root by now: a copied image, or `node.root` set anew.
//!
//! Notes hold whole paths, and say below which root they were written. Read below another root they mean the same places there, so
//! that no command that takes a module back acts on another tree than the one at hand. Notes of earlier versions do not say it, and
//! are taken as they are.

use std::{
    mem,
    path::{Path, PathBuf},
};

use super::{Act, Note};
use crate::module::child::Line;

/// From one root to the other.
struct Move<'a> {
    from: PathBuf,
    to: &'a Path,
}

impl Note {
    /// The same below `root`.
    pub(super) fn below(mut self, root: &Path) -> Self {
        if self.root.as_os_str().is_empty() || self.root == root {
            return self;
        }
        let moved = Move {
            from: mem::replace(&mut self.root, root.to_owned()),
            to: root,
        };
        let places = mem::take(&mut self.places).into_iter();
        self.places = places
            .map(|(path, mut place)| {
                moved.path(&mut place.kept);
                (moved.of(&path), place)
            })
            .collect();
        self.leftovers
            .iter_mut()
            .chain(&mut self.made)
            .for_each(|path| moved.path(path));
        for noted in &mut self.acts {
            match &mut noted.act {
                Act::Packages { before, root } => {
                    moved.path(root);
                    let debs = before.iter_mut().filter_map(|package| package.deb.as_mut());
                    debs.for_each(|deb| moved.path(deb));
                }
                // The runtime's own names.
                Act::Tag(_) => {}
                Act::Command { line, probe } => [line, probe].into_iter().for_each(|line| moved.line(line)),
            }
        }
        self
    }
}

impl Move<'_> {
    fn of(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.from) {
            Ok(below) if below.as_os_str().is_empty() => self.to.to_owned(),
            Ok(below) => self.to.join(below),
            Err(_elsewhere) => path.to_owned(),
        }
    }

    fn path(&self, path: &mut PathBuf) {
        *path = self.of(path);
    }

    /// What `kato` has put into the command is moved; the release's own words stay.
    fn line(&self, line: &mut Line) {
        let is_old = |one: &&String| one.starts_with("KATO_DIR=");
        let old = line
            .env
            .iter()
            .find(is_old)
            .map(|one| one["KATO_DIR=".len()..].to_owned());
        for name in ["KATO_ROOT=", "KATO_DIR="] {
            for one in &mut line.env {
                if let Some(path) = one.strip_prefix(name) {
                    *one = format!("{name}{}", self.of(Path::new(path)).display());
                }
            }
        }
        // `./own` of the module's folder.
        if let (Some(old), Some(program)) = (old, line.argv.first_mut())
            && Path::new(program.as_str()).starts_with(old)
        {
            *program = self.of(Path::new(program.as_str())).display().to_string();
        }
    }
}
