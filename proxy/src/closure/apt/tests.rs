use std::fmt::Write as _;

use super::{super::tests::Held, universe::File, *};
use crate::closure::Declaration;

const ARCHIVE: &str = "http://d.example/debian";

/// A suite: its name, more of its document, and its packages by architecture, one a line: `name version [architecture]; Field: value; …`.
type Suite<'t> = (&'t str, &'t str, &'t [(&'t str, &'t str)]);

/// A snapshot of `suites` with all of their files, and their declarations without packages.
fn world(suites: &[Suite<'_>]) -> (Held, Vec<DeclaredSuite>) {
    let (mut held, mut declared) = (Held::default(), Vec::new());
    for (suite, head, lists) in suites {
        let mut document = format!("Suite: {suite}\n{head}SHA256:\n");
        let mut architectures = Vec::new();
        for (architecture, lines) in *lists {
            let index = index_of(&mut held, suite, architecture, lines);
            let name = format!("main/binary-{architecture}/Packages");
            let digest = held.put(&format!("{ARCHIVE}/dists/{suite}/{name}"), &index);
            writeln!(document, " {} {} {name}", digest.hex(), index.len()).unwrap();
            if *architecture != "all" {
                architectures.push((*architecture).to_owned());
            }
        }
        held.put(&format!("{ARCHIVE}/dists/{suite}/InRelease"), &document);
        declared.push(DeclaredSuite {
            archive: ARCHIVE.into(),
            suite: (*suite).into(),
            components: vec!["main".into()],
            architectures,
            packages: Vec::new(),
            status: None,
            recommends: false,
        });
    }
    (held, declared)
}

/// An index of `lines`, whose files come to be held.
fn index_of(held: &mut Held, suite: &str, architecture: &str, lines: &str) -> String {
    let mut index = String::new();
    for line in lines.lines() {
        let mut parts = line.split(';').map(str::trim);
        let words: Vec<&str> = parts.next().unwrap().split_whitespace().collect();
        let own = words.get(2).unwrap_or(&architecture);
        let file = format!(
            "pool/{suite}/{}_{}_{own}.deb",
            words[0],
            words[1].replace(':', "%3a")
        );
        let url = File::new(ARCHIVE, &file, None).url;
        let digest = held.put(&url, &format!("{file} {line}")).hex();
        let (name, version) = (words[0], words[1]);
        write!(
            index,
            "Package: {name}\nVersion: {version}\nArchitecture: {own}\nFilename: {file}\nSHA256: {digest}\n"
        )
        .unwrap();
        for field in parts {
            writeln!(index, "{field}").unwrap();
        }
        index.push('\n');
    }
    index
}

fn asked(declared: &[DeclaredSuite], packages: &[&str], status: Option<&str>) -> Declaration {
    let mut suites = declared.to_vec();
    suites[0].packages = packages.iter().map(|name| name.parse().unwrap()).collect();
    suites[0].status = status.map(|text| Arc::new(Status::of("dpkg-status", text).unwrap()));
    Declaration {
        suites,
        ..Declaration::default()
    }
}

/// The gaps where one suite for amd64 has `lines`, `packages` are asked for, and the file that ends with `without` is not held.
fn gaps(lines: &str, packages: &[&str], without: &str) -> Vec<String> {
    let (held, declared) = world(&[("s", "", &[("amd64", lines)])]);
    held.gaps(&asked(&declared, packages, None), without)
}

fn deb(name: &str) -> String {
    format!("{ARCHIVE}/pool/s/{name}.deb")
}

#[test]
fn what_a_package_needs_is_needed_to_the_last() {
    let lines = "tool 1; Depends: lib (>= 2), other\nlib 2; Pre-Depends: deep\ndeep 1 all; Depends: tool\nother 1\nnobody 1\n";
    assert_eq!(gaps(lines, &["tool"], ""), Vec::<String>::new());
    assert_eq!(gaps(lines, &["tool"], "nobody_1_amd64.deb"), Vec::<String>::new());
    assert_eq!(gaps(lines, &["tool"], "tool_1_amd64.deb"), [deb("tool_1_amd64")]);
    assert_eq!(
        gaps(lines, &["tool"], "lib_2_amd64.deb"),
        [format!(
            "{}, needed by tool (Depends: lib (>= 2))",
            deb("lib_2_amd64")
        )]
    );
    assert_eq!(
        gaps(lines, &["tool"], "deep_1_all.deb"),
        [format!(
            "{}, needed by lib (Pre-Depends: deep)",
            deb("deep_1_all")
        )]
    );
}

/// Packages of an index, those that are asked for, the end of the name of a file that is not held, and what then is missing.
type Case<'t> = (&'t str, &'t [&'t str], &'t str, &'t [&'t str]);

/// A file that is missing, perhaps with who needs it: `file < package (Depends: …)`.
const TAKEN: &[Case<'_>] = &[
    // The candidate, not whichever version is there.
    ("a 1\na 2\na 1:0.1\n", &["a"], "a_2_amd64.deb", &[]),
    ("a 1\na 2\n", &["a"], "a_2_amd64.deb", &["a_2_amd64"]),
    ("a 1~rc1\na 1\n", &["a"], "a_1_amd64.deb", &["a_1_amd64"]),
    ("a 1\na 2\n", &["a=1"], "a_2_amd64.deb", &[]),
    ("a 1\na 2\n", &["a=1"], "a_1_amd64.deb", &["a_1_amd64"]),
    ("a 1\na 2\n", &["a=1", "a=2"], "a_2_amd64.deb", &["a_2_amd64"]),
    ("a 1\na 2\n", &["a=1", "a=2"], "a_1_amd64.deb", &["a_1_amd64"]),
    (
        "a 1\na 2; Depends: b\nb 1\n",
        &["a=1", "a=2"],
        "b_1_amd64.deb",
        &["b_1_amd64 < a (Depends: b)"],
    ),
    // The first alternative, unless another is there already.
    (
        "a 1; Depends: b | c\nb 1\nc 1\n",
        &["a"],
        "b_1_amd64.deb",
        &["b_1_amd64 < a (Depends: b | c)"],
    ),
    ("a 1; Depends: b | c\nb 1\nc 1\n", &["a"], "c_1_amd64.deb", &[]),
    (
        "a 1; Depends: b | c\nb 1\nc 1\n",
        &["a", "c"],
        "b_1_amd64.deb",
        &[],
    ),
    ("a 1; Depends: c, b | c\nb 1\nc 1\n", &["a"], "b_1_amd64.deb", &[]),
    // One that cannot be had is passed over: it is in no index, too old, or needs what is not there.
    ("a 1; Depends: b | c\nc 1\n", &["a"], "", &[]),
    (
        "a 1; Depends: b (>= 2) | c\nb 1\nc 1\n",
        &["a"],
        "c_1_amd64.deb",
        &["c_1_amd64 < a (Depends: b (>= 2) | c)"],
    ),
    (
        "a 1; Depends: b | c\nb 1; Depends: gone\nc 1\n",
        &["a"],
        "b_1_amd64.deb",
        &[],
    ),
    (
        "a 1; Depends: b | c\nb 1; Depends: d\nd 1; Depends: b, gone\nc 1\n",
        &["a"],
        "b_1_amd64.deb",
        &[],
    ),
    (
        "a 1; Depends: b | c\nb 1; Depends: d\nd 1; Depends: b\nc 1\n",
        &["a"],
        "d_1_amd64.deb",
        &["d_1_amd64 < b (Depends: d)"],
    ),
    // Names that others provide.
    (
        "a 1; Depends: v\np 1; Provides: v\n",
        &["a"],
        "p_1_amd64.deb",
        &["p_1_amd64 < a (Depends: v)"],
    ),
    (
        "a 1; Depends: v\np 1; Provides: v\nq 1; Provides: v\n",
        &["a"],
        "p_1_amd64.deb",
        &[],
    ),
    // Of equal ones that which apt comes to know last, be it because another package says something of it.
    (
        "a 1; Depends: v\np 1; Provides: v\nq 1; Provides: v\n",
        &["a"],
        "q_1_amd64.deb",
        &["q_1_amd64 < a (Depends: v)"],
    ),
    (
        "z 1; Suggests: q\na 1; Depends: v\np 1; Provides: v\nq 1; Provides: v\n",
        &["a"],
        "p_1_amd64.deb",
        &["p_1_amd64 < a (Depends: v)"],
    ),
    (
        "z 1; Suggests: q:any\na 1; Depends: v\np 1; Provides: v\nq 1; Provides: v\n",
        &["a"],
        "q_1_amd64.deb",
        &["q_1_amd64 < a (Depends: v)"],
    ),
    // The source does not matter for that; nor does which one is held.
    (
        "a 1; Depends: v; Source: s\np 1; Provides: v; Source: s\nq 1; Provides: v\n",
        &["a"],
        "q_1_amd64.deb",
        &["q_1_amd64 < a (Depends: v)"],
    ),
    // What is essential or protected comes before what has a better priority, and the name itself before both.
    (
        "a 1; Depends: v\np 1; Provides: v; Essential: yes; Priority: extra\nq 1; Provides: v; Priority: required\n",
        &["a"],
        "p_1_amd64.deb",
        &["p_1_amd64 < a (Depends: v)"],
    ),
    (
        "a 1; Depends: v\np 1; Provides: v; Protected: yes; Priority: extra\nq 1; Provides: v; Priority: required\n",
        &["a"],
        "p_1_amd64.deb",
        &["p_1_amd64 < a (Depends: v)"],
    ),
    (
        "a 1; Depends: v\np 1; Provides: v; Essential: yes\nv 1; Priority: extra\n",
        &["a"],
        "v_1_amd64.deb",
        &["v_1_amd64 < a (Depends: v)"],
    ),
    // Nothing said comes before `required`.
    (
        "a 1; Depends: v\np 1; Provides: v\nq 1; Provides: v; Priority: required\n",
        &["a"],
        "p_1_amd64.deb",
        &["p_1_amd64 < a (Depends: v)"],
    ),
    // What provides the other's name, in a circle.
    (
        "a 1; Depends: v\np 1; Provides: v, w; Depends: w\nq 1; Provides: w, v; Depends: p\n",
        &["a"],
        "q_1_amd64.deb",
        &["q_1_amd64 < a (Depends: v)"],
    ),
    (
        "a 1; Depends: v\np 1; Provides: v, w; Depends: w\nq 1; Provides: w, v; Depends: p\n",
        &["a"],
        "p_1_amd64.deb",
        &["p_1_amd64 < q (Depends: p)"],
    ),
    // What an alternative does not go together with is looked at before it is taken.
    (
        "a 1; Depends: x | y; Conflicts: x\nx 1\ny 1\n",
        &["a"],
        "y_1_amd64.deb",
        &["y_1_amd64 < a (Depends: x | y)"],
    ),
    (
        "a 1; Depends: x | y; Breaks: x\nx 1\ny 1\n",
        &["a"],
        "x_1_amd64.deb",
        &[],
    ),
    (
        "a 1; Depends: x | y; Breaks: x (<< 1)\nx 1\ny 1\n",
        &["a"],
        "y_1_amd64.deb",
        &[],
    ),
    (
        "a 1; Depends: v\np 1; Provides: v; Conflicts: v\nq 1; Provides: v; Conflicts: v\n",
        &["a"],
        "p_1_amd64.deb",
        &[],
    ),
    (
        "a 1; Depends: v\np 1; Provides: v; Priority: important\nq 1; Provides: v; Priority: optional\n",
        &["a"],
        "p_1_amd64.deb",
        &["p_1_amd64 < a (Depends: v)"],
    ),
    (
        "a 1; Depends: v (>= 2)\np 1; Provides: v (= 2)\nq 1; Provides: v\n",
        &["a"],
        "p_1_amd64.deb",
        &["p_1_amd64 < a (Depends: v (>= 2))"],
    ),
    ("v 1; Provides: w\n", &["w"], "", &[]),
    // Architectures behind a colon, and of a need.
    (
        "a 1; Depends: b:any, c:native\nb 1; Multi-Arch: allowed\nc 1\n",
        &["a"],
        "b_1_amd64.deb",
        &["b_1_amd64 < a (Depends: b:any)"],
    ),
    ("a 1; Depends: b [arm64], c <stage1>\n", &["a"], "", &[]),
    ("a 1\n", &["a:amd64"], "a_1_amd64.deb", &["a_1_amd64"]),
    // A name as apt spells it in a URL.
    ("g++ 1:2\n", &["g++"], "", &[]),
    (
        "g++ 1:2\n",
        &["g++"],
        "g%2B%2B_1%253a2_amd64.deb",
        &["g%2B%2B_1%253a2_amd64"],
    ),
];

/// Of what indexes list apt takes the candidate, and the first alternative that can be had, whatever is held.
#[test]
fn what_apt_would_take_has_to_be_held() {
    for (lines, packages, without, expected) in TAKEN {
        let expected: Vec<String> = expected.iter().map(|file| missing(file)).collect();
        assert_eq!(
            gaps(lines, packages, without),
            expected,
            "{lines}{packages:?} without {without}"
        );
    }
}

fn missing(text: &str) -> String {
    if let Some(said) = text.strip_prefix("! ") {
        return said.to_owned();
    }
    match text.split_once(" < ") {
        Some((file, by)) => format!("{}, needed by {by}", deb(file)),
        None => deb(text),
    }
}

/// What indexes list, the package that is asked for, and what is said of it.
const UNMET: &[(&str, &str, &str)] = &[
    (
        "a 1; Depends: b\n",
        "a",
        "b, needed by a (Depends: b): b is in no index of amd64",
    ),
    (
        "a 1; Depends: b (>= 2)\nb 1\n",
        "a",
        "b, needed by a (Depends: b (>= 2)): the indexes of amd64 list b 1",
    ),
    // Apt takes candidates alone.
    (
        "a 1; Depends: b (<< 2)\nb 1\nb 2\n",
        "a",
        "b, needed by a (Depends: b (<< 2)): the indexes of amd64 list b 1, 2, of which apt takes 2",
    ),
    (
        "a 1; Depends: b (= 1)\nb 1-1\n",
        "a",
        "b, needed by a (Depends: b (= 1)): the indexes of amd64 list b 1-1",
    ),
    (
        "a 1; Depends: v (= 1)\np 1; Provides: v\n",
        "a",
        "v, needed by a (Depends: v (= 1)): v is in no index of amd64",
    ),
    (
        "a 1; Depends: b:any\nb 1\n",
        "a",
        "b, needed by a (Depends: b:any): the indexes of amd64 list b 1",
    ),
    (
        "a 1; Depends: b:arm64\nb 1\n",
        "a",
        "b, needed by a (Depends: b:arm64): the indexes of amd64 list b 1",
    ),
    // Where no alternative will do, the first one says why.
    (
        "a 1; Depends: b | c\nb 1; Depends: d\n",
        "a",
        "d, needed by b (Depends: d): d is in no index of amd64",
    ),
    (
        "p 1; Provides: v\nq 1; Provides: v\n",
        "v",
        "package v: provided by p, q, of which apt takes none by itself; declare one of them",
    ),
    (
        "a 1\n",
        "a:arm64",
        "package a:arm64: arm64 is not in its `architectures`",
    ),
    // Two that are needed and do not go together, by name, version and what is provided.
    (
        "a 1; Depends: x, z\nx 1\nz 1; Conflicts: x\n",
        "a",
        "z and x cannot be installed together: z (Conflicts: x)",
    ),
    (
        "a 1; Depends: x, z\nx 1; Breaks: z (<< 2)\nz 1\n",
        "a",
        "z and x cannot be installed together: x (Breaks: z (<< 2))",
    ),
    (
        "a 1; Depends: x, z\nx 1; Provides: v\nz 1; Conflicts: v\n",
        "a",
        "z and x cannot be installed together: z (Conflicts: v)",
    ),
    // Apt's problem resolver takes `y`; that is not followed.
    (
        "a 1; Depends: x | y, z\nx 1\ny 1\nz 1; Conflicts: x\n",
        "a",
        "x and z cannot be installed together: z (Conflicts: x)",
    ),
];

#[test]
fn what_no_candidate_meets_is_named_with_who_needs_it() {
    for (lines, package, expected) in UNMET {
        assert_eq!(gaps(lines, &[package], ""), [*expected], "{lines}");
    }
}

#[test]
fn each_architecture_has_its_own_packages() {
    let (held, declared) = world(&[(
        "s",
        "",
        &[("amd64", "a 1\nb 1 all\nc 1\n"), ("arm64", "a 1\nb 1 all\n")],
    )]);
    let gaps = |packages: &[&str], without: &str| held.gaps(&asked(&declared, packages, None), without);
    assert_eq!(gaps(&["a", "b"], ""), Vec::<String>::new());
    assert_eq!(gaps(&["a"], "a_1_amd64.deb"), [deb("a_1_amd64")]);
    assert_eq!(gaps(&["a"], "a_1_arm64.deb"), [deb("a_1_arm64")]);
    assert_eq!(gaps(&["a:arm64"], "a_1_amd64.deb"), Vec::<String>::new());
    assert_eq!(gaps(&["c"], ""), ["package c: in no index of arm64"]);
    assert_eq!(gaps(&["c:amd64"], ""), Vec::<String>::new());
}

/// Debian's own indexes have the packages for all; other suites have them apart.
#[test]
fn packages_for_all_that_are_listed_apart_are_read() {
    let lists: &[(&str, &str)] = &[("amd64", "a 1; Depends: b\n"), ("all", "b 1 all\n")];
    let (held, declared) = world(&[("s", "Architectures: all amd64\n", lists)]);
    let declaration = asked(&declared, &["a"], None);
    assert_eq!(held.gaps(&declaration, ""), Vec::<String>::new());
    let gaps = held.gaps(&declaration, "binary-all/Packages");
    assert!(
        gaps.iter().any(|gap| gap.contains("binary-all/Packages")),
        "{gaps:?}"
    );
    let of_debian = "Architectures: all amd64\nNo-Support-for-Architecture-all: Packages\n";
    let (held, declared) = world(&[("s", of_debian, lists)]);
    let gaps = held.gaps(&asked(&declared, &["a"], None), "");
    assert_eq!(gaps, ["b, needed by a (Depends: b): b is in no index of amd64"]);
}

#[test]
fn apt_resolves_over_all_declared_suites() {
    let stable: &[(&str, &str)] = &[("amd64", "a 1; Depends: b (>= 2)\nb 1\nc 1\n")];
    let updates: &[(&str, &str)] = &[("amd64", "b 2\nc 2\n")];
    let url = |suite: &str, name: &str| format!("{ARCHIVE}/pool/{suite}/{name}_amd64.deb");
    let (held, declared) = world(&[("stable", "", stable), ("updates", "", updates)]);
    let gaps = |package: &str, without: &str| held.gaps(&asked(&declared, &[package], None), without);
    assert_eq!(gaps("a", ""), Vec::<String>::new());
    assert_eq!(gaps("a", "stable/b_1_amd64.deb"), Vec::<String>::new());
    assert_eq!(
        gaps("a", "updates/b_2_amd64.deb"),
        [format!(
            "{}, needed by a (Depends: b (>= 2))",
            url("updates", "b_2")
        )]
    );
    assert_eq!(gaps("c", "updates/c_2_amd64.deb"), [url("updates", "c_2")]);
    // A suite that is not for automatic installation stands back.
    for (head, expected) in [
        ("NotAutomatic: yes\n", "stable"),
        ("NotAutomatic: yes\nButAutomaticUpgrades: yes\n", "stable"),
        ("NotAutomatic: no\n", "updates"),
    ] {
        let (held, declared) = world(&[("stable", "", stable), ("updates", head, updates)]);
        let version = if expected == "stable" { "c_1" } else { "c_2" };
        let taken = url(expected, version);
        let gaps = held.gaps(&asked(&declared, &["c"], None), &taken);
        assert_eq!(gaps, [taken], "{head}");
    }
}

const OF_MACHINES: &str = "tool 1; Depends: lib (>= 2), v\nlib 2\nlib-bin 2; Depends: lib (= 2)\np 1; Provides: v\nq 2; Breaks: old (<< 2)\nold 2\n";

/// Paragraphs of a status file: `name version [architecture [state]]; Field: value`.
const LIB: &str = "lib 2";
const OLD_LIB: &str = "lib 1";
const P: &str = "p 0; Provides: v";

/// What is installed, what is asked for, what is not held, and what then is missing.
const MACHINES: &[Case<'_>] = &[
    ("tool", &[LIB, P], "lib_2_amd64.deb", &[]),
    ("tool", &[LIB, P], "p_1_amd64.deb", &[]),
    ("tool", &[LIB, P], "tool_1_amd64.deb", &["tool_1_amd64"]),
    // Too old: it is upgraded, and what goes with it.
    (
        "tool",
        &[OLD_LIB],
        "lib_2_amd64.deb",
        &["lib_2_amd64 < tool (Depends: lib (>= 2))"],
    ),
    (
        "tool",
        &[OLD_LIB, "lib-bin 1; Depends: lib (= 1)", P],
        "lib-bin_2_amd64.deb",
        &["lib-bin_2_amd64 < what is installed: lib-bin (Depends: lib (= 1))"],
    ),
    (
        "q",
        &["old 1"],
        "old_2_amd64.deb",
        &["old_2_amd64 < q (Breaks: old (<< 2))"],
    ),
    // Removed, but for its configuration; and of another machine.
    (
        "tool",
        &[P, "lib 2 amd64 config-files"],
        "lib_2_amd64.deb",
        &["lib_2_amd64 < tool (Depends: lib (>= 2))"],
    ),
    (
        "tool",
        &[P, "lib 2 arm64"],
        "lib_2_amd64.deb",
        &["lib_2_amd64 < tool (Depends: lib (>= 2))"],
    ),
    // The newest is installed already; or an older one is, which apt upgrades.
    ("tool", &["tool 1"], "tool_1_amd64.deb", &[]),
    ("tool", &["tool 0.9"], "tool_1_amd64.deb", &["tool_1_amd64"]),
];

fn status(lines: &[&str]) -> String {
    let paragraph = |line: &&str| {
        let (words, field) = line.split_once("; ").unwrap_or((line, "Section: x"));
        let words: Vec<&str> = words.split(' ').collect();
        let (architecture, state) = (
            words.get(2).unwrap_or(&"amd64"),
            words.get(3).unwrap_or(&"installed"),
        );
        format!(
            "Package: {}\nStatus: install ok {state}\nVersion: {}\nArchitecture: {architecture}\n{field}\n",
            words[0], words[1]
        )
    };
    lines.iter().map(paragraph).collect::<Vec<_>>().join("\n")
}

/// What is installed counts with its version, and nothing but that is left out.
#[test]
fn what_the_machine_has_is_not_needed() {
    for (package, installed, without, expected) in MACHINES {
        let (held, declared) = world(&[("s", "", &[("amd64", OF_MACHINES)])]);
        let declaration = asked(&declared, &[package], Some(&status(installed)));
        let expected: Vec<String> = expected.iter().map(|file| missing(file)).collect();
        assert_eq!(
            held.gaps(&declaration, without),
            expected,
            "{installed:?} without {without}"
        );
    }
}

/// What indexes list, what a machine has, the end of the name of a file that is not held, and what then is missing for `app`.
type Upgrade<'t> = (&'t str, &'t str, &'t str, &'t [&'t str]);

