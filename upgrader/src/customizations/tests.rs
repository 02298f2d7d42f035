//! Every local file is accounted for: random trees, random changes, a release that changes other things.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use kato_shared::{
    Digest, durable,
    release::{FileEntry, Module, Release},
};
use proptest::prelude::*;
use serde_json::json;
use tokio::time::Instant;

use super::{
    Change, Fate,
    archive::{self, Reason},
    change::What,
    difference,
    outlook::{self, Basis},
    pristine, reapply, scan,
};
use crate::{
    attempt::Attempt,
    installed::{Installed, InstalledModule},
    module::{self, Job, ModuleError, Work, mounts::Mounts, obstacle::obstacles, tree},
    paths::NodePaths,
    platform::Children,
    settings::Settings,
};

/// A module's archive.
pub(super) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, *content).unwrap();
    }
    zstd::encode_all(&tar.into_inner().unwrap()[..], 1).unwrap()
}

/// Path below the module's folder → text.
type Files = BTreeMap<&'static str, String>;

/// A node with the modules `web` (replace) and `etc` (overlay); `safe` below each is safe.
pub(super) struct Node {
    root: tempfile::TempDir,
    pub(super) paths: NodePaths,
    rule: &'static str,
    settings: Settings,
    children: Children,
    runtime: tokio::runtime::Runtime,
}

impl Node {
    pub(super) fn new(rule: &'static str) -> Self {
        // Hundreds of trees, each file flushed: in memory, where there is such a folder.
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() {
            tempfile::tempdir_in(memory).unwrap()
        } else {
            tempfile::tempdir().unwrap()
        };
        let paths = NodePaths::new(root.path(), Path::new("/var/kato"));
        durable::create_folder(&paths.staging()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Self {
            root,
            paths,
            rule,
            settings: Settings::default(),
            children: Children::default(),
            runtime: runtime.unwrap(),
        }
    }

    pub(super) fn here(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn release(&self, version: &str, web: &Files, etc: &Files) -> Attempt {
        let staged = |files: &Files| {
            let files: Vec<(&str, &[u8])> = files
                .iter()
                .map(|(path, text)| (*path, text.as_bytes()))
                .collect();
            let bytes = archive(&files);
            let sha256 = Digest::of(&bytes);
            durable::write(&self.paths.staging().join(sha256.hex()), &bytes, 0o644).unwrap();
            json!({"target": "artifacts/x", "sha256": sha256, "size": bytes.len()})
        };
        let listed = |files: &Files| -> Vec<FileEntry> {
            let entry = |(path, text): (&&str, &String)| FileEntry {
                path: path.into(),
                sha256: Digest::of(text.as_bytes()),
                mode: 0o644,
            };
            files.iter().map(entry).collect()
        };
        let release = json!({
            "schema": 1, "product": "demo", "version": version, "published": "2026-01-01T00:00:00Z",
            "artifacts": {"web": staged(web), "etc": staged(etc)},
            "modules": [
                {"name": "web", "artifact": "web", "roles": ["*"], "files": listed(web),
                 "install": {"policy": "replace", "dest": "/s/web"}},
                {"name": "etc", "artifact": "etc", "roles": ["*"], "files": listed(etc),
                 "install": {"policy": "overlay", "dest": "/s/etc", "conflict": self.rule}},
            ],
            "safe_paths": ["/s/*/safe"],
        });
        let release = Release::from_json("r", &serde_json::to_vec(&release).unwrap()).unwrap();
        Attempt::new(
            None,
            release,
            Digest::of(version.as_bytes()),
            Timestamp::UNIX_EPOCH,
        )
    }

    fn job<'a>(
        &'a self,
        attempt: &'a Attempt,
        module: &'a Module,
        installed: Option<&'a Installed>,
    ) -> Job<'a> {
        Job {
            module,
            artifact: &attempt.release.artifacts[&module.artifact],
            attempt,
            node: "n1",
            paths: &self.paths,
            settings: &self.settings,
            children: &self.children,
            base: installed.and_then(|installed| installed.modules.get(&module.name)),
            deadline: Instant::now() + Duration::from_secs(60),
        }
    }

