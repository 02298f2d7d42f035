use super::*;

fn router() -> Router {
    let upstreams = [
        "pkg=https://pkg.example/,https://mirror.example/stackato/",
        "deb=http://deb.example/debian/",
        "security=http://deb.example/debian/security/",
        "local=http://127.0.0.1:8000/",
    ];
    Router::new(&Settings {
        upstreams: upstreams.iter().map(|flag| flag.parse().unwrap()).collect(),
        ..Settings::default()
    })
}

fn route(uri: &str) -> Result<Target, RouteError> {
    match router().route(&Method::GET, &uri.parse().unwrap())? {
        Route::Target(target) => Ok(Target::clone(&target)),
        other @ (Route::Tunnel { .. } | Route::Intercept { .. } | Route::RegistryBase) => panic!("{other:?}"),
    }
}

fn candidates(uri: &str) -> Vec<String> {
    route(uri)
        .unwrap()
        .candidates
        .iter()
        .map(Url::to_string)
        .collect()
}

#[test]
fn all_doors_lead_to_one_key() {
    for uri in [
        "https://pkg.example/a/b?c=d",
        "http://pkg.example/a/b?c=d",
        "/pkg/a/b?c=d",
        "/https/pkg.example/a/b?c=d",
        "/http/PKG.example/a/b?c=d",
        "https://mirror.example/stackato/a/b?c=d",
        // As apt-cacher-ng has them.
        "/pkg.example/a/b?c=d",
        "/HTTPS///pkg.example/a/b?c=d",
    ] {
        assert_eq!(
            route(uri).unwrap().key.to_string(),
            "GET https://pkg.example/a/b?c=d",
            "{uri}"
        );
    }
}

/// A router for one registry of npm.
fn npm(urls: &str) -> Router {
    let mut upstream: Upstream = urls.parse().unwrap();
    upstream.kind = Kind::Npm;
    upstream.file_urls = vec!["https://files.example/".to_owned().try_into().unwrap()];
    Router::new(&Settings {
        upstreams: vec![upstream],
        ..Settings::default()
    })
}

#[test]
fn what_npm_puts_before_the_path_of_a_lock_file_is_not_asked_for() {
    let asked = |router: &Router, uri: &str| match router.route(&Method::GET, &uri.parse().unwrap()) {
        Ok(Route::Target(target)) => target.key.uri().to_owned(),
        other => panic!("{uri}: {other:?}"),
    };
    let root = npm("npm=https://npm.example/");
    let below = npm("npm=https://nexus.example/repository/npm/");
    for (router, uri, expected) in [
        (&root, "/npm/a/-/a-1.tgz", "https://npm.example/a/-/a-1.tgz"),
        (&root, "/npm/npm/a/-/a-1.tgz", "https://npm.example/a/-/a-1.tgz"),
        (
            &root,
            "/npm/npm/@s/a/-/a-1.tgz",
            "https://npm.example/@s/a/-/a-1.tgz",
        ),
        (
            &root,
            "/npm/npm/-/npm-1.tgz",
            "https://npm.example/npm/-/npm-1.tgz",
        ),
        (&root, "/npm/npm", "https://npm.example/npm"),
        (&root, "/npm/npm/1.0.0", "https://npm.example/npm/1.0.0"),
        (
            &root,
            "/npm/https/files.example/f/a.tgz",
            "https://files.example/f/a.tgz",
        ),
        (&root, "/npm/http/0.0.1", "https://npm.example/http/0.0.1"),
        (
            &root,
            "/npm/https/-/https-1.tgz",
            "https://npm.example/https/-/https-1.tgz",
        ),
        (
            &root,
            "/npm/~npm/https/files.example/f/a.tgz",
            "https://files.example/f/a.tgz",
        ),
        (
            &below,
            "/npm/repository/npm/a/-/a-1.tgz",
            "https://nexus.example/repository/npm/a/-/a-1.tgz",
        ),
        (
            &below,
            "/npm/repository/-/repository-1.tgz",
            "https://nexus.example/repository/npm/repository/-/repository-1.tgz",
        ),
        (
            &below,
            "/npm/a/-/a-1.tgz",
            "https://nexus.example/repository/npm/a/-/a-1.tgz",
        ),
    ] {
        assert_eq!(asked(router, uri), expected, "{uri}");
    }
}