const UPGRADES: &[Upgrade<'_>] = &[
    // An alternative that upgrades what is installed comes before a new one.
    (
        "app 1; Depends: old | lib (>= 2)\nold 1\nlib 2\n",
        "lib 1",
        "lib_2_amd64.deb",
        &["lib_2_amd64 < app (Depends: old | lib (>= 2))"],
    ),
    (
        "app 1; Depends: old | lib (>= 2)\nold 1\nlib 2\n",
        "lib 1",
        "old_1_amd64.deb",
        &[],
    ),
    (
        "app 1; Depends: a\na 1\nb 2; Provides: a\n",
        "b 1",
        "b_2_amd64.deb",
        &["b_2_amd64 < app (Depends: a)"],
    ),
    // What is installed says that it breaks what comes, and its new version does not.
    (
        "app 1; Depends: lib (>= 2)\nlib 2\nold 2\n",
        "old 1; Breaks: lib (>= 2)",
        "old_2_amd64.deb",
        &["old_2_amd64 < what is installed: old (Breaks: lib (>= 2))"],
    ),
    (
        "app 1; Depends: lib\nlib 2; Provides: v\nold 2\n",
        "old 1; Conflicts: v",
        "old_2_amd64.deb",
        &["old_2_amd64 < what is installed: old (Conflicts: v)"],
    ),
    (
        "app 1; Depends: lib (>= 2)\nlib 2\nold 2; Breaks: lib\n",
        "old 1; Breaks: lib (>= 2)",
        "",
        &["! old and lib cannot be installed together: old (Breaks: lib)"],
    ),
    // It goes, where there is no newer version.
    ("app 1; Breaks: old\n", "old 1", "", &[]),
    // What is installed of the same source goes with it.
    (
        "app 2; Source: s\nlib 2; Source: s\n",
        "lib 1; Source: s",
        "lib_2_amd64.deb",
        &["lib_2_amd64 < app (Source: s)"],
    ),
    (
        "app 2; Source: s\nlib 3; Source: s\n",
        "lib 1; Source: s",
        "lib_3_amd64.deb",
        &[],
    ),
    (
        "app 2; Source: s (9)\nlib 3; Source: s (9)\n",
        "lib 1; Source: s",
        "lib_3_amd64.deb",
        &["lib_3_amd64 < app (Source: s)"],
    ),
];

