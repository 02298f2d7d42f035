//! What is in the way of an overlay, asked before anything is changed: the rows of the installation itself, not applied.

use std::path::Path;

use kato_shared::release::OnConflict;

use super::{Entry, Job, Kind, ModuleError, rows};
use crate::module::{mounts::Mounts, obstacle::Obstacle, sealed};

/// What an installation of the entries `new` would refuse, and files that cannot be exchanged because something is mounted on them.
pub(in crate::module) fn obstacles(
    job: &Job<'_>,
    dest: &Path,
    (new, conflict): (&[Entry], OnConflict),
    mounts: &Mounts,
    found: &mut Vec<Obstacle>,
) -> Result<(), ModuleError> {
    for row in rows(job, dest, new, conflict)? {
        if let Some(why) = row.action.refusal() {
            found.push(Obstacle::Conflict {
                path: dest.join(&row.path),
                why,
            });
        }
        if let Some(place) = row.changes(dest) {
            for place in [Some(place.as_path()), place.parent()].into_iter().flatten() {
                let seal = sealed::of(place).map_err(ModuleError::io("reading", place))?;
                found.extend(seal.map(|seal| Obstacle::Sealed {
                    place: place.to_owned(),
                    seal,
                }));
            }
        }
        let is_folder = row.local.as_ref().is_none_or(Kind::is_folder);
        if let Some(place) = row.changes(dest).filter(|_| !is_folder)
            && let Some(mount) = mounts.at(&place)
        {
            found.push(Obstacle::Mount { place, mount });
        }
    }
    Ok(())
}
