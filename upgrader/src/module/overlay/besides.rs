//! Local files that stay, beside which the release's are put as `….new`. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use super::{Row, beside, table::Action};

/// Settles what two files of the release make of one name: one that is put beside `a` is called `a.new`, as another may be. What an
/// older release had by that name is not removed, for it is written over; and what this one has is not written over.
pub(super) fn give_way(rows: &mut [Row]) {
    let besides = rows.iter().filter(|row| row.action == Action::Beside);
    let besides: BTreeMap<PathBuf, PathBuf> = besides
        .map(|row| (beside(&row.path, ".new"), row.path.clone()))
        .collect();
    let mut stay: BTreeSet<PathBuf> = BTreeSet::new();
    for row in rows.iter_mut() {
        match besides.get(&row.path) {
            Some(of) if row.new.is_some() => drop(stay.insert(of.clone())),
            Some(_) if row.action == Action::Remove => row.action = Action::Nothing,
            Some(_) | None => {}
        }
    }
    for row in rows.iter_mut().filter(|row| stay.contains(&row.path)) {
        row.action = Action::KeepLocal;
    }
}