/// As apt does, which upgrades rather than installs, and takes what stands in the way out of it.
#[test]
fn what_apt_would_upgrade_has_to_be_held() {
    for (lines, installed, without, expected) in UPGRADES {
        let (held, declared) = world(&[("s", "", &[("amd64", lines)])]);
        let declaration = asked(&declared, &["app"], Some(&status(&[installed])));
        let expected: Vec<String> = expected.iter().map(|file| missing(file)).collect();
        assert_eq!(
            held.gaps(&declaration, without),
            expected,
            "{lines}{installed} without {without}"
        );
    }
}

#[test]
fn what_is_on_hold_is_not_upgraded() {
    let (held, declared) = world(&[("s", "", &[("amd64", "app 1; Depends: lib (>= 2)\nlib 2\n")])]);
    let on_hold = status(&["lib 1"]).replace("install ok", "hold ok");
    let gaps = held.gaps(&asked(&declared, &["app"], Some(&on_hold)), "");
    assert_eq!(
        gaps,
        ["lib, needed by app (Depends: lib (>= 2)): the indexes of amd64 list lib 2, installed is 1"]
    );
}

/// Apt installs nothing on a machine that is broken already, unless the installation mends that.
#[test]
fn a_machine_that_is_broken_already_is_named() {
    let lines = "app 1\nlib 2\nmends 1; Depends: lib (>= 2)\n";
    let (held, declared) = world(&[("s", "", &[("amd64", lines)])]);
    let gaps = |package: &str, installed: &[&str]| {
        held.gaps(&asked(&declared, &[package], Some(&status(installed))), "")
    };
    let broken = ["lib 1", "tool 1; Depends: lib (>= 2)"];
    let expected = [
        "tool (Depends: lib (>= 2)) is not met on the machine as it is: mend that first (`apt-get --fix-broken install`), apt-get may refuse everything else there",
    ];
    assert_eq!(gaps("app", &broken), expected);
    // Also where what is asked for would mend it: apt works out nothing by itself then.
    assert_eq!(gaps("mends", &broken), expected);
    let of_another = ["lib 2 arm64", "tool 1; Depends: lib (>= 2)", "x 1"];
    assert_eq!(gaps("app", &of_another), Vec::<String>::new());
}