#[test]
fn credentials_of_an_upstream_are_asked_with_and_are_no_part_of_the_key() {
    let settings = Settings {
        upstreams: vec!["inner=http://user:secret@inner.example/".parse().unwrap()],
        ..Settings::default()
    };
    let route = Router::new(&settings).route(&Method::GET, &"/inner/a".parse().unwrap());
    let Ok(Route::Target(target)) = route else {
        panic!("{route:?}")
    };
    assert_eq!(
        target.candidates[0].as_str(),
        "http://user:secret@inner.example/a"
    );
    assert_eq!(target.key.uri(), "http://inner.example/a");
}

#[test]
fn a_target_has_a_candidate_at_every_mirror_in_order() {
    assert_eq!(
        candidates("/pkg/a?x"),
        ["https://pkg.example/a?x", "https://mirror.example/stackato/a?x"]
    );
}

#[test]
fn the_longest_base_url_wins_and_the_rest_of_the_host_is_asked_there_alone() {
    assert_eq!(
        route("http://deb.example/debian/security/x")
            .unwrap()
            .upstream
            .name
            .as_str(),
        "security"
    );
    assert_eq!(
        route("http://deb.example/debian/x")
            .unwrap()
            .upstream
            .name
            .as_str(),
        "deb"
    );
    assert_eq!(
        candidates("http://deb.example/other"),
        ["http://deb.example/other"]
    );
}

#[test]
fn p19_what_no_upstream_names_is_refused() {
    for uri in [
        "http://evil.example/",
        "/https/evil.example/a",
        "http://127.0.0.1:22/",
        "http://pkg.example:8080/",
        "http://pkg.example.evil.example/",
    ] {
        assert!(matches!(route(uri), Err(RouteError::UnknownHost { .. })), "{uri}");
    }
    for uri in [
        "/nowhere/a",
        "/evil.example/a",
        "/HTTPS///evil.example/a",
        "/127.0.0.1/a",
    ] {
        assert!(
            matches!(route(uri), Err(RouteError::UnknownUpstream { .. })),
            "{uri}"
        );
    }
    assert!(matches!(
        route("http://user:pw@pkg.example/"),
        Err(RouteError::BadTarget { .. })
    ));
}

#[test]
fn a_mirror_path_cannot_leave_the_base_url() {
    assert!(matches!(
        route("/deb/../secret"),
        Err(RouteError::BadTarget { .. })
    ));
    assert!(matches!(
        route("/deb/%2e%2e/secret"),
        Err(RouteError::BadTarget { .. })
    ));
    assert_eq!(candidates("/deb/a/../b"), ["http://deb.example/debian/b"]);
}

#[test]
fn tunnels_lead_to_configured_hosts_and_ports_alone() {
    let tunnel = |authority: &str| router().route(&Method::CONNECT, &authority.parse().unwrap());
    assert!(matches!(
        tunnel("pkg.example:443"),
        Ok(Route::Tunnel { port: 443, .. })
    ));
    assert!(matches!(
        tunnel("127.0.0.1:8000"),
        Ok(Route::Tunnel { port: 8000, .. })
    ));
    assert!(matches!(
        tunnel("evil.example:443"),
        Err(RouteError::UnknownHost { .. })
    ));
    assert!(matches!(
        tunnel("pkg.example:22"),
        Err(RouteError::TunnelPort { .. })
    ));
}

#[test]
fn a_port_may_be_written_as_pip_writes_it() {
    for path in ["/http/127.0.0.1%3A8000/a%3Ab", "/http/127.0.0.1%3a8000/a%3Ab"] {
        assert_eq!(candidates(path), ["http://127.0.0.1:8000/a%3Ab"]);
    }
}

#[test]
fn files_of_an_index_are_asked_of_their_own_host_alone() {
    let mut upstream: Upstream = "pypi=http://index.example/,http://mirror.example/"
        .parse()
        .unwrap();
    upstream.file_urls = vec!["https://files.example/p/".to_owned().try_into().unwrap()];
    let router = Router::new(&Settings {
        upstreams: vec![upstream],
        ..Settings::default()
    });
    let candidates = |path: &str| match router.route(&Method::GET, &path.parse().unwrap()) {
        Ok(Route::Target(target)) => target.candidates.iter().map(Url::to_string).collect::<Vec<_>>(),
        Ok(Route::Intercept { .. } | Route::Tunnel { .. } | Route::RegistryBase) | Err(_) => {
            panic!("no target")
        }
    };
    assert_eq!(
        candidates("/pypi/simple/a/"),
        [
            "http://index.example/simple/a/",
            "http://mirror.example/simple/a/"
        ]
    );
    assert_eq!(
        candidates("/https/files.example/p/a.whl"),
        ["https://files.example/p/a.whl"]
    );
}

