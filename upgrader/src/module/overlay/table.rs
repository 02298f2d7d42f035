//! The three-way table: what becomes of a file, from its pristine state (B), the local one (L) and the new one (N).
//!
//! | B, L, N | becomes |
//! |---|---|
//! | L = N | nothing to do |
//! | L = B, N differs | N |
//! | N = B, L differs | L stays |
//! | all differ, or no B is known | the module's conflict rule |
//! | L deleted, N differs from B | N, and the operator is told |
//! | N gone, L = B | removed |
//! | N gone, L differs | L stays |
//! | a file on one side and a folder on the other | refused |

use kato_shared::release::OnConflict;

use super::Kind;

/// What becomes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is as it should be.
    Nothing,
    /// The new one is installed.
    Install,
    /// The new one is installed although the file was deleted here.
    InstallDeleted,
    /// The local one is saved, then the new one is installed.
    SaveAndInstall,
    /// The local one stays.
    KeepLocal,
    /// It was deleted here and the release does not change it.
    StayDeleted,
    /// The local one stays and the new one is put beside it.
    Beside,
    /// The local one is saved, then both changes are in one file; where that cannot be, as [`Self::SaveAndInstall`].
    Merge,
    /// The release has it no more, and it was not changed here.
    Remove,
    /// The module must not be installed; why.
    Refuse(&'static str),
}

impl Action {
    /// Why the module must not be installed.
    pub const fn refusal(self) -> Option<&'static str> {
        if let Self::Refuse(why) = self {
            Some(why)
        } else {
            None
        }
    }
}

/// Decides for one file; `None` is "not there".
pub fn decide(base: Option<&Kind>, local: Option<&Kind>, new: Option<&Kind>, conflict: OnConflict) -> Action {
    let Some(new) = new else {
        return without_new(base, local);
    };
    let Some(local) = local else {
        return match base {
            Some(base) if base.same_content(new) && !new.is_folder() => Action::StayDeleted,
            Some(_) if !new.is_folder() => Action::InstallDeleted,
            _ => Action::Install,
        };
    };
    if local.is_folder() != new.is_folder() {
        return Action::Refuse(if new.is_folder() {
            "a folder in the release, not one here"
        } else {
            "a folder here, not one in the release"
        });
    }
    if matches!(local, Kind::Special) {
        return Action::Refuse("a device, socket or pipe here");
    }
    if local.same_content(new) {
        return same_content(base, local, new);
    }
    match base {
        Some(base) if base.same_content(local) => Action::Install,
        Some(base) if base.same_content(new) => Action::KeepLocal,
        _ => match conflict {
            OnConflict::VendorSave => Action::SaveAndInstall,
            OnConflict::Keep => Action::Beside,
            OnConflict::Merge => match (base, local, new) {
                (Some(Kind::File { .. }), Kind::File { .. }, Kind::File { .. }) => Action::Merge,
                _ => Action::SaveAndInstall,
            },
            OnConflict::Fail => Action::Refuse("changed here and in the release"),
        },
    }
}

fn without_new(base: Option<&Kind>, local: Option<&Kind>) -> Action {
    match (base, local) {
        (Some(base), Some(local)) if base.same_content(local) => Action::Remove,
        (_, Some(_)) => Action::KeepLocal,
        (_, None) => Action::Nothing,
    }
}

