use url::Url;

use super::*;

/// One upstream of each kind, as an operator would write them.
fn settings() -> Settings {
    let text = r#"
[[upstream]]
name = "debian"
kind = "packages"
urls = ["https://deb.example/debian/", "http://deb2.example/debian/"]
[[upstream]]
name = "images"
kind = "registry"
urls = ["https://registry.example/"]
registry = { aliases = ["hub.example", "hub"] }
[[upstream]]
name = "more"
kind = "registry"
urls = ["https://more.example:5000/"]
[[upstream]]
name = "pypi"
kind = "pypi"
urls = ["https://index.example/"]
file_urls = ["https://files.example/"]
[[upstream]]
name = "npm"
kind = "npm"
urls = ["https://npm.example/"]
[[upstream]]
name = "crates"
kind = "cargo"
urls = ["https://crates.example/"]
"#;
    kato_shared::settings::parse(std::path::Path::new("proxy.toml"), text).unwrap()
}

fn text(client: &str, settings: &Settings, base: &str) -> String {
    let base = ServerBase::configured(&Url::parse(base).unwrap());
    let site = Site {
        settings,
        base: &base,
        client: None,
    };
    client.parse::<Client>().unwrap().text(site).unwrap()
}

const SERVER: &str = "http://cache.site:3180";

/// What each client is told by [`SERVER`].
const TOLD: [(&str, &str); 8] = [
    (
        "apt",
        r#"# file: /etc/apt/sources.list.d/kato.sources
# Fill in Suites, Components and Signed-By as the archive has them.

Types: deb
URIs: http://cache.site:3180/debian/
Suites: SUITE
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

# Or, with the sources as they are:
# file: /etc/apt/apt.conf.d/01kato-proxy
Acquire::https::Proxy::deb.example "http://cache.site:3180/";
Acquire::http::Proxy::deb2.example "http://cache.site:3180/";
Acquire::Retries "2";
"#,
    ),
    (
        "docker",
        r#"# registry-mirrors holds for the default registry alone. Images of others, by their prefix:
#   docker pull cache.site:3180/images/REPOSITORY:TAG
#   docker pull cache.site:3180/more/REPOSITORY:TAG
# A tag that has moved is seen after the tag_ttl of its registry: images 1m, more 1m.
# Engine 29 and later with the containerd image store: the files hosts.toml in the place of daemon.json, effective at once.

# file: /etc/docker/daemon.json
{
  "insecure-registries": [
    "cache.site:3180"
  ]
}

# file: /etc/docker/certs.d/hub.example/hosts.toml
server = "http://cache.site:3180"

[host."http://cache.site:3180"]
  capabilities = ["pull", "resolve"]

# file: /etc/docker/certs.d/registry.example/hosts.toml
server = "http://cache.site:3180"

[host."http://cache.site:3180"]
  capabilities = ["pull", "resolve"]

# file: /etc/docker/certs.d/more.example:5000/hosts.toml
server = "http://cache.site:3180"

[host."http://cache.site:3180"]
  capabilities = ["pull", "resolve"]

"#,
    ),
    (
        "containerd",
        r#"# file: /etc/containerd/config.toml
# 2.x; for 1.x: version = 2 and plugins."io.containerd.grpc.v1.cri".registry
version = 3
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "/etc/containerd/certs.d"

# A tag that has moved is seen after the tag_ttl of its registry: images 1m, more 1m.
# file: /etc/containerd/certs.d/hub.example/hosts.toml
server = "http://cache.site:3180"

[host."http://cache.site:3180"]
  capabilities = ["pull", "resolve"]

# file: /etc/containerd/certs.d/registry.example/hosts.toml
server = "http://cache.site:3180"

[host."http://cache.site:3180"]
  capabilities = ["pull", "resolve"]

# file: /etc/containerd/certs.d/more.example:5000/hosts.toml
server = "http://cache.site:3180"

[host."http://cache.site:3180"]
  capabilities = ["pull", "resolve"]

"#,
    ),
    (
        "podman",
        r#"# file: /etc/containers/registries.conf.d/50-kato-proxy.conf
# podman, skopeo and buildah read it, and CRI-O after it was restarted; what stands in registries.conf counts as well.
# A tag that has moved is seen after the tag_ttl of its registry: images 1m, more 1m.
[[registry]]
prefix = "hub.example"
location = "cache.site:3180/images"
insecure = true

[[registry]]
prefix = "registry.example"
location = "cache.site:3180/images"
insecure = true

[[registry]]
prefix = "more.example:5000"
location = "cache.site:3180/more"
insecure = true

"#,
    ),
    (
        "pip",
        "# file: /etc/pip.conf\n[global]\nindex-url = http://cache.site:3180/pypi/simple/\ntrusted-host = cache.site\ndisable-pip-version-check = true\n",
    ),
    (
        "npm",
        "# file: ~/.npmrc\n# For all users instead: the file that `npm config get globalconfig` names, which differs between builds of npm.\nregistry=http://cache.site:3180/npm/\nreplace-registry-host=always\naudit=false\nfund=false\nupdate-notifier=false\n",
    ),
    (
        "cargo",
        r#"# file: ~/.cargo/config.toml
[source.crates-io]
replace-with = "kato-crates"

[source."kato-crates"]
registry = "sparse+http://cache.site:3180/crates/"

[registries."crates"]
index = "sparse+http://cache.site:3180/crates/"

"#,
    ),
    (
        "env",
        "# file: /etc/profile.d/kato-proxy.sh\n\
             # Hosts of no configured upstream are refused by this proxy: name them in no_proxy.\n\
             export http_proxy=http://cache.site:3180/ https_proxy=http://cache.site:3180/\n\
             export no_proxy=localhost,127.0.0.1,::1,cache.site\n",
    ),
];

