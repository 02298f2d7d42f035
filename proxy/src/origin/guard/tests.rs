//! Tables of addresses and of who may be found there.

use super::*;

fn allows(named: &str, asked: &str) -> bool {
    let named = Url::parse(named).unwrap();
    Guard::new([&named], []).allows(&Url::parse(asked).unwrap())
}

#[test]
fn p19_guarded_addresses_are_reached_only_where_an_upstream_names_them_with_their_port() {
    assert!(allows("http://127.0.0.1:8000/", "http://127.0.0.1:8000/x"));
    assert!(!allows("http://127.0.0.1:8000/", "http://127.0.0.1:22/"));
    assert!(!allows("http://127.0.0.1:8000/", "http://127.0.0.2:8000/"));
    assert!(!allows("http://127.0.0.1:8000/", "http://[::1]:8000/"));
    assert!(allows("http://localhost:8000/", "http://localhost:8000/x"));
    assert!(!allows("https://pkg.example/", "http://localhost/"));
    assert!(!allows("https://pkg.example/", "http://a.LOCALHOST./"));
    assert!(!allows("https://pkg.example/", "http://[::ffff:127.0.0.1]/"));
    assert!(!allows("https://pkg.example/", "http://0.0.0.0/"));
    assert!(allows("https://pkg.example/", "https://cdn.example/"));
}

#[test]
fn p19_private_networks_are_open_to_the_hosts_that_upstreams_name_and_to_no_target_of_a_redirect() {
    assert!(allows("http://10.0.0.1/", "http://10.0.0.1:8080/x"));
    for other in [
        "http://10.0.0.1/",
        "http://192.168.1.1/",
        "http://[fd00::1]/",
        "http://[::ffff:172.16.0.1]/",
    ] {
        assert!(!allows("https://pkg.example/", other), "{other}");
    }
    let guard = Guard::new(
        [&Url::parse("https://pkg.example/").unwrap()],
        [("Parent.example".into(), 3128)],
    );
    for (host, may) in [
        ("pkg.example", true),
        ("parent.example", true),
        ("cdn.example", false),
    ] {
        let found = [IpAddr::from([10, 0, 0, 1])];
        assert_eq!(guard.permitted(host, 443, &found).is_ok(), may, "{host}");
        let public = [IpAddr::from([203, 0, 113, 1])];
        assert!(guard.permitted(host, 443, &public).is_ok(), "{host}");
    }
}

#[test]
fn p19_redirect_hosts_and_token_services_may_be_in_private_networks() {
    let mut files: Upstream = "files=https://pkg.example/".parse().unwrap();
    files.redirect_hosts = Some(vec!["cdn.example".into(), "192.168.7.0/24".into()]);
    let mut hub: Upstream = "hub=https://registry.hub.example/".parse().unwrap();
    hub.kind = Kind::Registry;
    let guard = Guard::default().with_rules_of(&[files, hub]);
    for (host, address, may) in [
        ("eu.cdn.example", [10, 0, 0, 1], true),
        ("other.example", [192, 168, 7, 9], true),
        ("other.example", [192, 168, 8, 9], false),
        ("auth.hub.example", [10, 0, 0, 2], true),
        ("auth.other.example", [10, 0, 0, 2], false),
        ("cdn.example", [127, 0, 0, 1], false),
    ] {
        let found = [IpAddr::from(address)];
        assert_eq!(guard.permitted(host, 443, &found).is_ok(), may, "{host}");
    }
}

#[test]
fn p19_metadata_services_are_never_reached_even_where_an_upstream_names_them() {
    for url in [
        "http://169.254.169.254/",
        "http://[fd00:ec2::254]/",
        "http://[::ffff:169.254.169.254]/",
        "http://168.63.129.16/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://metadata.google.internal/",
    ] {
        assert!(!allows(url, url), "{url}");
    }
    let named = Url::parse("http://169.254.169.254/").unwrap();
    let found = [IpAddr::from([169, 254, 169, 254])];
    assert!(
        Guard::new([&named], [])
            .permitted("169.254.169.254", 80, &found)
            .is_err()
    );
}

#[test]
fn p19_every_form_of_this_host_is_guarded() {
    for guarded in [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "0.1.2.3",
        "255.255.255.255",
        "224.0.0.1",
        "169.254.1.1",
        "::1",
        "::",
        "fe80::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:0.0.0.0",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::7f00:1",
        "64:ff9b:1:7f00:0:100::",
        "2002:7f00:1::",
        "2001:0:1234::80ff:fffe",
    ] {
        assert!(is_guarded(guarded.parse().unwrap()), "{guarded}");
    }
    for open in [
        "10.0.0.1",
        "192.168.1.1",
        "203.0.113.1",
        "fd00::1",
        "2001:db8::1",
        "::ffff:10.0.0.1",
        "64:ff9b::cb00:7101",
    ] {
        assert!(!is_guarded(open.parse().unwrap()), "{open}");
    }
}

#[test]
fn p19_the_name_of_an_upstream_is_no_permission_for_whatever_address_it_resolves_to() {
    let upstreams = [
        "https://pkg.example/",
        "http://127.0.0.1:8000/",
        "http://[::1]:8000/",
        "http://localhost:1/",
    ];
    let upstreams = upstreams.map(|url| Url::parse(url).unwrap());
    let guard = Guard::new(&upstreams, []);
    let this_host = [IpAddr::from([127, 0, 0, 1])];
    let permits = |host, port| guard.permitted(host, port, &this_host).is_ok();
    assert!(!permits("pkg.example", 443));
    assert!(permits("127.0.0.1", 8000));
    assert!(permits("[::1]", 8000));
    assert!(permits("localhost", 1));
    assert!(!permits("localhost", 2));
    assert!(!permits("127.0.0.1", 443));
    let mixed = [this_host[0], IpAddr::from([203, 0, 113, 1])];
    let left = guard.permitted("pkg.example", 443, &mixed).unwrap();
    assert_eq!(left, [SocketAddr::from(([203, 0, 113, 1], 443))]);
}
