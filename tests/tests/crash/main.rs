//! A node whose run is cut off: SIGKILL before and after every durable operation, a disk that is full at every write, a network
//! that breaks at every request. Then the same command again: the same end state, and nothing left over.
//!
//! Nobody lists the places. Each operation of `kato_shared::durable` is one, named by the line that asked for it, and an
//! undisturbed run writes down which ones it passes ([`stage`]); [`code`] reads the sources and finds the lines that no scenario
//! comes by. What is compared is all that an operator can see: the product's whole tree, the record, what was saved, the
//! platform's service, and what is left over.
//!
//! | File | What |
//! |---|---|
//! | [`scenario`] | what is cut off, one line each |
//! | [`site`], [`stage`] | the node, its releases, and how it is when nobody disturbs it |
//! | [`kill`], [`again`] | SIGKILL: at each place, again and again, at any time |
//! | [`full`] | no space left on the device |
//! | [`network`] | requests that are cut off |
//! | [`kato`] | `kato` itself, and the script that brings it back |
//! | [`commands`] | commands that outlive a killed `kato` |
//! | [`policies`] | images, commands and packages, whose files are not ours; a patch |
//! | [`report`] | what the summary of `cargo xtask test -- crash` is made of |

mod again;
mod code;
mod commands;
mod full;
mod kato;
mod kill;
mod network;
mod policies;
mod report;
mod scenario;
mod site;
mod stage;

use anyhow::Result;

use crate::kill::Share;

/// A test for each part of a scenario with a full disk: as [`killed`]. The disk is full at each write that the scenarios have in
/// common in one of them, and at each that only another one has in that.
macro_rules! full {
    ($list:ident: $(async fn $name:ident() { $scenario:literal, $part:literal of $parts:literal, more $more:literal })*) => {
        /// The scenarios that run with a full disk here.
        const $list: &[&str] = &[$($scenario),*];
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() -> Result<()> {
                full::share($scenario, Share { part: $part - 1, parts: $parts, more: $more }).await
            }
        )*
    };
}

full! { FULL:
    async fn c13_a_full_disk_at_every_write_of_an_upgrade_1() { "upgrade", 1 of 2, more 0 }
    async fn c13_a_full_disk_at_every_write_of_an_upgrade_2() { "upgrade", 2 of 2, more 0 }
    async fn c13_a_full_disk_on_the_way_back() { "rollback", 1 of 1, more 10 }
    async fn c13_a_full_disk_in_the_first_installation() { "first", 1 of 1, more 5 }
    async fn c13_a_full_disk_while_downloading_and_offline() { "offline", 1 of 1, more 5 }
    async fn c13_a_full_disk_when_the_machine_restarts() { "restart", 1 of 1, more 5 }
    async fn c13_a_full_disk_between_releases() { "hops", 1 of 1, more 10 }
    async fn c13_a_full_disk_while_kato_and_the_rest_are_replaced() { "self-update", 1 of 1, more 5 }
    async fn c13_a_full_disk_while_kato_is_replaced() { "kato-alone", 1 of 1, more 40 }
    async fn c13_a_full_disk_while_images_and_commands_are_installed() { "policies", 1 of 1, more 5 }
    async fn c13_a_full_disk_while_images_and_commands_are_taken_back() { "policies-back", 1 of 1, more 5 }
    async fn c13_a_full_disk_while_a_patch_is_installed() { "patch", 1 of 1, more 5 }
    async fn c13_a_full_disk_while_a_patch_is_taken_back() { "patch-back", 1 of 1, more 5 }
    async fn c13_a_full_disk_while_a_backup_is_restored() { "restore", 1 of 1, more 5 }
    async fn c13_a_full_disk_while_a_restoration_is_taken_back() { "restore-back", 1 of 1, more 5 }
    async fn c13_a_full_disk_while_local_changes_are_put_back() { "reapply", 1 of 1, more 5 }
}

/// A test for each part of a scenario: which part of how many, and how many moments more than the first of each place.
macro_rules! killed {
    ($(async fn $name:ident() { $scenario:literal, $part:literal of $parts:literal, more $more:literal })*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() -> Result<()> {
            kill::share($scenario, Share { part: $part - 1, parts: $parts, more: $more }).await
        }
    )*};
}

killed! {
    async fn r56_r57_r58_killed_in_an_upgrade_1() { "upgrade", 1 of 4, more 30 }
    async fn r56_r57_r58_killed_in_an_upgrade_2() { "upgrade", 2 of 4, more 30 }
    async fn r56_r57_r58_killed_in_an_upgrade_3() { "upgrade", 3 of 4, more 30 }
    async fn r56_r57_r58_killed_in_an_upgrade_4() { "upgrade", 4 of 4, more 30 }
    async fn c23_killed_on_the_way_back_1() { "rollback", 1 of 2, more 60 }
    async fn c23_killed_on_the_way_back_2() { "rollback", 2 of 2, more 60 }
    async fn r56_killed_in_the_first_installation() { "first", 1 of 1, more 15 }
    async fn c17_killed_while_downloading_and_offline() { "offline", 1 of 1, more 10 }
    async fn r41_killed_when_the_machine_restarts() { "restart", 1 of 1, more 10 }
    async fn c18_killed_between_releases() { "hops", 1 of 1, more 15 }
    async fn r59_killed_while_kato_is_replaced() { "self-update", 1 of 1, more 10 }
    async fn r57_killed_while_images_and_commands_are_installed() { "policies", 1 of 1, more 10 }
    async fn c23_killed_while_images_and_commands_are_taken_back() { "policies-back", 1 of 1, more 5 }
    async fn r70_killed_while_a_patch_is_installed() { "patch", 1 of 1, more 10 }
    async fn r70_killed_while_a_patch_is_taken_back() { "patch-back", 1 of 1, more 10 }
    async fn r39_killed_while_a_backup_is_restored_1() { "restore", 1 of 2, more 10 }
    async fn r39_killed_while_a_backup_is_restored_2() { "restore", 2 of 2, more 10 }
    async fn r39_killed_while_a_restoration_is_taken_back() { "restore-back", 1 of 1, more 5 }
    async fn r47_killed_while_local_changes_are_put_back() { "reapply", 1 of 1, more 10 }
    async fn r64_killed_while_kato_alone_is_replaced() { "kato-alone", 1 of 1, more 10 }
}

/// Needs root: dpkg does.
mod as_root {
    use super::*;

    killed! {
        async fn r57_killed_while_packages_are_installed() { "packages", 1 of 1, more 5 }
        async fn r57_killed_while_the_first_package_is_installed() { "first-package", 1 of 1, more 0 }
        async fn c23_killed_while_packages_are_taken_back() { "packages-back", 1 of 1, more 5 }
    }

    full! { FULL:
        async fn c13_a_full_disk_while_packages_are_installed() { "packages", 1 of 1, more 5 }
        async fn c13_a_full_disk_while_the_first_package_is_installed() { "first-package", 1 of 1, more 5 }
        async fn c13_a_full_disk_while_packages_are_taken_back() { "packages-back", 1 of 1, more 5 }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_durable_operation_of_packages_is_passed_by_a_scenario() -> Result<()> {
        code::every_one_below("upgrader/src/module/package", scenario::AS_ROOT, FULL).await
    }
}