#[test]
fn every_client_is_told_exactly_this() {
    for (client, expected) in TOLD {
        assert_eq!(text(client, &settings(), SERVER), expected, "{client}");
    }
}

#[test]
fn what_docker_is_told_for_its_daemon_is_json_as_it_stands() {
    let mut settings = settings();
    settings.registry.default = Some("images".to_owned().try_into().unwrap());
    for base in [SERVER, "https://cache.site/"] {
        let told = text("docker", &settings, base);
        let mut parts = told
            .split(FILE)
            .skip(1)
            .map(|part| part.split_once('\n').unwrap());
        let (path, content) = parts.next().unwrap();
        assert_eq!(path, "/etc/docker/daemon.json");
        let daemon: serde_json::Value = serde_json::from_str(content).unwrap();
        assert_eq!(daemon["registry-mirrors"][0], base.trim_end_matches('/'));
        assert!(parts.all(|(path, _)| path.ends_with("/hosts.toml")), "{told}");
    }
}

#[test]
fn over_tls_nothing_is_insecure_and_a_certificate_is_named_where_hosts_are_opened() {
    let mut settings = settings();
    for client in ["docker", "podman", "pip"] {
        let text = text(client, &settings, "https://cache.site/");
        assert!(
            !text.contains("insecure") && !text.contains("trusted-host"),
            "{text}"
        );
        assert!(text.contains("cache.site/"), "{text}");
    }
    for (client, file) in [
        ("containerd", "/etc/containerd/certs.d/kato-proxy-ca.crt"),
        ("docker", "/etc/docker/certs.d/kato-proxy-ca.crt"),
    ] {
        let told = text(client, &settings, "https://cache.site/");
        let line = format!("  capabilities = [\"pull\", \"resolve\"]\n  ca = \"{file}\"\n");
        assert_eq!(
            told.matches(&line).count(),
            told.matches("/hosts.toml\n").count(),
            "{told}"
        );
        assert!(told.contains(&format!("#   {file}\n")), "{told}");
        assert!(!text(client, &settings, SERVER).contains("ca ="));
    }
    assert!(
        text("podman", &settings, "https://cache.site/")
            .contains("/etc/containers/certs.d/cache.site/ca.crt")
    );
    assert!(!text("env", &settings, SERVER).contains("SSL_CERT_FILE"));
    settings.upstreams[0].intercept = true;
    for client in ["apt", "curl", "env"] {
        let text = text(client, &settings, SERVER);
        assert!(text.contains("http://cache.site:3180/-/ca.crt"), "{text}");
    }
}

#[test]
fn a_client_without_an_upstream_of_its_kind_is_told_nothing_and_not_listed() {
    let mut settings = settings();
    settings.upstreams.retain(|upstream| upstream.kind == Kind::Npm);
    let base = ServerBase::configured(&Url::parse(SERVER).unwrap());
    let site = Site {
        settings: &settings,
        base: &base,
        client: None,
    };
    assert_eq!(Client::Pip.text(site), None);
    let page = SetupPage::of(site);
    assert_eq!(page.clients, ["npm", "curl", "env"]);
    assert_eq!(page.upstreams[0].probe, "/npm/-/ping");
    assert_eq!(
        "yum".parse::<Client>().unwrap_err().split(':').next(),
        Some("`yum` is no client that can be set up")
    );
}

#[test]
fn p19_an_upstream_is_not_named_to_clients_that_may_not_have_what_comes_from_it() {
    let mut settings = settings();
    for name in ["images", "npm"] {
        let of_name = |upstream: &&mut Upstream| upstream.name.as_str() == name;
        let upstream = settings.upstreams.iter_mut().find(of_name).unwrap();
        upstream.clients = Some(vec!["10.1.0.0/16".to_owned().try_into().unwrap()]);
        upstream.intercept = true;
    }
    settings.registry.default = Some("images".to_owned().try_into().unwrap());
    let base = ServerBase::in_clear("cache.site:3180");
    let told = |client: &str| {
        let site = Site {
            settings: &settings,
            base: &base,
            client: Some(client.parse().unwrap()),
        };
        let texts = Client::ALL.map(|client| client.text(site).unwrap_or_default());
        let page = serde_json::to_string(&SetupPage::of(site)).unwrap();
        (texts.concat(), page)
    };
    let (texts, page) = told("10.2.0.1");
    for secret in [
        "/images",
        "registry.example",
        "hub.example",
        "npm.example",
        "\"registry-mirrors\"",
        "ca.crt",
    ] {
        assert!(
            !texts.contains(secret) && !page.contains(secret),
            "{secret} in {texts}{page}"
        );
    }
    assert!(!page.contains("\"npm\"") && page.contains("\"more\""), "{page}");
    let (texts, page) = told("10.1.2.3");
    assert!(
        texts.contains("registry-mirrors") && page.contains("\"images\""),
        "{page}"
    );
}

#[test]
fn a_host_is_named_once_however_many_upstreams_have_it() {
    let two = "[[upstream]]\nname = \"a\"\nurls = [\"http://host.example/a/\"]\n\
               [[upstream]]\nname = \"b\"\nurls = [\"http://host.example/b/\"]\n";
    let settings = kato_shared::settings::parse(std::path::Path::new("proxy.toml"), two).unwrap();
    let told = text("curl", &settings, "http://127.0.0.1:3180");
    assert!(told.contains("\n#   host.example\n"), "{told}");
    let told = text("env", &settings, "http://127.0.0.1:3180");
    assert!(
        told.contains("export no_proxy=localhost,127.0.0.1,::1\n"),
        "{told}"
    );
}
