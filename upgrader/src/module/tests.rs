//! Every policy on real folders: a first installation, an upgrade with local changes, and a second try.

use std::{fs, time::Duration};

use jiff::Timestamp;
use kato_shared::{Digest, durable, release::FileEntry};
use serde_json::json;

use super::*;

/// A node in a temporary folder.
struct Node {
    _folder: tempfile::TempDir,
    root: PathBuf,
    paths: NodePaths,
    settings: Settings,
    children: Children,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let paths = NodePaths::new(&root, Path::new("/var/kato"));
        durable::create_folder(&paths.staging()).unwrap();
        Self {
            _folder: folder,
            root,
            paths,
            settings: Settings::default(),
            children: Children::default(),
        }
    }

    fn put(&self, path: &str, content: &str) {
        let path = self.root.join(path);
        durable::create_folder(path.parent().unwrap()).unwrap();
        durable::write(&path, content.as_bytes(), 0o644).unwrap();
    }

    fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.join(path)).ok()
    }

    fn names(&self, path: &str) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.root.join(path))
            .unwrap()
            .map(|item| item.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Stages an archive of `files` and gives an upgrade with one module that installs it.
    fn attempt(&self, version: &str, install: &serde_json::Value, files: &[(&str, &str)]) -> Attempt {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
        let bytes = zstd::encode_all(&tar.into_inner().unwrap()[..], 1).unwrap();
        let sha256 = Digest::of(&bytes);
        durable::write(&self.paths.staging().join(sha256.hex()), &bytes, 0o644).unwrap();
        let listed: Vec<_> = files
            .iter()
            .map(|(path, content)| FileEntry {
                path: path.into(),
                sha256: Digest::of(content.as_bytes()),
                mode: 0o644,
            })
            .collect();
        let release = json!({
            "schema": 1, "product": "demo", "version": version, "published": "2026-01-01T00:00:00Z",
            "artifacts": {"a": {"target": "artifacts/a", "sha256": sha256, "size": bytes.len()}},
            "modules": [{"name": "m", "artifact": "a", "roles": ["*"], "install": install, "files": listed}],
            "safe_paths": ["/s/*/custom"],
        });
        let release = Release::from_json("r", &serde_json::to_vec(&release).unwrap()).unwrap();
        Attempt::new(None, release, sha256, Timestamp::UNIX_EPOCH)
    }

    fn job<'a>(&'a self, attempt: &'a Attempt, base: Option<&'a InstalledModule>) -> Job<'a> {
        Job {
            module: &attempt.release.modules[0],
            artifact: &attempt.release.artifacts["a"],
            attempt,
            node: "n1",
            paths: &self.paths,
            settings: &self.settings,
            children: &self.children,
            base,
            deadline: Instant::now() + Duration::from_secs(60),
        }
    }

    /// What the record says after the module was installed.
    fn installed(&self, job: &Job<'_>) -> InstalledModule {
        InstalledModule {
            version: None,
            sha256: job.artifact.sha256,
            dest: job.module.install.dest().map(Path::to_owned),
            install: Some(job.module.install.clone()),
            entries: Work::load(&self.paths, "m").unwrap().unwrap().entries,
        }
    }
}

#[tokio::test]
async fn replace_exchanges_the_folder_keeps_the_old_one_until_the_end_and_carries_safe_paths_over() {
    let node = Node::new();
    node.put("s/web/index", "old");
    node.put("s/web/custom/logo", "mine");
    let attempt = node.attempt(
        "2.0.0",
        &json!({"policy": "replace", "dest": "/s/web"}),
        &[("index", "new")],
    );
    let job = node.job(&attempt, None);
    for _again in 0..2 {
        install(&job).await.unwrap();
        check(&job).await.unwrap();
        assert_eq!(node.text("s/web/index").as_deref(), Some("new"));
        assert_eq!(node.text("s/web/custom/logo").as_deref(), Some("mine"));
        assert_eq!(
            node.text(&format!("s/web.old-{}/index", attempt.id)).as_deref(),
            Some("old")
        );
        // A deleted latch has it unpacked and exchanged once more.
        Work::close(&node.paths, "m").unwrap();
    }
    settle(&job).unwrap();
    assert_eq!(node.names("s"), ["web"]);
}