#[test]
fn what_is_opened_is_a_host_and_port_of_an_upstream_that_says_so() {
    let upstream = |flag: &str, intercept| Upstream {
        intercept,
        ..flag.parse().unwrap()
    };
    let settings = Settings {
        upstreams: vec![
            upstream("opened=https://pkg.example/,https://[::1]:8443/", true),
            upstream("other=https://other.example/", false),
            upstream("beside=https://pkg.example:9443/", false),
        ],
        ..Settings::default()
    };
    let router = Router::new(&settings);
    let is_opened = |authority: &str| {
        let route = router.route(&Method::CONNECT, &authority.parse().unwrap());
        matches!(route.unwrap(), Route::Intercept { .. })
    };
    for (authority, expected) in [
        ("PKG.example:443", true),
        ("[::1]:8443", true),
        ("pkg.example:9443", false),
        ("other.example:443", false),
    ] {
        assert_eq!(is_opened(authority), expected, "{authority}");
    }
}

proptest::proptest! {
    /// Whatever comes after the base, it is read as the whole URL would be.
    #[test]
    fn a_suffix_is_read_as_in_the_whole_url(suffix in "[a-z./?:@%# \\\\\t-]{0,12}") {
        for base in ["http://deb.example/debian/", "https://user:word@deb.example:8443/"] {
            let base = Url::parse(base).unwrap();
            let whole = Url::parse(&format!("{base}{suffix}")).unwrap();
            proptest::prop_assert_eq!(base.join(&format!("./{suffix}")).unwrap(), whole);
        }
    }
}

/// `pub` is open, `secret` is not, `all` is the whole of another server, below which `vault` is closed.
fn with_closed_ones() -> Router {
    let closed = |flag: &str| Upstream {
        clients: Some(vec!["127.0.0.2/32".to_owned().try_into().unwrap()]),
        ..flag.parse().unwrap()
    };
    Router::new(&Settings {
        upstreams: vec![
            "pub=http://lab.example:4530/pub/".parse().unwrap(),
            closed("secret=http://lab.example:4530/secret/"),
            "all=http://one.example/".parse().unwrap(),
            closed("vault=https://one.example/vault/"),
            "tls=https://two.example/".parse().unwrap(),
            closed("eight=http://two.example:8080/"),
        ],
        ..Settings::default()
    })
}

/// What a stranger gets for `asked`: the path that goes upstream, or nothing.
fn for_a_stranger(router: &Router, method: &Method, asked: &str) -> Option<String> {
    let stranger = "127.0.0.1".parse().unwrap();
    match router.route(method, &asked.parse().unwrap()).ok()? {
        Route::Target(target) => target
            .keepers()
            .all(|keeper| keeper.allows(stranger))
            .then(|| target.candidates[0].path().to_owned()),
        Route::Tunnel { host, upstreams, .. } => upstreams
            .iter()
            .all(|keeper| keeper.allows(stranger))
            .then_some(host),
        Route::Intercept { .. } | Route::RegistryBase => panic!("{asked}"),
    }
}

/// Spellings by which some server could find `secret/` of a host of which only `pub/` is open.
const SPELLINGS: &[&str] = &[
    "secret/x",
    "/secret/x",
    "//secret//x",
    "%73ecret/x",
    "%73%65cret/x",
    "secret%2fx",
    "%2Fsecret/x",
    "secret%5Cx",
    "%5csecret/x",
    "SECRET/x",
    "secret;a=b/x",
    ";/secret/x",
    "secret%3b/x",
    "secret./x",
    "secret%20/x",
    "secret%00/x",
    "./secret/x",
    "pub/../secret/x",
    "pub/%2e%2e/secret/x",
    "pub/%2e%2e%2fsecret/x",
    "pub/..%2Fsecret/x",
    "pub/..%5csecret/x",
    "pub/..;/secret/x",
    "pub/..%3b/secret/x",
    "pub/..%00/secret/x",
    "pub/..%20/secret/x",
    "pub/a/..%2f..%2fsecret/x",
    "pub%2f../secret/x",
    "pub%2f..%2fsecret/x",
    "other",
    "",
];