/// The first of the list is looked at first, and what it takes may meet what the next one needs.
#[test]
fn packages_are_looked_at_in_the_order_of_the_list() {
    let lines = "zz 1; Depends: v\naa 1; Depends: w\nv 1\nw 1; Provides: v\n";
    assert_eq!(
        gaps(lines, &["zz", "aa"], "v_1_amd64.deb"),
        [missing("v_1_amd64 < zz (Depends: v)")]
    );
    assert_eq!(gaps(lines, &["aa", "zz"], "v_1_amd64.deb"), Vec::<String>::new());
}

/// `apt-get update` of a client that sets no language ends with an error without them.
#[test]
fn descriptions_that_a_suite_lists_have_to_be_held() {
    let name = "main/i18n/Translation-en";
    let lists: &[(&str, &str)] = &[("amd64", "a 1\n")];
    for function in ["SHA256", "MD5Sum"] {
        let hex = if function == "SHA256" {
            kato_shared::Digest::of(b"text").hex()
        } else {
            "1cb251ec0d568de6a929b520c4aed8d1".to_owned()
        };
        let lists_of = format!("{function}:\n {hex} 4 {name}\n");
        let (mut held, declared) = world(&[("s", &lists_of, lists)]);
        let declaration = asked(&declared, &["a"], None);
        let url = format!("{ARCHIVE}/dists/s/{name}");
        assert_eq!(
            held.gaps(&declaration, ""),
            [format!("{url}, in any compression that Release lists")],
            "{function}"
        );
        held.put(&url, "text");
        assert_eq!(held.gaps(&declaration, ""), Vec::<String>::new(), "{function}");
    }
}