    /// Installs all modules and gives the record, as the steps of a run do.
    fn install(&self, attempt: &Attempt, before: Option<&Installed>) -> Result<Installed, ModuleError> {
        let mut modules = BTreeMap::new();
        for module in &attempt.release.modules {
            let job = self.job(attempt, module, before);
            // A killed run starts over.
            for _again in 0..2 {
                self.runtime.block_on(module::install(&job))?;
                self.runtime.block_on(module::check(&job))?;
            }
            let work = Work::load(&self.paths, &module.name).unwrap().unwrap();
            let installed = InstalledModule {
                version: None,
                sha256: job.artifact.sha256,
                dest: module.install.dest().map(Path::to_owned),
                install: Some(module.install.clone()),
                entries: work.entries,
            };
            modules.insert(module.name.clone(), installed);
        }
        let installed = Installed {
            schema: 1,
            version: attempt.release.version.clone(),
            release_digest: attempt.release_digest,
            attempt: attempt.id.clone(),
            time: Timestamp::UNIX_EPOCH,
            modules,
            safe_paths: attempt.release.safe_paths.clone(),
            owner: None,
            checks: Vec::new(),
        };
        pristine::keep(&self.paths, &installed, 1 << 20);
        Ok(installed)
    }

    /// Ends an upgrade as recording it does.
    fn settle(&self, attempt: &Attempt) {
        for module in &attempt.release.modules {
            module::settle(&self.job(attempt, module, None)).unwrap();
        }
        module::undo::forget(&self.paths).unwrap();
        tree::remove(&self.paths.work()).unwrap();
    }

    /// Every file of the product with its bytes.
    fn product(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        tree::scan(&self.here("s"))
            .unwrap()
            .into_iter()
            .filter(|entry| matches!(entry.kind, tree::Kind::File { .. }))
            .map(|entry| {
                (
                    Path::new("/s").join(&entry.path),
                    fs::read(self.here("s").join(entry.path)).unwrap(),
                )
            })
            .collect()
    }

    /// Makes local changes: `None` deletes.
    fn change(&self, module: &str, edits: &BTreeMap<&'static str, Option<String>>) {
        for (path, text) in edits {
            let here = self.here("s").join(module).join(path);
            let folder = here.parent().unwrap();
            if folder.ancestors().any(Path::is_file) {
                continue;
            }
            tree::remove(&here).unwrap();
            if let Some(text) = text {
                durable::create_folder(folder).unwrap();
                durable::write(&here, text.as_bytes(), 0o644).unwrap();
            }
        }
    }

    /// The digests of what was saved, by the run and by the modules.
    fn saved(&self) -> BTreeSet<(PathBuf, Digest)> {
        let mut saved = BTreeSet::new();
        for manifest in archive::all(&self.paths).unwrap() {
            for file in manifest.files {
                if let Some(tree::Kind::File { sha256, .. }) = file.local {
                    saved.insert((file.path, sha256));
                }
            }
        }
        for entry in tree::scan(&self.paths.backups()).unwrap() {
            let mut parts = entry.path.iter().skip(2);
            let (module, below) = (parts.next(), parts.collect::<PathBuf>());
            if let (Some(module), tree::Kind::File { sha256, .. }) = (module, entry.kind) {
                saved.insert((Path::new("/s").join(module).join(below), sha256));
            }
        }
        saved
    }
}

/// Names that collide in every way: folders and files, and what an upgrade puts beside a file.
const NAMES: [&str; 8] = ["a", "a.new", "b", "d/x", "d/y", "d", "safe/x", "safe"];

fn text() -> impl Strategy<Value = String> {
    proptest::collection::vec(0_u8..3, 1..5).prop_map(|lines| {
        let line = |line: u8| format!("line {line}\n");
        lines.into_iter().map(line).collect()
    })
}

/// Files of which none is a folder of another.
fn files() -> impl Strategy<Value = Files> {
    proptest::collection::btree_map(proptest::sample::select(&NAMES[..]), text(), 1..6).prop_map(
        |mut files| {
            let names: Vec<&str> = files.keys().copied().collect();
            files.retain(|name, _| !names.iter().any(|other| other.starts_with(&format!("{name}/"))));
            files
        },
    )
}

fn edits() -> impl Strategy<Value = BTreeMap<&'static str, Option<String>>> {
    let edit = proptest::option::weighted(0.8, text());
    proptest::collection::btree_map(proptest::sample::select(&NAMES[..]), edit, 0..5)
}

fn two<T: Strategy>(one: impl Fn() -> T) -> impl Strategy<Value = (T::Value, T::Value)> {
    (one(), one())
}

/// A merge applied to its own result would contradict itself: "line 0" and the saved lines are then both new at one place.
fn odd(place: &str, name: &[u8]) -> PathBuf {
    Path::new(place).join(OsStr::from_bytes(name))
}

