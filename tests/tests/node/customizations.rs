//! Local changes: listed, saved, shown, put back, merged.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    time::Duration,
};

use anyhow::{Context as _, Result};
use integration_tests::{
    command,
    node::TestNode,
    releases::{TestModule, TestRelease},
};
use kato_shared::durable;
use serde_json::Value;

use crate::setup::Site;

/// `kato customizations <arguments> --json`: exit code and document.
fn customizations(node: &TestNode, arguments: &[&str]) -> Result<(Option<i32>, Value)> {
    let mut kato = node.kato(&["--json", "customizations"])?;
    kato.args(arguments);
    let output = command::run(kato, Duration::from_secs(60), &[])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let document =
        serde_json::from_slice(&output.stdout).with_context(|| format!("no document; it said {said}"))?;
    Ok((output.status.code(), document))
}

/// The same for people: exit code, and stdout with stderr.
fn said(node: &TestNode, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let mut kato = node.kato(&["customizations"])?;
    kato.args(arguments);
    let output = command::run(kato, Duration::from_secs(60), &[])?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8(text)?))
}

/// `path what class` of every change.
fn changes(document: &Value) -> Vec<String> {
    let changes = document["changes"].as_array().cloned().unwrap_or_default();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    changes
        .iter()
        .map(|change| {
            let what: Vec<String> = change["what"]
                .as_array()
                .into_iter()
                .flatten()
                .map(word)
                .collect();
            format!(
                "{} {} {}",
                word(&change["path"]),
                what.join("+"),
                word(&change["class"])
            )
        })
        .collect()
}

const LINES: [&str; 7] = [
    "worker 1",
    "user www",
    "",
    "listen 80",
    "root /s/www",
    "",
    "gzip on",
];

fn lines(changed: &[(usize, &str)]) -> String {
    let mut lines = LINES.map(str::to_owned);
    for (at, line) in changed {
        (*line).clone_into(&mut lines[*at]);
    }
    lines.join("\n") + "\n"
}

/// A release with an overlay that merges `*.conf` and keeps `keep.conf`, a `replace` folder with a safe path, and a version folder.
fn release(version: &str, conf: &str, keep: &str) -> TestRelease {
    let install = "policy = \"overlay\"\ndest = \"/s/etc\"\n[module.conffiles]\n\
                   \"/s/etc/*.conf\" = \"merge\"\n\"/s/etc/keep.conf\" = \"keep\"";
    let text = format!("version {version}\n");
    let etc = TestModule::new(
        "etc",
        install,
        &[
            ("web.conf", conf),
            ("keep.conf", keep),
            ("plain.txt", &text),
            ("same.txt", "same\n"),
        ],
    );
    let web = TestModule::new(
        "web",
        "policy = \"replace\"\ndest = \"/s/code/web\"",
        &[
            ("index.html", &text),
            ("style.css", "a\nb\nc\n"),
            ("custom/theirs.txt", &text),
        ],
    );
    let app = TestModule::new(
        "app",
        "policy = \"versioned\"\ndest = \"/s/code/app\"",
        &[("run", &text)],
    );
    let mut release = TestRelease::standard(version);
    release
        .head
        .push_str("safe_paths = [\"/s/code/web/custom\", \"/home/x/*\"]\n");
    release.modules = vec![etc, web, app];
    release
}

async fn site() -> Result<Site> {
    let one = release("1.0.0", &lines(&[]), "one\n");
    let two = release("2.0.0", &lines(&[(6, "gzip off")]), "two\n");
    let site = Site::with(&[one, two]).await?;
    site.node.upgrade_ends(0, &["--version", "1.0.0"])?;
    Ok(site)
}

