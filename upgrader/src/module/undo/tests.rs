use std::path::Path;

use kato_shared::durable;

use super::*;
use crate::module::child::Line;

fn note(shared: bool) -> Note {
    Note {
        schema: SCHEMA,
        order: 0,
        root: PathBuf::new(),
        module: "m".into(),
        recovery: false,
        shared,
        suffix: ".old-1-to-2-T".into(),
        places: BTreeMap::new(),
        acts: Vec::new(),
        leftovers: Vec::new(),
        made: Vec::new(),
        saved: false,
    }
}

fn root() -> (tempfile::TempDir, NodePaths) {
    let folder = tempfile::tempdir().unwrap();
    let paths = NodePaths::new(folder.path(), Path::new("/state"));
    (folder, paths)
}

fn put(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    durable::write(path, content.as_bytes(), 0o640).unwrap();
}

#[test]
fn files_come_back_with_their_inode_and_new_ones_go_and_foreign_ones_stay() {
    let (folder, paths) = root();
    let etc = folder.path().join("etc");
    put(&etc.join("changed"), "old");
    put(&etc.join("removed"), "old");
    let before = fs::metadata(etc.join("changed")).unwrap().ino();
    let mut note = note(true);
    let kept = note.kept_beside(&etc);
    note.leftover(&kept);
    for name in ["changed", "removed", "fresh", "folder"] {
        note.place(&etc.join(name), kept.join(name)).unwrap();
    }
    note.save(&paths).unwrap();
    for name in ["changed", "removed", "fresh"] {
        note.keep(&paths, &etc.join(name)).unwrap();
    }
    put(&etc.join("changed"), "new");
    durable::remove(&etc.join("removed")).unwrap();
    put(&etc.join("fresh"), "new");
    put(&etc.join("folder/foreign"), "not ours");
    let error = check(&note).unwrap_err().to_string();
    assert!(error.contains("etc/changed` cannot be put back"), "{error}");
    for _again in 0..2 {
        undo(&paths, &mut note).unwrap();
        check(&note).unwrap();
        assert_eq!(fs::metadata(etc.join("changed")).unwrap().ino(), before);
        assert_eq!(fs::read_to_string(etc.join("removed")).unwrap(), "old");
        assert!(!etc.join("fresh").exists() && etc.join("folder/foreign").exists() && !kept.exists());
    }
}

#[test]
fn what_was_changed_between_two_runs_is_what_comes_back() {
    let (folder, paths) = root();
    let file = folder.path().join("etc/conf");
    put(&file, "noted");
    let mut note = note(true);
    note.place(&file, folder.path().join("etc.kept/conf")).unwrap();
    note.save(&paths).unwrap();
    put(&file, "changed before we came to it");
    note.keep(&paths, &file).unwrap();
    put(&file, "new");
    undo(&paths, &mut all(&paths).unwrap()[0]).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "changed before we came to it");
}

#[test]
fn a_folder_whose_original_is_gone_is_never_taken_for_put_back() {
    let (folder, paths) = root();
    let (web, fresh) = (folder.path().join("web"), folder.path().join("web.new"));
    put(&web.join("index"), "old");
    put(&fresh.join("index"), "new");
    let mut note = note(false);
    note.leftover(&fresh);
    note.place(&web, note.kept_beside(&web)).unwrap();
    note.save(&paths).unwrap();
    durable::exchange(&fresh, &web).unwrap();
    // Killed before the original was set aside: it comes back all the same.
    undo(&paths, &mut note).unwrap();
    assert_eq!(fs::read_to_string(web.join("index")).unwrap(), "old");

    put(&fresh.join("index"), "new");
    durable::exchange(&fresh, &web).unwrap();
    note.set_aside().unwrap();
    fs::remove_dir_all(note.kept_beside(&web)).unwrap();
    assert!(matches!(undo(&paths, &mut note), Err(ModuleError::Lost { .. })));
    assert!(check(&note).is_err());
    assert_eq!(fs::read_to_string(web.join("index")).unwrap(), "new");

    // A person has brought it back from the backup.
    put(&note.kept_beside(&web).join("index"), "from the backup");
    undo(&paths, &mut note).unwrap();
    check(&note).unwrap();
    assert_eq!(fs::read_to_string(web.join("index")).unwrap(), "from the backup");
}

#[test]
fn kato_itself_is_undone_last_and_the_rest_in_reverse() {
    let (_folder, paths) = root();
    for (order, module) in ["kato", "app", "etc"].into_iter().enumerate() {
        let mut note = Note {
            order,
            module: module.into(),
            recovery: module == "kato",
            ..note(false)
        };
        note.save(&paths).unwrap();
    }
    let names: Vec<_> = all(&paths).unwrap().into_iter().map(|note| note.module).collect();
    assert_eq!(names, ["etc", "app", "kato"]);
    forget(&paths).unwrap();
    assert_eq!(all(&paths).unwrap(), []);
}

#[test]
fn a_note_is_about_the_root_at_hand_wherever_it_was_written() {
    let (folder, _) = root();
    let paths = |name: &str| NodePaths::new(&folder.path().join(name), Path::new("/state"));
    let (old, new) = (paths("old"), paths("new"));
    let app = old.root().join("app");
    put(&app.join("file"), "old");
    let mut note = Note {
        root: old.root().to_owned(),
        ..note(false)
    };
    let kept = note.kept_beside(&app);
    note.place(&app, kept.clone()).unwrap();
    note.making(&old.root().join("made/deep"));
    let command = |root: &Path| Line {
        env: vec![
            "KATO_NODE=n1".into(),
            format!("KATO_ROOT={}", root.display()),
            format!("KATO_DIR={}/work/m", root.display()),
        ],
        argv: vec![format!("{}/work/m/back", root.display()), "/usr/bin/true".into()],
    };
    let act = |root: &Path| Act::Command {
        line: command(root),
        probe: command(root),
    };
    note.act(act(old.root()), std::time::Duration::from_secs(1));
    note.save(&old).unwrap();
    durable::rename(&app, &kept).unwrap();
    put(&app.join("file"), "new");

    durable::rename(old.root(), new.root()).unwrap();
    let mut moved = read(&new, "m").unwrap().unwrap();
    assert_eq!(moved.acts[0].act, act(new.root()));
    moved.acts.clear();
    undo(&new, &mut moved).unwrap();
    check(&moved).unwrap();
    assert_eq!(fs::read_to_string(new.root().join("app/file")).unwrap(), "old");
    assert!(!old.root().exists());
    // Where it was written it means what it says.
    assert_eq!(moved.clone().below(new.root()), moved);
}
