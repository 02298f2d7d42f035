//! What is left of a local change by the releases that come before the next one on the way. Pure.

use std::{collections::BTreeMap, path::Path};

use super::Foreseen;
use crate::{
    customizations::change::{Change, Class, Fate, What},
    module::tree::Kind,
};

/// What the releases before this one leave of `change`; `None` when nothing.
pub(super) fn left(before: &BTreeMap<&Path, &Foreseen>, mut change: Change) -> Option<Change> {
    let Some(found) = before.get(change.path.as_path()) else {
        return Some(change);
    };
    let earlier = &found.change;
    let only_attributes = earlier
        .what
        .iter()
        .all(|what| matches!(what, What::Mode | What::Owner));
    match found.fate {
        Fate::Kept if earlier.class == Class::Safe => return Some(change),
        Fate::Kept if only_attributes => {
            // The release's content came, the bits and the owner stayed.
            change.local = match (found.new.clone()?, earlier.local.as_ref()) {
                (Kind::File { sha256, .. }, Some(Kind::File { mode, .. })) => {
                    Some(Kind::File { sha256, mode: *mode })
                }
                (other, _) => Some(other),
            };
        }
        Fate::Kept | Fate::Beside | Fate::Merged => change.local.clone_from(&earlier.local),
        Fate::Refused | Fate::Lost | Fate::Dropped | Fate::Saved | Fate::Back | Fate::LeftBehind => {
            return None;
        }
    }
    if !earlier.is(What::Added) || found.new.is_some() {
        change.pristine.clone_from(&found.new);
    }
    let is_the_releases = match (&change.pristine, &change.local) {
        (Some(pristine), Some(local)) => pristine.same_content(local) && !only_attributes,
        _ => false,
    };
    (!is_the_releases).then_some(change)
}