#[tokio::test(flavor = "multi_thread")]
async fn r47_r44_every_kind_of_change_is_listed_by_class_and_a_clean_node_has_none() -> Result<()> {
    let site = site().await?;
    let node = &site.node;
    let (code, document) = customizations(node, &["scan"])?;
    assert_eq!((code, changes(&document)), (Some(0), vec![]));
    node.put("s/etc/plain.txt", "mine\n")?;
    node.put("s/etc/local.txt", "new\n")?;
    fs::set_permissions(node.path("s/etc/web.conf"), fs::Permissions::from_mode(0o600))?;
    fs::remove_file(node.path("s/code/web/style.css"))?;
    fs::remove_file(node.path("s/code/web/index.html"))?;
    symlink("/etc/hostname", node.path("s/code/web/index.html"))?;
    node.put("s/code/web/new/deep.txt", "deep")?;
    node.put("s/code/web/custom/logo", "mine")?;
    node.put("home/x/notes", "mine")?;
    let version = fs::canonicalize(node.path("s/code/app/current"))?;
    durable::write(&version.join("run"), b"patched", 0o644)?;
    let mut expected = vec![
        "/home/x/notes added safe".to_owned(),
        format!(
            "/s/code/app/{}/run changed versioned",
            version.file_name().context("a name")?.display()
        ),
        "/s/code/web/custom/logo added safe".into(),
        "/s/code/web/index.html type replace".into(),
        "/s/code/web/new/deep.txt added replace".into(),
        "/s/code/web/style.css deleted replace".into(),
        "/s/etc/local.txt added overlay".into(),
        "/s/etc/plain.txt changed overlay".into(),
        "/s/etc/web.conf mode overlay".into(),
    ];
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(node.path("s/etc/same.txt"), Some(12), None)?;
        expected.insert(7, "/s/etc/same.txt owner overlay".into());
    }
    expected.sort();
    let (code, document) = customizations(node, &["scan"])?;
    assert_eq!((code, changes(&document)), (Some(11), expected));
    // Nothing of it is worth a word when only safe paths differ.
    let (_, text) = said(node, &["scan"])?;
    assert!(
        text.contains("replace: 3 files") && text.contains("no upgrade touches them"),
        "{text}"
    );

    foreseen(node)
}