/// Equal content: only permission bits may have to follow the release, unless they were changed here.
fn same_content(base: Option<&Kind>, local: &Kind, new: &Kind) -> Action {
    match (base, local, new) {
        (
            Some(Kind::File { mode: base, .. }),
            Kind::File { mode: local, .. },
            Kind::File { mode: new, .. },
        ) if base == local && local != new => Action::Install,
        _ => Action::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use kato_shared::Digest;
    use proptest::prelude::*;

    use super::*;

    fn file(content: &str) -> Kind {
        Kind::File {
            sha256: Digest::of(content.as_bytes()),
            mode: 0o644,
        }
    }

    fn with(base: Option<&Kind>, local: Option<&Kind>, new: Option<&Kind>) -> Action {
        decide(base, local, new, OnConflict::VendorSave)
    }

    #[test]
    fn c19_every_row_of_the_table() {
        let (b, l, n) = (&file("b"), &file("l"), &file("n"));
        assert_eq!(with(Some(b), Some(b), Some(n)), Action::Install);
        assert_eq!(with(Some(b), Some(l), Some(b)), Action::KeepLocal);
        assert_eq!(with(Some(b), Some(n), Some(n)), Action::Nothing);
        assert_eq!(with(Some(b), Some(l), Some(n)), Action::SaveAndInstall);
        assert_eq!(with(None, Some(l), Some(n)), Action::SaveAndInstall);
        assert_eq!(with(None, None, Some(n)), Action::Install);
        assert_eq!(with(Some(b), None, Some(n)), Action::InstallDeleted);
        assert_eq!(with(Some(b), None, Some(b)), Action::StayDeleted);
        assert_eq!(with(Some(b), Some(b), None), Action::Remove);
        assert_eq!(with(Some(b), Some(l), None), Action::KeepLocal);
        assert_eq!(with(Some(b), None, None), Action::Nothing);
    }

    #[test]
    fn r45_the_conflict_rule_decides_when_both_sides_changed() {
        let decide = |rule| decide(Some(&file("b")), Some(&file("l")), Some(&file("n")), rule);
        assert_eq!(decide(OnConflict::Keep), Action::Beside);
        assert_eq!(decide(OnConflict::Merge), Action::Merge);
        assert!(matches!(decide(OnConflict::Fail), Action::Refuse(_)));
    }

    #[test]
    fn only_files_with_a_known_original_are_merged() {
        let link = |to: &str| Kind::Link { to: to.into() };
        let decide = |base: Option<&Kind>, local: &Kind| {
            decide(base, Some(local), Some(&file("n")), OnConflict::Merge)
        };
        assert_eq!(decide(None, &file("l")), Action::SaveAndInstall);
        assert_eq!(decide(Some(&file("b")), &link("l")), Action::SaveAndInstall);
    }

    #[test]
    fn a_change_between_file_and_folder_is_refused() {
        let (b, n, folder) = (&file("b"), &file("n"), &Kind::FOLDER);
        assert!(with(Some(b), Some(folder), Some(n)).refusal().is_some());
        assert!(with(Some(b), Some(b), Some(folder)).refusal().is_some());
        assert_eq!(with(None, None, Some(folder)), Action::Install);
    }

    #[test]
    fn permission_bits_follow_the_release_unless_they_were_changed_here() {
        let kinds = |modes: [u32; 3]| {
            modes.map(|mode| Kind::File {
                sha256: Digest::of(b"x"),
                mode,
            })
        };
        for (modes, expected) in [
            ([0o644, 0o644, 0o600], Action::Install),
            ([0o644, 0o640, 0o600], Action::Nothing),
            ([0o644, 0o600, 0o600], Action::Nothing),
        ] {
            let [base, local, new] = kinds(modes);
            assert_eq!(with(Some(&base), Some(&local), Some(&new)), expected, "{modes:?}");
        }
    }

    fn kind() -> impl Strategy<Value = Option<Kind>> {
        prop_oneof![
            Just(None),
            (0_u8..3).prop_map(|n| Some(Kind::File {
                sha256: Digest::of(&[n]),
                mode: 0o644
            })),
            (0_u8..2).prop_map(|n| Some(Kind::Link {
                to: n.to_string().into()
            })),
            Just(Some(Kind::FOLDER)),
        ]
    }

    proptest! {
        /// Once applied, the decision made again changes nothing: a killed run may start over.
        #[test]
        fn deciding_again_after_applying_changes_nothing(base in kind(), local in kind(), new in kind()) {
            let after = match with(base.as_ref(), local.as_ref(), new.as_ref()) {
                Action::Install | Action::InstallDeleted | Action::SaveAndInstall => new.clone(),
                Action::Remove => None,
                Action::Nothing
                | Action::KeepLocal
                | Action::StayDeleted
                | Action::Beside
                | Action::Merge
                | Action::Refuse(_) => local,
            };
            let again = with(base.as_ref(), after.as_ref(), new.as_ref());
            prop_assert!(
                matches!(again, Action::Nothing | Action::KeepLocal | Action::StayDeleted | Action::Refuse(_)),
                "{again:?}"
            );
        }

        /// A local file that is neither pristine nor the new one is never overwritten without being saved.
        #[test]
        fn a_local_change_is_never_lost(base in kind(), local in kind(), new in kind()) {
            let Some(found) = &local else { return Ok(()) };
            let pristine = base.as_ref().is_some_and(|base| base.same_content(found));
            let action = with(base.as_ref(), local.as_ref(), new.as_ref());
            if !pristine {
                prop_assert!(!matches!(action, Action::Install | Action::Remove | Action::InstallDeleted), "{action:?}");
            }
        }
    }
}