/// A node with a release, its record, and local files and a link whose names are not UTF-8: in `web`, there in `safe`, and in `etc`.
fn oddly_named() -> (Node, Installed, [PathBuf; 4]) {
    let node = Node::new("keep");
    let files = Files::from([("a", "line 0\n".to_owned())]);
    let one = node.release("1.0.0", &files, &files);
    let installed = node.install(&one, None).unwrap();
    node.settle(&one);
    let (web, link) = (odd("/s/web", b"caf\xe9"), odd("/s/web", b"link-\xff"));
    let (safe, etc) = (odd("/s/web/safe", b"\xff"), odd("/s/etc", b"caf\xe9"));
    durable::create_folder(&node.here("s/web/safe")).unwrap();
    for path in [&web, &safe, &etc] {
        durable::write(&node.paths.on_node(path), b"local\n", 0o644).unwrap();
    }
    durable::symlink(&web, &node.paths.on_node(&link)).unwrap();
    (node, installed, [web, link, safe, etc])
}

#[test]
fn r45_local_files_of_any_name_are_listed_and_shown() {
    let (node, installed, local) = oddly_named();
    let found = scan(&node.paths, &installed).unwrap().changes;
    let listed: BTreeSet<&PathBuf> = found.iter().map(|change| &change.path).collect();
    assert!(local.iter().all(|path| listed.contains(path)), "{listed:?}");
    // As `--json` and records have them.
    let text = serde_json::to_string(&found).unwrap();
    assert!(text.contains(r#""escaped:/s/web/caf\\xe9""#), "{text}");
    assert_eq!(serde_json::from_str::<Vec<Change>>(&text).unwrap(), found);

    let chosen = difference::choose(&node.paths, found, &local[..1]).unwrap();
    let shown = difference::differences(&node.paths, &installed, &chosen).unwrap();
    let diff = shown[0].diff.as_deref().unwrap();
    assert!(
        diff.contains(r#"+++ "escaped:b/s/web/caf\\xe9""#) && diff.contains("+local"),
        "{diff}"
    );
    serde_json::to_string(&shown).unwrap();
}

#[test]
fn r45_local_files_of_any_name_are_saved_and_put_back() {
    let (node, installed, [web, link, safe, etc]) = oddly_named();
    let files = Files::from([("a", "line 1\n".to_owned())]);
    let two = node.release("2.0.0", &files, &files);
    let basis = Basis {
        installed: Some(&installed),
        bases: &installed.modules,
        before: &[],
    };
    let modules: Vec<&Module> = two.release.modules.iter().collect();
    let foreseen = outlook::foresee(&node.paths, basis, &two.release, &modules).unwrap();
    let fate = |path: &Path| {
        foreseen
            .iter()
            .find(|found| found.change.path == path)
            .unwrap()
            .fate
    };
    assert_eq!(
        [fate(&web), fate(&link), fate(&safe), fate(&etc)],
        [Fate::Lost, Fate::Lost, Fate::Kept, Fate::Kept]
    );
    serde_json::to_string(&outlook::summary(&foreseen, &modules)).unwrap();
    let taken = outlook::taken_away(&foreseen);
    let about = ("up", Reason::Upgrade, Timestamp::UNIX_EPOCH);
    archive::save(&node.paths, &installed, &taken, about)
        .unwrap()
        .unwrap();
    let installed = node.install(&two, Some(&installed)).unwrap();
    node.settle(&two);
    let here = |path: &Path| fs::read(node.paths.on_node(path)).ok();
    let local = Some(b"local\n".to_vec());
    assert_eq!(
        [here(&web), here(&safe), here(&etc)],
        [None, local.clone(), local.clone()]
    );

    let request = reapply::Request {
        from: &archive::find(&node.paths, Some("up")).unwrap(),
        only: &[],
        plan_only: false,
        now: Timestamp::UNIX_EPOCH,
    };
    let done = reapply::reapply(&node.paths, &installed, &request).unwrap();
    serde_json::to_string(&done).unwrap();
    assert_eq!(here(&web), local);
    assert_eq!(fs::read_link(node.paths.on_node(&link)).unwrap(), web);
}

#[test]
fn r47_what_a_merge_has_left_counts_as_done() {
    let node = Node::new("vendor+save");
    let files = |name: &'static str, text: &str| Files::from([(name, text.to_owned())]);
    let nothing = files("b", "one\n");
    let one = node.release("1.0.0", &files("d", "line 2\n"), &nothing);
    let installed = node.install(&one, None).unwrap();
    node.settle(&one);
    let change = |text: &str| node.change("web", &BTreeMap::from([("d", Some(text.to_owned()))]));
    change("line 2\nline 2\nline 0\nline 0\n");
    let changes = scan(&node.paths, &installed).unwrap().changes;
    let id = ("saved", Reason::ByHand, Timestamp::UNIX_EPOCH);
    let manifest = archive::save(&node.paths, &installed, &changes, id)
        .unwrap()
        .unwrap();
    let two = node.release("2.0.0", &files("a", "line 0\n"), &nothing);
    let installed = node.install(&two, Some(&installed)).unwrap();
    node.settle(&two);
    change("line 0\nline 2\n");
    let request = reapply::Request {
        from: &manifest,
        only: &[],
        plan_only: false,
        now: Timestamp::from_second(1).unwrap(),
    };
    let mut actions = Vec::new();
    for _again in 0..2 {
        let done = reapply::reapply(&node.paths, &installed, &request).unwrap();
        actions.extend(done.into_iter().map(|done| done.action));
    }
    assert_eq!(actions, [reapply::Action::Merge, reapply::Action::InPlace]);
    let text = fs::read_to_string(node.here("s/web/d")).unwrap();
    assert_eq!(text, "line 0\nline 2\nline 2\nline 0\nline 0\n");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// After an upgrade every local file is in its place, merged, or saved; a refused upgrade changes nothing of that folder.
    /// What was foreseen to stay has stayed.
    #[test]
    fn r45_every_local_file_is_accounted_for_after_an_upgrade(
        old in two(files), new in two(files), edits in two(edits),
        rule in proptest::sample::select(&["vendor+save", "keep", "merge", "fail"][..]),
    ) {
        let node = Node::new(rule);
        let one = node.release("1.0.0", &old.0, &old.1);
        let installed = node.install(&one, None).unwrap();
        node.settle(&one);
        let pristine = node.product();
        node.change("web", &edits.0);
        node.change("etc", &edits.1);
        let local = node.product();

        let two = node.release("2.0.0", &new.0, &new.1);
        let modules: Vec<&Module> = two.release.modules.iter().collect();
        let basis = Basis { installed: Some(&installed), bases: &installed.modules, before: &[] };
        let foreseen = outlook::foresee(&node.paths, basis, &two.release, &modules).unwrap();
        let mounts = Mounts::default();
        let obstacles: Vec<_> = modules
            .iter()
            .flat_map(|module| obstacles(&node.job(&two, module, Some(&installed)), &mounts).unwrap())
            .collect();
        let taken = outlook::taken_away(&foreseen);
        archive::save(&node.paths, &installed, &taken, (&two.id, Reason::Upgrade, Timestamp::UNIX_EPOCH)).unwrap();
        let outcome = node.install(&two, Some(&installed));
        let after = node.product();
        let saved = node.saved();
        for (path, bytes) in &local {
            let is_local = pristine.get(path) != Some(bytes);
            let is_there = after.get(path) == Some(bytes);
            let is_saved = saved.contains(&(path.clone(), Digest::of(bytes)));
            prop_assert!(!is_local || is_there || is_saved, "{} is lost: {outcome:?}", path.display());
            if path.starts_with("/s/web/safe") || path.starts_with("/s/etc/safe") {
                prop_assert!(is_there, "{} is safe", path.display());
            }
            let fate = foreseen.iter().find(|found| found.change.path == *path).map(|found| found.fate);
            if outcome.is_ok() && matches!(fate, Some(Fate::Kept | Fate::Beside)) {
                prop_assert!(is_there, "{} was to stay", path.display());
            }
        }
        let was_refused = matches!(outcome, Err(ModuleError::Conflict { .. }));
        prop_assert!(outcome.is_ok() || was_refused, "{outcome:?}");
        let was_foreseen = foreseen.iter().any(|found| found.fate == Fate::Refused);
        prop_assert!(!was_foreseen || was_refused, "{foreseen:?}");
        // Before the first change everything is known that the module would refuse.
        prop_assert_eq!(!obstacles.is_empty(), was_refused, "{:?}", obstacles);
        if was_refused {
            let of_etc = |files: &BTreeMap<PathBuf, Vec<u8>>| -> Vec<_> {
                files.clone().into_iter().filter(|(path, _)| path.starts_with("/s/etc")).collect()
            };
            prop_assert_eq!(of_etc(&after), of_etc(&local));
        }
    }

    /// Applied again, nothing of the release and nothing that was changed since is silently overwritten; a second time changes
    /// nothing any more.
    #[test]
    fn r47_reapply_overwrites_nothing_that_is_not_the_releases_or_saved(
        old in files(), new in files(), edits in edits(), later in edits(),
    ) {
        let node = Node::new("vendor+save");
        let none = Files::from([("b", "one\n".to_owned())]);
        let one = node.release("1.0.0", &old, &none);
        let installed = node.install(&one, None).unwrap();
        node.settle(&one);
        node.change("web", &edits);
        let changes = scan(&node.paths, &installed).unwrap().changes;
        let id = ("saved", Reason::ByHand, Timestamp::UNIX_EPOCH);
        let Some(manifest) = archive::save(&node.paths, &installed, &changes, id).unwrap() else {
            return Ok(());
        };
        let two = node.release("2.0.0", &new, &none);
        let installed = node.install(&two, Some(&installed)).unwrap();
        node.settle(&two);
        let pristine = node.product();
        node.change("web", &later);
        let before = node.product();
        let request = reapply::Request {
            from: &manifest,
            only: &[],
            plan_only: false,
            now: Timestamp::from_second(1).unwrap(),
        };
        let planned = reapply::reapply(&node.paths, &installed, &reapply::Request { plan_only: true, ..request }).unwrap();
        prop_assert_eq!(&node.product(), &before);
        let done = reapply::reapply(&node.paths, &installed, &request).unwrap();
        prop_assert_eq!(planned, done);
        let after = node.product();
        let saved = node.saved();
        for (path, bytes) in &before {
            let is_release = pristine.get(path) == Some(bytes);
            let is_saved = saved.contains(&(path.clone(), Digest::of(bytes)));
            prop_assert!(after.get(path) == Some(bytes) || is_release || is_saved, "{}", path.display());
        }
        reapply::reapply(&node.paths, &installed, &request).unwrap();
        prop_assert_eq!(node.product(), after);
    }
}

fn like(path: &Path) -> (u32, u32, u32) {
    let is = fs::symlink_metadata(path).unwrap();
    (is.permissions().mode() & 0o7777, is.uid(), is.gid())
}

fn saved_and_replaced(node: &Node, installed: &Installed, two: &Attempt) -> Installed {
    let changes = scan(&node.paths, installed).unwrap().changes;
    let about = ("up", Reason::Upgrade, Timestamp::UNIX_EPOCH);
    archive::save(&node.paths, installed, &changes, about)
        .unwrap()
        .unwrap();
    let installed = node.install(two, Some(installed)).unwrap();
    node.settle(two);
    installed
}

fn put_back(node: &Node, installed: &Installed) -> Vec<reapply::Reapplied> {
    let request = reapply::Request {
        from: &archive::find(&node.paths, Some("up")).unwrap(),
        only: &[],
        plan_only: false,
        now: Timestamp::UNIX_EPOCH,
    };
    reapply::reapply(&node.paths, installed, &request).unwrap()
}

#[test]
fn r47_folders_come_back_as_closed_as_they_were_with_attributes_and_holes() {
    let node = Node::new("vendor+save");
    let files = Files::from([("a", "1\n".to_owned())]);
    let one = node.release("1.0.0", &files, &files);
    let installed = node.install(&one, None).unwrap();
    node.settle(&one);
    let at = |below: &str| node.here("s/web").join(below);
    fs::create_dir_all(at("private/deep")).unwrap();
    fs::create_dir(at("empty")).unwrap();
    durable::write(&at("private/deep/key"), b"secret\n", 0o644).unwrap();
    let sparse = fs::File::create_new(at("private/sparse")).unwrap();
    sparse.set_len(8 * 1024 * 1024).unwrap();
    drop(sparse);
    let flags = rustix::fs::XattrFlags::empty();
    let has_attributes = rustix::fs::lsetxattr(at("private/deep/key"), "user.a", b"x", flags).is_ok();
    let set = |below: &str, mode: u32| {
        // Only root can; without it the owner is compared as it is.
        let _mine = std::os::unix::fs::chown(at(below), Some(33), Some(44));
        fs::set_permissions(at(below), fs::Permissions::from_mode(mode)).unwrap();
    };
    set("private/deep", 0o2770);
    set("private", 0o700);
    set("empty", 0o750);
    let was = ["private", "private/deep", "empty"].map(|below| like(&at(below)));

    let two = node.release("2.0.0", &Files::from([("a", "2\n".to_owned())]), &files);
    let installed = saved_and_replaced(&node, &installed, &two);
    assert!(!at("private").exists());
    // A run was killed right after it had made the folder.
    fs::create_dir(at("private")).unwrap();
    fs::set_permissions(at("private"), fs::Permissions::from_mode(0o700)).unwrap();
    put_back(&node, &installed);
    assert_eq!(
        ["private", "private/deep", "empty"].map(|below| like(&at(below))),
        was
    );
    assert_eq!(fs::read(at("private/deep/key")).unwrap(), b"secret\n");
    let is = fs::metadata(at("private/sparse")).unwrap();
    assert!(
        is.len() == 8 * 1024 * 1024 && is.blocks() * 512 < 1024 * 1024,
        "{}",
        is.blocks()
    );
    if has_attributes {
        let found = crate::backup::attributes(&at("private/deep/key")).unwrap();
        assert!(found.contains(&("user.a".into(), b"x".to_vec())), "{found:?}");
    }
    assert!(
        put_back(&node, &installed)
            .iter()
            .all(|done| done.action == reapply::Action::InPlace)
    );
}

#[test]
fn r45_the_bits_of_a_releases_folder_are_compared_saved_and_put_back() {
    let node = Node::new("vendor+save");
    let files = Files::from([("a", "1\n".to_owned()), ("d/b", "1\n".to_owned())]);
    let one = node.release("1.0.0", &files, &files);
    let installed = node.install(&one, None).unwrap();
    node.settle(&one);
    assert!(scan(&node.paths, &installed).unwrap().changes.is_empty());
    let folder = node.here("s/web/d");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    // The folder of an overlay belongs to many.
    fs::set_permissions(node.here("s/etc/d"), fs::Permissions::from_mode(0o700)).unwrap();
    let changes = scan(&node.paths, &installed).unwrap().changes;
    let found: Vec<_> = changes
        .iter()
        .map(|change| (change.path.as_path(), change.what.clone()))
        .collect();
    assert_eq!(found, [(Path::new("/s/web/d"), vec![What::Mode])]);
    assert_eq!(changes[0].at_worst, Fate::Lost);

    let newer = Files::from([("a", "2\n".to_owned()), ("d/b", "2\n".to_owned())]);
    let two = node.release("2.0.0", &newer, &files);
    let basis = Basis {
        installed: Some(&installed),
        bases: &installed.modules,
        before: &[],
    };
    let modules: Vec<&Module> = two.release.modules.iter().collect();
    let foreseen = outlook::foresee(&node.paths, basis, &two.release, &modules).unwrap();
    let fates: Vec<_> = foreseen
        .iter()
        .map(|found| (found.change.path.as_path(), found.fate))
        .collect();
    assert_eq!(fates, [(Path::new("/s/web/d"), Fate::Lost)]);
    let installed = saved_and_replaced(&node, &installed, &two);
    assert_ne!(like(&folder).0, 0o700);
    let done = put_back(&node, &installed);
    assert_eq!(
        done.iter().map(|done| done.action).collect::<Vec<_>>(),
        [reapply::Action::Attributes]
    );
    assert_eq!(like(&folder).0, 0o700);
    assert_eq!(put_back(&node, &installed)[0].action, reapply::Action::InPlace);
}

#[test]
fn r45_an_overlay_keeps_the_attributes_of_what_it_replaces() {
    let node = Node::new("vendor+save");
    let files = Files::from([("a", "1\n".to_owned())]);
    let one = node.release("1.0.0", &files, &files);
    let installed = node.install(&one, None).unwrap();
    node.settle(&one);
    let conf = node.here("s/etc/a");
    let flags = rustix::fs::XattrFlags::empty();
    if rustix::fs::lsetxattr(&conf, "user.a", b"x", flags).is_err() {
        return;
    }
    let two = node.release("2.0.0", &files, &Files::from([("a", "2\n".to_owned())]));
    node.install(&two, Some(&installed)).unwrap();
    assert_eq!(fs::read(&conf).unwrap(), b"2\n");
    let found = crate::backup::attributes(&conf).unwrap();
    assert!(found.contains(&("user.a".into(), b"x".to_vec())), "{found:?}");
}
