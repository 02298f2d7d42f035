use super::*;

fn parse(text: &str) -> Result<Settings, String> {
    settings::parse(Path::new("proxy.toml"), text).map_err(|error| error.to_string())
}

#[test]
fn a_public_url_ends_with_its_host_and_port() {
    for (url, is_valid) in [
        ("https://cache.site/", true),
        ("http://cache.site:3180", true),
        ("https://cache.site/below/", false),
        ("https://cache.site/?a=b", false),
        ("ftp://cache.site/", false),
    ] {
        let settings = Settings {
            listen: Listen {
                public_url: Some(url.parse().unwrap()),
                ..Listen::default()
            },
            ..Settings::default()
        };
        assert_eq!(settings.validate().is_ok(), is_valid, "{url}");
    }
}

#[test]
fn the_shipped_file_names_every_key_with_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/proxy.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(parse(&text).unwrap(), Settings::default());
    // With the comment marks before settings taken away it must still parse, and the example upstream appears.
    let all: String = text
        .lines()
        .map(|line| line.strip_prefix("#= ").unwrap_or(line))
        .flat_map(|line| [line, "\n"])
        .collect();
    let all_set = parse(&all).unwrap();
    assert_eq!(
        Settings {
            upstreams: vec![],
            admin: Admin::default(),
            listen: Listen {
                tls: None,
                public_url: None,
                admin_socket: None,
                ..all_set.listen.clone()
            },
            tls: Tls::default(),
            mirror: Mirror::default(),
            ..all_set.clone()
        },
        Settings::default()
    );
    // Every key of the effective settings is a key of the file.
    let effective = toml::to_string(&all_set).unwrap();
    for key in effective
        .lines()
        .filter_map(|line| line.split_once(" = ").map(|(key, _)| key))
    {
        assert!(
            all.contains(&format!("{key} ")),
            "config/proxy.toml does not name `{key}`"
        );
    }
}

#[test]
fn every_preset_is_accepted_and_names_no_real_host() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/presets/proxy");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let settings = Settings::load(&path).unwrap();
        assert_eq!(settings.validate(), Ok(()), "{}", path.display());
        for url in settings.upstreams.iter().flat_map(Upstream::all_urls) {
            let host = url.host_str().unwrap();
            assert!(host.ends_with(".example"), "{}: {host}", path.display());
        }
        count += 1;
    }
    assert!(count >= 7, "{count}");
}

#[test]
fn a_wrong_value_is_refused_with_its_line() {
    for (text, expected) in [
        (
            "[access]\nclients = [\"10.0.0.0/8\", \"nowhere\"]\n",
            "proxy.toml:2: `nowhere` is not a network",
        ),
        (
            "[[upstream]]\nname = \"https\"\n",
            "proxy.toml:2: `https` is reserved",
        ),
        (
            "[[upstream]]\nname = \"a\"\nurls = [\"ftp://x/\"]\n",
            "proxy.toml:3: `ftp://x/` is not an upstream URL",
        ),
        ("[listen]\nadress = \"\"\n", "proxy.toml:2: unknown key `adress`"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn what_only_the_whole_shows_is_refused() {
    let twice = parse(
        "[[upstream]]\nname = \"a\"\nurls = [\"http://a/\"]\n[[upstream]]\nname = \"a\"\nurls = [\"http://b/\"]\n",
    );
    assert!(matches!(
        twice.unwrap().validate(),
        Err(InvalidSettings::DuplicateUpstream(_))
    ));
    let shared = parse(
        "[[upstream]]\nname = \"a\"\nurls = [\"http://x/\", \"http://y\"]\n[[upstream]]\nname = \"b\"\nurls = [\"http://y/\"]\n",
    );
    let error = shared.unwrap().validate().unwrap_err().to_string();
    assert!(
        error.contains("`a` and `b`") && error.contains("http://y/"),
        "{error}"
    );
    for (keys, expected) in [
        (
            "kind = \"registry\"\nurls = [\"http://a/\"]\n",
            "[upstream.registry]",
        ),
        ("urls = [\"http://u:p@a/\"]\n", "keep one of them"),
    ] {
        let text = format!("[[upstream]]\nname = \"a\"\n{keys}credentials_file = \"/etc/kato/a\"\n");
        let error = parse(&text).unwrap().validate().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let empty = parse("[[upstream]]\nname = \"a\"\nurls = []\n").unwrap();
    assert!(matches!(empty.validate(), Err(InvalidSettings::NoUrls(_))));
}

#[test]
fn a_flag_replaces_the_urls_of_a_known_upstream_and_keeps_the_rest() {
    let mut settings =
        parse("[[upstream]]\nname = \"a\"\nkind = \"release\"\nurls = [\"http://a/\"]\n").unwrap();
    settings.set_upstream("a=http://b/x,http://c".parse().unwrap());
    assert_eq!(settings.upstreams.len(), 1);
    assert_eq!(settings.upstreams[0].kind, Kind::Release);
    let urls: Vec<_> = settings.upstreams[0]
        .urls
        .iter()
        .map(|base| base.url().as_str())
        .collect();
    assert_eq!(urls, ["http://b/x/", "http://c/"]);
}

#[test]
fn only_listed_networks_are_allowed() {
    let access = Access::default();
    for (address, allowed) in [
        ("127.0.0.1", true),
        ("::1", true),
        ("::ffff:10.1.2.3", true),
        ("fd00::1", true),
        ("172.32.0.1", false),
        ("203.0.113.9", false),
        ("2001:db8::1", false),
    ] {
        assert_eq!(access.allows(address.parse().unwrap()), allowed, "{address}");
    }
}

#[test]
fn a_password_in_a_base_url_is_read_and_not_printed() {
    let text = "[[upstream]]\nname = \"inner\"\nurls = [\"http://user:pa55@inner.example/\"]\n";
    let settings = parse(text).unwrap();
    assert_eq!(settings.upstreams[0].urls[0].url().password(), Some("pa55"));
    let printed = toml::to_string(&settings).unwrap();
    assert!(printed.contains("http://***@inner.example/"), "{printed}");
    assert!(!printed.contains("pa55"), "{printed}");
}