#[tokio::test]
async fn replace_leaves_the_folder_itself_its_mode_where_the_archive_says_nothing_of_it() {
    use std::os::unix::fs::PermissionsExt as _;

    let node = Node::new();
    node.put("s/web/index", "old");
    let web = node.root.join("s/web");
    let mode = || fs::metadata(&web).unwrap().permissions().mode() & 0o7777;
    fs::set_permissions(&web, fs::Permissions::from_mode(0o2750)).unwrap();
    let policy = json!({"policy": "replace", "dest": "/s/web"});
    let attempt = node.attempt("2.0.0", &policy, &[("index", "new")]);
    install(&node.job(&attempt, None)).await.unwrap();
    assert_eq!(
        (node.text("s/web/index").as_deref(), mode()),
        (Some("new"), 0o2750)
    );
    // Nothing was there: as every folder that kato makes.
    fs::remove_dir_all(&web).unwrap();
    let attempt = node.attempt("2.0.1", &policy, &[("index", "newer")]);
    install(&node.job(&attempt, None)).await.unwrap();
    assert_eq!(
        (node.text("s/web/index").as_deref(), mode()),
        (Some("newer"), 0o755)
    );
}

#[tokio::test]
async fn versioned_moves_the_link_and_keeps_the_version_before() {
    let node = Node::new();
    let policy =
        json!({"policy": "versioned", "dest": "/s/kato", "link": "/home/bin/kato", "link_to": "bin/kato"});
    for (version, content) in [("1.0.0", "one"), ("2.0.0", "two"), ("3.0.0", "three")] {
        let attempt = node.attempt(version, &policy, &[("bin/kato", content)]);
        let job = node.job(&attempt, None);
        install(&job).await.unwrap();
        check(&job).await.unwrap();
        settle(&job).unwrap();
        assert_eq!(node.text("home/bin/kato").as_deref(), Some(content));
        assert!(
            fs::read_link(node.root.join("home/bin/kato"))
                .unwrap()
                .starts_with("../../s/kato")
        );
    }
    let kept = node.names("s/kato");
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(
        kept[0].starts_with("2.0.0-") && kept[1].starts_with("3.0.0-"),
        "{kept:?}"
    );
}

#[tokio::test]
async fn versioned_takes_over_a_folder_that_was_not_versioned() {
    let node = Node::new();
    node.put("s/app/file", "old");
    let policy = json!({"policy": "versioned", "dest": "/s/apps", "link": "/s/app"});
    let attempt = node.attempt("2.0.0", &policy, &[("file", "new")]);
    let job = node.job(&attempt, None);
    install(&job).await.unwrap();
    check(&job).await.unwrap();
    assert_eq!(node.text("s/app/file").as_deref(), Some("new"));
    assert_eq!(
        node.text(&format!("s/app.old-{}/file", attempt.id)).as_deref(),
        Some("old")
    );
    settle(&job).unwrap();
    assert_eq!(node.names("s"), ["app", "apps"]);
}

#[tokio::test]
async fn r45_overlay_saves_changed_files_and_leaves_new_ones_alone() {
    let node = Node::new();
    let policy = json!({"policy": "overlay", "dest": "/s/etc"});
    let one = node.attempt(
        "1.0.0",
        &policy,
        &[
            ("a", "a1"),
            ("b", "b1"),
            ("d/c", "c1"),
            ("gone", "g1"),
            ("custom", "v1"),
        ],
    );
    let job = node.job(&one, None);
    install(&job).await.unwrap();
    let base = node.installed(&job);
    undo::forget(&node.paths).unwrap();
    node.put("s/etc/b", "mine");
    node.put("s/etc/d/local", "mine");
    node.put("s/etc/new", "mine too");
    node.put("s/etc/custom", "never touched");

    let two = node.attempt(
        "2.0.0",
        &policy,
        &[
            ("a", "a2"),
            ("b", "b2"),
            ("d/c", "c1"),
            ("new", "n2"),
            ("custom", "v2"),
        ],
    );
    let job = node.job(&two, Some(&base));
    for _again in 0..2 {
        let report = install(&job).await.unwrap();
        check(&job).await.unwrap();
        assert_eq!(node.text("s/etc/a").as_deref(), Some("a2"));
        assert_eq!(node.text("s/etc/b").as_deref(), Some("b2"));
        assert_eq!(node.text("s/etc/d/local").as_deref(), Some("mine"));
        assert_eq!(node.text("s/etc/new").as_deref(), Some("n2"));
        assert_eq!(node.text("s/etc/custom").as_deref(), Some("never touched"));
        assert_eq!(node.text("s/etc/gone"), None);
        let saved = job.saved();
        assert_eq!(fs::read_to_string(saved.join("b")).unwrap(), "mine");
        assert_eq!(fs::read_to_string(saved.join("new")).unwrap(), "mine too");
        assert_eq!(report.lines.len(), 2, "{:?}", report.lines);
    }
    undo::forget(&node.paths).unwrap();
    assert_eq!(node.names("s"), ["etc"]);
}

