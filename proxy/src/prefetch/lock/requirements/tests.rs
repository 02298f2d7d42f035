use std::collections::BTreeMap;

use super::*;

fn digest(letter: char) -> String {
    letter.to_string().repeat(64)
}

fn pinned(name: &str) -> String {
    format!("{name}==1 --hash=sha256:{}", digest('a'))
}

/// The lock file `r/top.txt` among `files`.
fn read_among(files: &[(&str, &str)]) -> Result<Lock, LockError> {
    let files: BTreeMap<&str, &str> = files.iter().copied().collect();
    let reader = |path: &Path| {
        let found = path.to_str().and_then(|path| files.get(path));
        found
            .map(|text| (*text).to_owned())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    };
    Lock::read_by(Path::new("r/top.txt"), &reader)
}

fn names(lock: &Lock) -> Vec<&str> {
    lock.packages
        .iter()
        .map(|package| package.name.as_str())
        .collect()
}

/// Every way to write it that pip understands.
#[test]
fn what_another_file_requires_is_required() {
    let base = pinned("base");
    for line in [
        "-r base.txt",
        "-rbase.txt",
        "-r=base.txt",
        "--requirement base.txt",
        "--requirement=base.txt",
        "-r base.txt # all",
        "  -r\tbase.txt  ",
        "-r \"base.txt\"",
        "-r \\\nbase.txt",
        "-r ./base.txt",
        "-r ../r/base.txt",
        "--pre -r base.txt",
        "\u{feff}-r base.txt",
        "# x \\\n-r base.txt",
    ] {
        let text = format!("{line}\n{}\n", pinned("own"));
        // `-r=base.txt` is the file `=base.txt`.
        let lock = read_among(&[
            ("r/top.txt", &text),
            ("r/base.txt", &base),
            ("r/./base.txt", &base),
            ("r/../r/base.txt", &base),
            ("r/=base.txt", &base),
        ]);
        assert!(lock.is_ok(), "{line}: {lock:?}");
        let lock = lock.unwrap();
        assert_eq!(names(&lock), ["base", "own"], "{line}");
        assert_eq!(lock.left_out, Vec::<String>::new(), "{line}");
    }
}

#[test]
fn a_file_is_found_beside_the_one_that_names_it_and_read_once() {
    let lock = read_among(&[
        ("r/top.txt", "-r a/one.txt\n-r a/two.txt\n"),
        ("r/a/one.txt", "-r three.txt\n"),
        ("r/a/two.txt", "-r ../a/three.txt\n"),
        ("r/a/three.txt", &pinned("deep")),
    ])
    .unwrap();
    assert_eq!(names(&lock), ["deep"]);
    let error = read_among(&[("r/top.txt", "-r a/one.txt\n"), ("r/a/one.txt", "-r gone.txt\n")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read r/a/gone.txt, which r/a/one.txt names"
    );
}

#[test]
fn files_that_name_each_other_or_go_too_deep_are_named() {
    let error = read_among(&[("r/top.txt", "-r b.txt\n"), ("r/b.txt", "-c ../r/./top.txt\n")]).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("r/top.txt → r/b.txt → r/top.txt"), "{said}");
    let error = read_among(&[("r/top.txt", "-r top.txt\n")]).unwrap_err();
    assert!(matches!(error, LockError::Cycle { .. }), "{error}");
    let files: Vec<(String, String)> = (0..40)
        .map(|nth| (format!("r/{nth}.txt"), format!("-r {}.txt\n", nth + 1)))
        .collect();
    let mut all: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    all.push(("r/top.txt", "-r 0.txt\n"));
    let error = read_among(&all).unwrap_err();
    assert!(matches!(error, LockError::TooDeep { .. }), "{error}");
}