/// As in a component of a suite of updates that has none: apt asks for no form of an index that is listed without content.
#[test]
fn an_index_that_is_listed_as_empty_need_not_be_held() {
    let nothing = kato_shared::Digest::of(b"").hex();
    let packed = kato_shared::Digest::of(b"packed").hex();
    let mut lines = String::from("SHA256:\n");
    for name in ["contrib/binary-amd64/Packages", "contrib/i18n/Translation-en"] {
        writeln!(lines, " {nothing} 0 {name}\n {packed} 6 {name}.gz").unwrap();
    }
    let (held, mut declared) = world(&[("s", &lines, &[("amd64", "a 1\n")])]);
    declared[0].components.push("contrib".into());
    assert_eq!(
        held.gaps(&asked(&declared, &["a"], None), ""),
        Vec::<String>::new()
    );
}

/// Every machine that is declared has to get what it asks for; what names no machine is for all of them.
#[test]
fn each_status_is_a_machine_of_its_own() {
    let lines: &[(&str, &str)] = &[("amd64", "a 1; Depends: b\nb 1\nc 1; Depends: d\nd 1\n")];
    let (held, mut declared) = world(&[("s", "", lines), ("t", "", &[("amd64", "")])]);
    let status = |name: &str| {
        let text =
            format!("Package: {name}\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\n");
        Some(Arc::new(Status::of(name, &text).unwrap()))
    };
    (declared[0].status, declared[1].status) = (status("b"), status("d"));
    declared[0].packages = vec!["a".parse().unwrap()];
    declared[1].packages = vec!["c".parse().unwrap()];
    let gaps = |declared: &[DeclaredSuite], without: &str| {
        let declaration = Declaration {
            suites: declared.to_vec(),
            ..Declaration::default()
        };
        held.gaps(&declaration, without).len()
    };
    for without in ["/b_1_amd64.deb", "/d_1_amd64.deb"] {
        assert_eq!(gaps(&declared, without), 0, "{without}");
    }
    declared[1].status = None;
    assert_eq!(
        gaps(&declared, "/d_1_amd64.deb"),
        1,
        "the machine of `a` gets `c` as well"
    );
    assert_eq!(gaps(&declared, "/b_1_amd64.deb"), 0);
}