#[test]
fn c02_no_spelling_and_no_door_leads_a_stranger_to_what_is_closed() {
    let router = with_closed_ones();
    let mut open = Vec::new();
    for path in SPELLINGS {
        for door in [
            "/http/lab.example:4530/",
            "/http/LAB.example%3a4530/",
            "/~pub/http/lab.example:4530/",
            "/lab.example:4530/",
            "http://lab.example:4530/",
            "http://LAB.EXAMPLE:4530/",
        ] {
            let asked = format!("{door}{path}");
            open.extend(for_a_stranger(&router, &Method::GET, &asked).map(|led| format!("{asked} to {led}")));
        }
        let asked = path.strip_prefix("pub/").map(|below| format!("/pub/{below}"));
        open.extend(asked.filter(|asked| for_a_stranger(&router, &Method::GET, asked).is_some()));
    }
    // Below a base that is the whole server, by name and by host; with the ports of both schemes.
    for path in [
        "vault/x",
        "/vault/x",
        "%76ault/x",
        "VAULT/x",
        "vault%2fx",
        "a/..%2fvault/x",
        "vault;v/x",
    ] {
        for door in [
            "/all/",
            "/~all/http/one.example/",
            "/http/one.example/",
            "/https/one.example:443/",
            "http://one.example/",
        ] {
            let asked = format!("{door}{path}");
            open.extend(for_a_stranger(&router, &Method::GET, &asked).map(|led| format!("{asked} to {led}")));
        }
    }
    for tunnel in [
        "lab.example:4530",
        "LAB.example:4530",
        "one.example:443",
        "two.example:8080",
        "lab.example.:4530",
    ] {
        open.extend(for_a_stranger(&router, &Method::CONNECT, tunnel));
    }
    assert!(open.is_empty(), "open: {open:#?}");
}

#[test]
fn c02_what_is_open_stays_so_beside_what_is_closed() {
    let router = with_closed_ones();
    for (asked, led) in [
        ("/pub/x", "/pub/x"),
        ("/pub/a/../x", "/pub/x"),
        ("/pub/secret/x", "/pub/secret/x"),
        ("/http/lab.example:4530/%70ub/x%2fy", "/pub/x%2fy"),
        (
            "http://lab.example:4530/pub/%252e%252e%252fsecret",
            "/pub/%252e%252e%252fsecret",
        ),
        ("/pub//secret/x", "/pub//secret/x"),
        ("/pub/a..b/...c", "/pub/a..b/...c"),
        ("/all/x;v=1", "/x;v=1"),
        ("/all/vaults/x", "/vaults/x"),
        ("http://one.example/a%20b", "/a%20b"),
    ] {
        assert_eq!(
            for_a_stranger(&router, &Method::GET, asked).as_deref(),
            Some(led),
            "{asked}"
        );
    }
    // Another port is another server.
    let tunnel = for_a_stranger(&router, &Method::CONNECT, "two.example:443");
    assert_eq!(tunnel.as_deref(), Some("two.example"));
    let friend = "127.0.0.2".parse().unwrap();
    let Ok(Route::Target(target)) = router.route(&Method::GET, &"/secret/x".parse().unwrap()) else {
        panic!("no target")
    };
    assert!(target.gates.is_empty() && target.keepers().all(|keeper| keeper.allows(friend)));
}

#[test]
fn c01_credentials_of_a_url_go_with_nothing_beside_it() {
    let settings = Settings {
        upstreams: vec!["inner=http://ci:hunter2@inner.example/debian/".parse().unwrap()],
        ..Settings::default()
    };
    let router = Router::new(&settings);
    for (asked, expected) in [
        ("/inner/a", "http://ci:hunter2@inner.example/debian/a"),
        (
            "/http/inner.example/debian/a",
            "http://ci:hunter2@inner.example/debian/a",
        ),
        (
            "/http/inner.example/%64ebian/a",
            "http://ci:hunter2@inner.example/debian/a",
        ),
        ("/http/inner.example/service/a", "http://inner.example/service/a"),
        ("/http/inner.example//debian/a", "http://inner.example//debian/a"),
        ("/http/inner.example/DEBIAN/a", "http://inner.example/DEBIAN/a"),
    ] {
        let Ok(Route::Target(target)) = router.route(&Method::GET, &asked.parse().unwrap()) else {
            panic!("{asked}")
        };
        assert_eq!(target.candidates[0].as_str(), expected, "{asked}");
    }
}

#[test]
fn a_tunnel_is_asked_for_by_host_and_port_alone() {
    let router = with_closed_ones();
    let refused = router.route(&Method::CONNECT, &"me:pw@two.example:443".parse().unwrap());
    assert!(
        matches!(refused, Err(RouteError::BadTarget { .. })),
        "{refused:?}"
    );
}