#[tokio::test]
async fn every_policy_goes_back_to_exactly_what_was_there() {
    let policies = [
        json!({"policy": "versioned", "dest": "/s/m", "link": "/home/bin/m", "link_to": "a"}),
        json!({"policy": "versioned", "dest": "/opt/made/m", "link": "/s/etc"}),
        json!({"policy": "replace", "dest": "/s/etc"}),
        json!({"policy": "replace", "dest": "/opt/made/etc"}),
        json!({"policy": "overlay", "dest": "/s/etc"}),
        json!({"policy": "overlay", "dest": "/opt/made/etc"}),
    ];
    for policy in policies {
        let node = Node::new();
        node.put("home/bin/m", "a program that was put there by hand");
        node.put("s/etc/a", "old");
        node.put("s/etc/d/local", "mine");
        let product = || {
            let mut entries = tree::scan(&node.root).unwrap();
            entries.retain(|entry| !entry.path.starts_with("var"));
            entries
        };
        let before = product();
        let one = node.attempt("2.0.0", &policy, &[("a", "new"), ("d/x", "new"), ("n/n", "new")]);
        install(&node.job(&one, None)).await.unwrap();
        // A second attempt, to another release, has the same way back.
        let two = node.attempt("2.0.1", &policy, &[("a", "newer"), ("other", "newer")]);
        install(&node.job(&two, None)).await.unwrap();
        assert_ne!(product(), before, "{policy}");
        for mut note in undo::all(&node.paths).unwrap() {
            undo::undo(&node.paths, &mut note).unwrap();
            undo::check(&note).unwrap();
        }
        undo::forget(&node.paths).unwrap();
        assert_eq!(product(), before, "{policy}");
    }
}

#[tokio::test]
async fn an_overlay_that_must_not_be_installed_changes_nothing() {
    let node = Node::new();
    node.put("s/etc/a", "mine");
    node.put("s/etc/d", "a file here");
    let policy = json!({"policy": "overlay", "dest": "/s/etc", "conflict": "fail"});
    let attempt = node.attempt("1.0.0", &policy, &[("0", "0"), ("a", "a1"), ("d/x", "x")]);
    let job = node.job(&attempt, None);
    let before = tree::scan(&node.root.join("s/etc")).unwrap();
    let error = install(&job).await.unwrap_err().to_string();
    assert!(
        error.contains("a (changed here and in the release)") && error.contains("d (a folder in the release"),
        "{error}"
    );
    assert_eq!(tree::scan(&node.root.join("s/etc")).unwrap(), before);
}

#[tokio::test]
async fn a_destination_that_was_moved_to_another_disk_by_a_link_is_followed_but_not_out_of_the_root() {
    let node = Node::new();
    node.put("big/web/index", "old");
    durable::create_folder(&node.root.join("s")).unwrap();
    durable::symlink(&node.root.join("big/web"), &node.root.join("s/web")).unwrap();
    let policy = json!({"policy": "replace", "dest": "/s/web"});
    let attempt = node.attempt("2.0.0", &policy, &[("index", "new")]);
    install(&node.job(&attempt, None)).await.unwrap();
    assert!(node.root.join("s/web").is_symlink());
    assert_eq!(node.text("big/web/index").as_deref(), Some("new"));

    let outside = tempfile::tempdir().unwrap();
    durable::symlink(outside.path(), &node.root.join("s/web")).unwrap();
    assert!(matches!(
        install(&node.job(&attempt, None)).await,
        Err(ModuleError::OutsideRoot { .. })
    ));
}