#[test]
fn what_is_recommended_is_needed_where_it_is_declared_to_be_installed() {
    let lines = "a 1; Recommends: b, gone, c\nb 1\nc 1; Depends: gone\n";
    let (held, mut declared) = world(&[("s", "", &[("amd64", lines)])]);
    let gaps = |declared: &[DeclaredSuite]| held.gaps(&asked(declared, &["a"], None), "b_1_amd64.deb");
    assert_eq!(gaps(&declared), Vec::<String>::new());
    declared[0].recommends = true;
    assert_eq!(
        gaps(&declared),
        [format!("{}, needed by a (Recommends: b)", deb("b_1_amd64"))]
    );
}

/// What the version before wished for, too, and did not get, nobody misses.
#[test]
fn what_an_upgrade_recommends_as_before_is_not_needed() {
    let lines = "app 2; Recommends: r, s\nr 1\ns 1\n";
    let (held, mut declared) = world(&[("s", "", &[("amd64", lines)])]);
    declared[0].recommends = true;
    let gaps = |without: &str| {
        let declaration = asked(&declared, &["app"], Some(&status(&["app 1; Recommends: r"])));
        held.gaps(&declaration, without)
    };
    assert_eq!(gaps("/r_1_amd64.deb"), Vec::<String>::new());
    assert_eq!(
        gaps("/s_1_amd64.deb"),
        [missing("s_1_amd64 < app (Recommends: s)")]
    );
}