/// Tried with pip 23: what only a constraint has is "not pinned", a range in one changes nothing, and of digests those count that both have.
#[test]
fn a_constraint_brings_nothing_and_may_take_digests_away() {
    let requirement = format!(
        "-c c.txt\nown==1 --hash=sha256:{} --hash=sha256:{}\n",
        digest('a'),
        digest('b')
    );
    for (constraints, left) in [
        ("own<2\nother\n".to_owned(), 2),
        (format!("Own==1 --hash=sha256:{}\n", digest('b')), 1),
        (format!("own==1 --hash=sha256:{}\n", digest('c')), 2),
        (pinned("other"), 2),
    ] {
        let lock = read_among(&[("r/top.txt", &requirement), ("r/c.txt", &constraints)]).unwrap();
        assert_eq!(names(&lock), ["own"], "{constraints}");
        assert_eq!(lock.packages[0].digests.len(), left, "{constraints}");
        assert_eq!(lock.left_out, Vec::<String>::new(), "{constraints}");
    }
    // A file that a constraint requires is required.
    let lock = read_among(&[
        ("r/top.txt", "--constraint=c.txt"),
        ("r/c.txt", "-r more.txt"),
        ("r/more.txt", &pinned("more")),
    ]);
    assert_eq!(names(&lock.unwrap()), ["more"]);
}

#[test]
fn what_no_index_has_is_left_out_by_name_and_other_indexes_are_noted() {
    for line in [
        "-e ./here",
        "-e./here",
        "--editable ./here",
        "--editable=git+https://git.example/x",
        "-f wheels",
        "-fwheels",
        "--find-links=https://files.example/",
        "--no-index",
        "-r https://files.example/r.txt",
        "-r file:///r.txt",
        "--requ base.txt",
        "--unheard-of",
        "-r",
        "--index-url https://x.example/",
        "-i https://x.example/",
    ] {
        let lock = read_among(&[("r/top.txt", line), ("r/base.txt", "")]).unwrap();
        assert!(
            lock.left_out
                .first()
                .is_some_and(|said| said.starts_with("r/top.txt: -")),
            "{line}: {:?}",
            lock.left_out
        );
    }
    let extra = format!("--extra-index-url=https://x.example/\n{}\n", pinned("own"));
    let lock = read_among(&[("r/top.txt", &extra)]).unwrap();
    assert_eq!((lock.left_out.len(), lock.notes.len()), (0, 1));
    assert!(lock.notes[0].contains("https://x.example/"), "{:?}", lock.notes);
    for line in [
        "--pre",
        "--require-hashes",
        "--only-binary :all:",
        "--trusted-host=x",
    ] {
        let lock = read_among(&[("r/top.txt", &format!("{line}\n{}\n", pinned("own")))]).unwrap();
        assert_eq!((lock.left_out.len(), lock.notes.len()), (0, 0), "{line}");
    }
}

/// As pip's own `join_lines` and `ignore_comments`.
#[test]
fn lines_are_joined_and_comments_cut_as_pip_does_it() {
    for (text, expected) in [
        ("a \\\n  b\n", &["a   b"][..]),
        ("a \\\r\nb\r\n", &["a b"]),
        ("# c \\\na\n", &["a"]),
        ("a \\\n# c\nb\n", &["a", "b"]),
        ("a\t# c\n", &["a"]),
        ("a#b\n", &["a#b"]),
        ("  # c\n\n", &[]),
        ("a \\", &["a"]),
    ] {
        assert_eq!(lines(text), expected, "{text:?}");
    }
}

#[test]
fn digests_are_read_however_they_are_written_and_must_be_there() {
    let digest = digest('a');
    for line in [
        format!("A.b_c[x,y] == 1 --hash=sha256:{digest}"),
        format!("a-b-c==1 --hash sha256:{digest}"),
        format!("a-b-c===1 ; python_version > \"3\" --hash=sha256:{digest}"),
        format!("a-b-c==1 --global-option=\"-x\" --hash=sha256:{digest}"),
    ] {
        let lock = read_among(&[("r/top.txt", &line)]).unwrap();
        assert_eq!(names(&lock), ["a-b-c"], "{line}");
        assert_eq!(lock.packages[0].version, "1", "{line}");
    }
    for line in [
        "a".to_owned(),
        "a>=1".to_owned(),
        "a==1".to_owned(),
        "a==1 --hash=md5:00".to_owned(),
        "a==1 --hash=sha256:00".to_owned(),
        format!("a==1 --hash=sha256:{digest} --hash=sha512:00"),
        "a @ https://files.example/a.whl".to_owned(),
    ] {
        let error = read_among(&[("r/top.txt", &line)]).unwrap_err();
        assert!(matches!(error, LockError::Unpinned { .. }), "{line}: {error}");
    }
}
