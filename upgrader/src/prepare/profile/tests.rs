//! Tables of profiles and what they decide.

use super::*;

fn file(path: &str, text: &str) -> ProfileFile {
    let syntax = if path == "/etc/environment" {
        Syntax::Environment
    } else {
        Syntax::Shell
    };
    ProfileFile {
        path: path.into(),
        syntax,
        text: text.into(),
    }
}

fn decide(files: &[(&str, &str)], environment: &[(&str, &str)]) -> Verdict {
    let facts = Facts {
        files: files.iter().map(|(path, text)| file(path, text)).collect(),
        environment: environment
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect(),
    };
    verdict(&facts, &["http://10.0.0.1:3180/".parse().unwrap()])
}

fn profile(text: &str) -> Verdict {
    decide(&[("/etc/profile", text)], &[])
}

#[test]
fn r12_both_variables_skip_the_cache_with_file_and_line() {
    let verdict = profile("# site\nexport HTTP_PROXY=http://p:1\nexport http_proxy=\"http://p:1\"\n");
    assert_eq!(
        verdict.skip.as_deref(),
        Some(
            "HTTP_PROXY and http_proxy are set by /etc/profile:2 and /etc/profile:3: nodes use the site's own proxy http://p:1"
        )
    );
    assert!(verdict.warnings.is_empty());
}

#[test]
fn r12_one_variable_skips_with_a_warning() {
    for (set, missing) in [("HTTP_PROXY", "http_proxy"), ("http_proxy", "HTTP_PROXY")] {
        let verdict = profile(&format!("{set}=http://p:1\n"));
        assert_eq!(
            verdict.skip.as_deref(),
            Some(format!("{set} is set to http://p:1 by /etc/profile:1").as_str())
        );
        let [warning] = verdict.warnings.as_slice() else {
            panic!("{verdict:?}")
        };
        assert!(warning.starts_with(&format!(
            "only {set} is set, by /etc/profile:1, and {missing} is not"
        )));
    }
}

#[test]
fn r12_what_is_an_assignment() {
    for text in [
        "HTTP_PROXY=a http_proxy=a",
        "export HTTP_PROXY=a http_proxy=a",
        "declare -x HTTP_PROXY='a' http_proxy=\"a\"",
        "http_proxy=a; HTTP_PROXY=$http_proxy; export HTTP_PROXY http_proxy",
        "http_proxy=a; export HTTP_PROXY=\"${http_proxy}\"",
        "host=p; http_proxy=http://$host:1/; HTTP_PROXY=${HTTP_PROXY:-$http_proxy}",
        "if [ -z \"$http_proxy\" ]; then\n  export HTTP_PROXY=a http_proxy=a\nfi",
        "[ -f /etc/site ] && export HTTP_PROXY=a && export http_proxy=a",
        "export \\\n  HTTP_PROXY=a \\\n  http_proxy=a",
        "case $TERM in\n  x) HTTP_PROXY=a;;\n  (y) ;;\nesac\nhttp_proxy=a",
        "http_proxy=$SET_ELSEWHERE HTTP_PROXY=$(lookup proxy)",
        "cat <<EOF\nit's ( unbalanced\nEOF\nHTTP_PROXY=a http_proxy=a",
        "f() { true; }\nHTTP_PROXY=a http_proxy=a",
    ] {
        let verdict = profile(text);
        assert!(
            verdict.skip.is_some() && verdict.warnings.is_empty(),
            "{text}: {verdict:?}"
        );
    }
}

#[test]
fn r12_what_is_none() {
    for text in [
        "",
        "# HTTP_PROXY=a http_proxy=a",
        "true # HTTP_PROXY=a http_proxy=a",
        "echo HTTP_PROXY=a http_proxy=a",
        "echo 'export HTTP_PROXY=a\nexport http_proxy=a'",
        "http_proxy=a HTTP_PROXY=a wget http://x/",
        "HTTP_PROXY= http_proxy=''",
        "export HTTP_PROXY http_proxy",
        "HTTP_PROXY=a http_proxy=a\nunset HTTP_PROXY http_proxy",
        "HTTP_PROXY=$http_proxy; http_proxy=$HTTP_PROXY",
        "proxy_on() {\n  export HTTP_PROXY=a http_proxy=a\n}",
        "function proxy_on {\n  { export HTTP_PROXY=a; }\n  http_proxy=a\n}",
        "(HTTP_PROXY=a; http_proxy=a)",
        "cat <<-'EOF'\nexport HTTP_PROXY=a http_proxy=a\n\tEOF\n",
        "MY_HTTP_PROXY=a xhttp_proxy=a HTTPS_PROXY=a no_proxy=a",
    ] {
        assert_eq!(profile(text).skip, None, "{text}");
    }
}