/// What is half-installed, or has to be installed once more, is fetched.
#[test]
fn what_is_not_whole_on_the_machine_counts_as_nothing() {
    let (held, declared) = world(&[("s", "", &[("amd64", "app 1; Depends: b\nb 2\n")])]);
    for (state, expected) in [
        ("install ok installed", 0),
        ("install ok triggers-pending", 0),
        ("install reinstreq installed", 1),
        ("install ok half-installed", 1),
        ("deinstall ok config-files", 1),
    ] {
        let text = status(&["b 2", "other 1"]).replacen("install ok installed", state, 1);
        let gaps = held.gaps(&asked(&declared, &["app"], Some(&text)), "b_2_amd64.deb");
        assert_eq!(gaps.len(), expected, "{state}: {gaps:?}");
    }
}

/// A chain as long as an archive can make it ends where apt ends.
#[test]
fn a_long_chain_of_needs_is_followed() {
    let chain = |length: usize| {
        let mut lines = String::new();
        for number in 0..length {
            writeln!(lines, "p{number} 1; Depends: p{}", number + 1).unwrap();
        }
        writeln!(lines, "p{length} 1").unwrap();
        lines
    };
    assert_eq!(
        gaps(&chain(2000), &["p0"], "/p2000_1_amd64.deb"),
        [missing("p2000_1_amd64 < p1999 (Depends: p2000)")]
    );
    let gaps = gaps(&chain(4000), &["p0"], "");
    assert!(!gaps.is_empty());
}