/// R44: the plan says what becomes of each change.
fn foreseen(node: &TestNode) -> Result<()> {
    let plan = command::run(
        node.kato(&["node", "upgrade", "--plan", "--json"])?,
        Duration::from_secs(60),
        &[],
    )?;
    let plan: Value = serde_json::from_slice(&plan.stdout)?;
    let fate = |path: &str| {
        let modules = plan["local_changes"].as_array().cloned().unwrap_or_default();
        let files: Vec<Value> = modules
            .iter()
            .filter_map(|m| m["files"].as_array().cloned())
            .flatten()
            .collect();
        let found = files.iter().find(|file| file["path"] == path);
        found
            .and_then(|file| file["fate"].as_str().map(str::to_owned))
            .unwrap_or_default()
    };
    for (path, expected) in [
        ("/s/etc/plain.txt", "saved"),
        ("/s/etc/local.txt", "kept"),
        ("/s/etc/web.conf", "kept"),
        ("/s/code/web/new/deep.txt", "lost"),
        ("/s/code/web/style.css", "back"),
        ("/s/code/web/custom/logo", "kept"),
    ] {
        assert_eq!(fate(path), expected, "{path} in {}", plan["local_changes"]);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r47_c19_conffiles_are_merged_kept_or_replaced_by_their_own_rule() -> Result<()> {
    let site = site().await?;
    let node = &site.node;
    node.put("s/etc/web.conf", &lines(&[(0, "worker 8")]))?;
    node.put("s/etc/keep.conf", "mine\n")?;
    node.put("s/etc/plain.txt", "mine\n")?;
    let said = node.upgrade_ends(0, &[])?;
    assert_eq!(
        node.text("s/etc/web.conf"),
        Some(lines(&[(0, "worker 8"), (6, "gzip off")]))
    );
    assert!(
        said.contains("web.conf was changed here and in the release; both changes are in it"),
        "{said}"
    );
    assert_eq!(node.text("s/etc/keep.conf").as_deref(), Some("mine\n"));
    assert_eq!(node.text("s/etc/keep.conf.new").as_deref(), Some("two\n"));
    assert_eq!(node.text("s/etc/plain.txt").as_deref(), Some("version 2.0.0\n"));
    // What was merged is still a local change, and the next upgrade merges it again.
    let (code, document) = customizations(node, &["scan"])?;
    assert_eq!(code, Some(11));
    assert!(changes(&document).contains(&"/s/etc/web.conf changed overlay".to_owned()));
    let (_, text) = self::said(node, &["diff", "/s/etc/web.conf"])?;
    assert!(
        text.contains("-worker 1\n+worker 8\n") && !text.contains("gzip off\n+"),
        "{text}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r47_c19_what_cannot_be_merged_is_saved_and_said() -> Result<()> {
    let site = site().await?;
    let node = &site.node;
    node.put("s/etc/web.conf", &lines(&[(6, "gzip fast")]))?;
    let said = node.upgrade_ends(0, &[])?;
    assert_eq!(node.text("s/etc/web.conf"), Some(lines(&[(6, "gzip off")])));
    assert!(
        said.contains("could not be merged: the two changes contradict each other"),
        "{said}"
    );
    assert_eq!(node.saved()?.len(), 1);

    // Without what the file was there is nothing to merge from.
    let site = self::site().await?;
    let node = &site.node;
    fs::remove_dir_all(node.state("pristine"))?;
    node.put("s/etc/web.conf", &lines(&[(0, "worker 8")]))?;
    let said = node.upgrade_ends(0, &[])?;
    assert!(
        said.contains("could not be merged: what it was before is not kept"),
        "{said}"
    );
    assert_eq!(node.saved()?.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r47_what_an_upgrade_takes_away_is_saved_and_comes_back_with_reapply() -> Result<()> {
    let site = site().await?;
    let node = &site.node;
    node.put("s/code/web/style.css", "a\nb\nmine\n")?;
    node.put("s/code/web/new/deep.txt", "deep")?;
    node.put("s/code/web/index.html", "contradicts\n")?;
    symlink("style.css", node.path("s/code/web/link.css"))?;
    fs::set_permissions(
        node.path("s/code/web/new/deep.txt"),
        fs::Permissions::from_mode(0o640),
    )?;
    let version = fs::canonicalize(node.path("s/code/app/current"))?;
    durable::write(&version.join("mine"), b"beside the program", 0o644)?;
    let told = node.upgrade_ends(0, &[])?;
    assert!(
        told.contains("5 local changes that the upgrade takes away are saved as"),
        "{told}"
    );
    assert_eq!(node.text("s/code/web/new/deep.txt"), None);
    let upgraded = node.product()?;

    let (code, plan) = customizations(node, &["reapply", "--plan"])?;
    assert_eq!((code, node.product()?), (Some(11), upgraded));
    assert_eq!(plan["files"].as_array().map(Vec::len), Some(5));
    // One of them alone, then the rest; what is there already is left.
    let (code, text) = said(node, &["reapply", "/s/code/web/new"])?;
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(node.text("s/code/web/new/deep.txt").as_deref(), Some("deep"));
    let mode = fs::metadata(node.path("s/code/web/new/deep.txt"))?
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);
    let (code, text) = said(node, &["reapply"])?;
    assert_eq!(code, Some(11), "{text}");
    assert!(
        text.contains("/s/code/web/new/deep.txt: is as it was saved"),
        "{text}"
    );
    assert_eq!(node.text("s/code/web/style.css").as_deref(), Some("a\nb\nmine\n"));
    assert_eq!(
        fs::read_link(node.path("s/code/web/link.css"))?.to_str(),
        Some("style.css")
    );
    // The version's folder is another one now.
    assert_eq!(
        node.text("s/code/app/current/mine").as_deref(),
        Some("beside the program")
    );
    // Both changed the same line: never silently over it.
    assert_eq!(
        node.text("s/code/web/index.html").as_deref(),
        Some("version 2.0.0\n")
    );
    let beside = integration_tests::node::names(&node.path("s/code/web"))
        .into_iter()
        .find(|name| name.starts_with("index.html.saved-"))
        .context("the saved file beside it")?;
    assert_eq!(
        node.text(&format!("s/code/web/{beside}")).as_deref(),
        Some("contradicts\n")
    );
    let again = node.product()?;
    assert_eq!(said(node, &["reapply"])?.0, Some(11));
    assert_eq!(node.product()?, again);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r47_reapply_merges_and_saves_what_it_overwrites() -> Result<()> {
    let one = release("1.0.0", &lines(&[]), "one\n");
    let mut two = release("2.0.0", &lines(&[]), "one\n");
    two.modules[1].files[1].1 = b"0\na\nb\nc\n".to_vec();
    let site = Site::with(&[one, two]).await?;
    let node = &site.node;
    node.upgrade_ends(0, &["--version", "1.0.0"])?;
    node.put("s/code/web/style.css", "a\nb\nc\nmine\n")?;
    fs::remove_file(node.path("s/etc/same.txt"))?;
    let (code, _) = said(node, &["save"])?;
    assert_eq!(code, Some(0));
    node.upgrade_ends(0, &[])?;
    // Changed again since, far from the other changes.
    node.put("s/code/web/style.css", "0\na\nb\nc\nlater\n")?;
    let by_hand = said(node, &["list"])?.1;
    let id = by_hand
        .lines()
        .last()
        .and_then(|line| line.split(' ').next())
        .context("an id")?
        .to_owned();
    let (code, text) = said(node, &["reapply", "--from", &id, "/s/code/web"])?;
    assert_eq!(code, Some(11), "both appended a line there: {text}");
    node.put("s/code/web/style.css", "0\na\nb\nc\n")?;
    let (code, text) = said(node, &["reapply", "--from", &id])?;
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("style.css: merged with the release's changes"),
        "{text}"
    );
    assert_eq!(
        node.text("s/code/web/style.css").as_deref(),
        Some("0\na\nb\nc\nmine\n")
    );
    assert_eq!(node.text("s/etc/same.txt"), None);

    // A damaged archive is not used; an unknown one is named.
    let archive = node.state(&format!("customizations/{id}/files.tar.zst"));
    let mut bytes = fs::read(&archive)?;
    bytes.extend_from_slice(b"more");
    durable::write(&archive, &bytes, 0o600)?;
    let (code, text) = said(node, &["reapply", "--from", &id])?;
    assert!(code == Some(20) && text.contains("is damaged"), "{text}");
    let (code, text) = said(node, &["reapply", "--from", "none-such"])?;
    assert!(
        code == Some(20) && text.contains("no saved local changes are called `none-such`"),
        "{text}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r47_differences_are_shown_or_it_is_said_why_not() -> Result<()> {
    let mut site = site().await?;
    let node = &mut site.node;
    node.put("s/etc/plain.txt", "mine\n")?;
    node.put("s/etc/local.txt", "new\n")?;
    durable::write(&node.path("s/code/web/index.html"), &[0, 1, 2], 0o644)?;
    let (code, text) = said(node, &["diff", "--all"])?;
    assert_eq!(code, Some(11));
    for part in [
        "--- a/s/etc/plain.txt\n+++ b/s/etc/plain.txt\n@@ -1 +1 @@\n-version 1.0.0\n+mine\n",
        "--- /dev/null\n+++ b/s/etc/local.txt\n@@ -0,0 +1 @@\n+new\n",
        "# /s/code/web/index.html: it is no short text",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (code, text) = said(node, &["diff", "/s/etc/same.txt"])?;
    assert!(
        code == Some(20) && text.contains("is as the installed release has it"),
        "{text}"
    );
    fs::remove_dir_all(node.state("pristine"))?;
    let (_, text) = said(node, &["diff", "/s/etc/plain.txt"])?;
    assert!(
        text.contains("what it was is not known: the archive sha256:"),
        "{text}"
    );
    assert!(text.contains("is not kept"), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r47_old_archives_go_and_only_their_owner_can_look_into_them() -> Result<()> {
    let mut site = site().await?;
    let node = &mut site.node;
    node.add_settings("[customizations]\nkeep = 2\n")?;
    assert!(said(node, &["save"])?.1.contains("there is nothing to save"));
    let mut ids = Vec::new();
    for text in ["one", "two", "three"] {
        node.put("s/etc/plain.txt", text)?;
        let (code, saved) = customizations(node, &["save"])?;
        assert_eq!(code, Some(0));
        ids.push(saved["id"].as_str().context("an id")?.to_owned());
    }
    let left = integration_tests::node::names(&node.state("customizations"));
    assert_eq!(left, ids[1..]);
    let mode = |path: &str| fs::metadata(node.state(path)).map(|found| found.permissions().mode() & 0o777);
    assert_eq!(mode(&format!("customizations/{}", ids[2]))?, 0o700);
    assert_eq!(mode(&format!("customizations/{}/files.tar.zst", ids[2]))?, 0o600);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r43_safe_paths_are_not_touched_by_any_policy_even_where_the_release_brings_something() -> Result<()>
{
    let safe = "safe_paths = [\"/s/etc/site\", \"/s/code/web/custom\"]\n";
    let make = |version: &str| {
        let mut release = release(version, &lines(&[]), "one\n");
        release.head = format!("restart = \"none\"\n{safe}");
        release.modules[0]
            .files
            .push(("site/a.conf".into(), version.as_bytes().to_vec(), 0o644));
        release
    };
    let site = Site::with(&[make("1.0.0"), make("2.0.0")]).await?;
    let node = &site.node;
    node.upgrade_ends(0, &["--version", "1.0.0"])?;
    assert_eq!(node.text("s/etc/site/a.conf"), None, "safe from the beginning");
    node.put("s/etc/site/a.conf", "mine")?;
    node.put("s/code/web/custom/theirs.txt", "mine")?;
    node.put("s/code/web/custom/logo", "mine")?;
    node.upgrade_ends(0, &[])?;
    for path in [
        "s/etc/site/a.conf",
        "s/code/web/custom/theirs.txt",
        "s/code/web/custom/logo",
    ] {
        assert_eq!(node.text(path).as_deref(), Some("mine"), "{path}");
    }
    assert_eq!(
        node.text("s/code/web/index.html").as_deref(),
        Some("version 2.0.0\n")
    );
    Ok(())
}
