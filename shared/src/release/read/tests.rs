//! What a release document must not say.

use serde_json::{Value, json};

use super::*;

fn document() -> Value {
    json!({
        "schema": 1, "product": "demo", "version": "2.0.0", "published": "2026-01-01T00:00:00Z",
        "from": {"min": "1.0.0"},
        "artifacts": {"a.tar.zst": {"target": "artifacts/x.a", "sha256": "00".repeat(32), "size": 3}},
        "modules": [
            {"name": "web", "artifact": "a.tar.zst", "roles": ["*"], "after": ["kato"], "install": {"policy": "replace", "dest": "/s/web"}},
            {"name": "kato", "artifact": "a.tar.zst", "roles": ["DEA"], "install": {"policy": "versioned", "dest": "/s/kato", "link": "/s/bin/kato"}},
        ],
        "checks": [{"id": "version-readback"}, {"id": "http", "url": "http://127.0.0.1/", "status": 204}],
        "something_new": {"ignored": true},
    })
}

fn read(document: &Value) -> Result<Release, String> {
    Release::from_json("releases/2.0.0/release.json", document.to_string().as_bytes())
        .map_err(|error| error.to_string())
}

#[test]
fn a_sound_document_is_read_with_its_defaults_and_unknown_keys_are_ignored() {
    let release = read(&document()).unwrap();
    assert_eq!(
        release.role_order,
        ["dea", "controller", "router", "base", "primary"]
    );
    assert_eq!(release.checks.len(), 2);
    let order: Vec<_> = release
        .install_order()
        .unwrap()
        .into_iter()
        .map(|module| module.name.as_str())
        .collect();
    assert_eq!(order, ["kato", "web"]);
    assert!(release.modules[1].is_for(&["dea".into()]) && !release.modules[1].is_for(&["router".into()]));
}

#[test]
fn what_it_writes_it_reads() {
    let release = read(&document()).unwrap();
    let again = Release::from_json("again", &serde_json::to_vec(&release).unwrap()).unwrap();
    assert_eq!(release, again);
}

#[test]
fn an_unknown_policy_is_refused_by_name() {
    let mut changed = document();
    changed["modules"][0]["install"] = json!({"policy": "teleport", "dest": "/s/web"});
    changed["min_upgrader"] = json!("9.0.0");
    assert_eq!(
        read(&changed).unwrap_err(),
        "releases/2.0.0/release.json: the module `web` asks for policy `teleport`, this upgrader knows versioned, replace, overlay, package, \
         image, exec; \
         it needs upgrader 9.0.0 or newer"
    );
}

#[test]
fn an_unknown_check_is_refused_by_name() {
    let mut changed = document();
    changed["checks"][0]["id"] = json!("aura");
    assert!(read(&changed).unwrap_err().contains("check `aura`"));
}

#[test]
fn a_newer_schema_is_refused_before_anything_else_is_read() {
    let mut changed = document();
    changed["schema"] = json!(2);
    changed["version"] = json!({"changed": "shape"});
    assert_eq!(
        read(&changed).unwrap_err(),
        "releases/2.0.0/release.json has schema 2, this upgrader reads up to 1"
    );
}

#[test]
fn contradictions_are_named() {
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 17] = [
        (
            |d| d["modules"][1]["name"] = json!("web"),
            "two modules are named `web`",
        ),
        (
            |d| d["modules"][0]["artifact"] = json!("b"),
            "names the artifact `b`",
        ),
        (
            |d| d["modules"][0]["after"] = json!(["ghost"]),
            "comes after `ghost`",
        ),
        (
            |d| d["modules"][1]["after"] = json!(["web"]),
            "wait for each other",
        ),
        (
            |d| d["modules"][0]["install"]["dest"] = json!("/s/../etc"),
            "`/s/../etc`",
        ),
        (|d| d["modules"][0]["install"]["dest"] = json!("/"), "`/`"),
        (
            |d| d["modules"][0]["name"] = json!("../evil"),
            "cannot be a file name",
        ),
        (
            |d| d["safe_paths"] = json!(["/s/[a"]),
            "the safe path `/s/[a` is not a pattern",
        ),
        (
            |d| d["safe_paths"] = json!(["s/*"]),
            "the safe path `s/*` is not absolute",
        ),
        (|d| d["backup"] = json!(["etc"]), "the backup path `etc`"),
        (
            |d| d["modules"][0]["conffiles"] = json!({"/s/web/*.conf": "merge"}),
            "which only the policy overlay knows",
        ),
        (
            |d| {
                d["modules"][0]["install"] = json!({"policy": "overlay", "dest": "/s/web"});
                d["modules"][0]["conffiles"] = json!({"*.conf": "merge"});
            },
            "a rule for `*.conf`, which is not absolute",
        ),
        (
            |d| d["modules"][1]["version"] = json!("../../../etc/evil"),
            "the version `../../../etc/evil` of the module `kato` cannot be a file name",
        ),
        (
            |d| d["modules"][1]["install"]["link_to"] = json!("../../etc"),
            "the module `kato` links to `../../etc`",
        ),
        (
            |d| d["modules"][1]["install"]["dest"] = json!("/s/web/kato"),
            "`kato` installs to `/s/web/kato`, and `/s/web` of the module `web` is exchanged as a whole",
        ),
        (
            |d| d["modules"][0]["install"] = json!({"policy": "overlay", "dest": "/s/bin/kato/etc"}),
            "`/s/bin/kato` of the module `kato` is exchanged as a whole",
        ),
        (
            |d| d["modules"][0]["install"]["dest"] = json!("/s/kato"),
            "`/s/kato` of the module",
        ),
    ];
    for (change, expected) in cases {
        let mut changed = document();
        change(&mut changed);
        let error = read(&changed).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}