/// Whoever reads that half of a distribution is missing reads what to do about it.
#[test]
fn where_nothing_counts_as_installed_the_hint_says_so() {
    let (mut held, declared) = world(&[("s", "", &[("amd64", "a 1; Depends: b\nb 1\n")])]);
    let hints = |held: &Held, status: Option<&str>| {
        let declaration = asked(&declared, &["a"], status);
        held.report(&declaration).hints
    };
    assert_eq!(hints(&held, None), Vec::<String>::new());
    held.remove("b_1_amd64.deb");
    assert!(hints(&held, None)[0].contains("`status`"));
    let other = "Package: c\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\n";
    assert_eq!(hints(&held, Some(other)), Vec::<String>::new());
}

#[test]
fn packages_are_declared_as_apt_takes_them() {
    for (text, expected) in [
        ("a", Some(("a", None, None))),
        (
            "lib-x1.0+:arm64=1:2.0~rc1-1",
            Some(("lib-x1.0+", Some("arm64"), Some("1:2.0~rc1-1"))),
        ),
        ("a=", None),
        ("a/stable", None),
        ("", None),
        ("a b", None),
    ] {
        let read = text.parse::<DeclaredPackage>().ok();
        let read = read.as_ref().map(|read| {
            (
                read.name.as_str(),
                read.architecture.as_deref(),
                read.version.as_deref(),
            )
        });
        assert_eq!(read, expected, "{text}");
    }
}