#[test]
fn r12_the_line_is_that_of_the_assignment() {
    let text = "a='x\ny'\ncat <<E\nz\nE\n# c\nif :; then\n  http_proxy=b HTTP_PROXY=c\nfi\n";
    assert_eq!(
        profile(text).skip.as_deref(),
        Some("HTTP_PROXY and http_proxy are set by /etc/profile:8: nodes use the site's own proxy b")
    );
}

#[test]
fn r12_files_are_read_in_the_order_of_a_login_and_the_environment_wins() {
    let files = [
        (
            "/etc/environment",
            "http_proxy=first\nHTTP_PROXY='first # no comment'\n",
        ),
        ("/etc/profile.d/proxy.sh", "export http_proxy=second\n"),
    ];
    let reason = decide(&files, &[]).skip.unwrap();
    assert!(
        reason.starts_with(
            "HTTP_PROXY and http_proxy are set by /etc/environment:2 and /etc/profile.d/proxy.sh:1"
        ) && reason.ends_with(" second"),
        "{reason}"
    );
    let reason = decide(
        &files,
        &[("HTTP_PROXY", "http://e:1"), ("http_proxy", "http://e:1")],
    )
    .skip
    .unwrap();
    assert!(
        reason.contains("are set by the environment of this command: ") && reason.ends_with("http://e:1"),
        "{reason}"
    );
    // An empty variable of the environment is the operator's way to say "not for this command".
    assert_eq!(
        decide(&files, &[("HTTP_PROXY", ""), ("http_proxy", "")]).skip,
        None
    );
}

#[test]
fn r12_our_own_cache_says_nothing() {
    for value in ["http://10.0.0.1:3180", "http://10.0.0.1:3180/", "10.0.0.1:3180"] {
        let text = format!("HTTP_PROXY={value} http_proxy={value}");
        assert_eq!(
            profile(&text),
            Verdict {
                skip: None,
                warnings: vec![]
            },
            "{value}"
        );
    }
    for value in [
        "http://10.0.0.1:3128/",
        "http://10.0.0.2:3180/",
        "https://10.0.0.1:3180/",
    ] {
        let text = format!("HTTP_PROXY={value} http_proxy={value}");
        assert!(profile(&text).skip.is_some(), "{value}");
    }
}

#[test]
fn r13_any_value_skips_and_a_no_is_warned_about() {
    for (value, warned) in [
        ("1", false),
        ("yes", false),
        (" ", false),
        ("0", true),
        ("false", true),
        ("NO", true),
    ] {
        let verdict = decide(&[], &[(SKIP, value)]);
        assert_eq!(
            verdict.skip,
            Some(format!(
                "{SKIP} is set to `{value}` by the environment of this command"
            ))
        );
        assert_eq!(!verdict.warnings.is_empty(), warned, "{value}");
    }
    assert_eq!(decide(&[], &[(SKIP, "")]).skip, None);
}

#[test]
fn r13_the_profile_counts_because_sudo_drops_the_environment() {
    let verdict = decide(&[("/etc/profile.d/kato.sh", &format!("export {SKIP}=1"))], &[]);
    assert_eq!(
        verdict.skip,
        Some(format!("{SKIP} is set to `1` by /etc/profile.d/kato.sh:1"))
    );
}

#[test]
fn r12_the_profile_is_read_below_the_root_in_the_order_of_a_login() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("etc/profile.d");
    fs::create_dir_all(&folder).unwrap();
    for name in ["b.sh", "a.sh", "c.csh"] {
        kato_shared::durable::write(&folder.join(name), b"x=1", 0o644).unwrap();
    }
    kato_shared::durable::write(&root.path().join("etc/environment"), b"y=1", 0o644).unwrap();
    let facts = gather(root.path()).unwrap();
    let paths: Vec<_> = facts
        .files
        .iter()
        .map(|file| file.path.to_str().unwrap())
        .collect();
    assert_eq!(
        paths,
        ["/etc/environment", "/etc/profile.d/a.sh", "/etc/profile.d/b.sh"]
    );
}
