use super::*;
use crate::policy::test_support::headers;

fn status(want: Want, fields: &[(&'static str, &str)], reach: Reach, token: Option<&str>) -> Option<u16> {
    let settings = AdminSettings::default();
    let token = token.map(|token| Ok(Secret::new(token)));
    admit(want, &headers(fields), (reach, &settings), token)
        .err()
        .map(|response| response.status().as_u16())
}

#[test]
fn without_a_token_the_network_sees_health_alone() {
    assert_eq!(
        status(Want::Page(OpenPage::Health), &[], Reach::Network, None),
        None
    );
    for want in [Want::Page(OpenPage::Metrics), Want::Read, Want::Change] {
        let fields = [("kato-admin", "1"), ("host", "10.0.0.1")];
        assert_eq!(status(want, &fields, Reach::Network, None), Some(403), "{want:?}");
        assert_eq!(status(want, &fields, Reach::Loopback, None), None, "{want:?}");
    }
}

#[test]
fn with_a_token_nothing_else_opens_the_api() {
    let token = "0123456789abcdef";
    for reach in [Reach::Socket, Reach::Loopback, Reach::Network] {
        for (given, expected) in [
            ("Bearer 0123456789abcdef", None),
            ("bearer 0123456789abcdef", None),
            ("Bearer 0123456789abcdeF", Some(401)),
            ("Bearer", Some(401)),
            ("Basic 0123456789abcdef", Some(401)),
            ("0123456789abcdef", Some(401)),
        ] {
            let fields = [("authorization", given), ("host", "rebound.example")];
            assert_eq!(
                status(Want::Read, &fields, reach, Some(token)),
                expected,
                "{given}"
            );
            assert_eq!(
                status(Want::Change, &fields, reach, Some(token)),
                expected,
                "{given}"
            );
        }
        assert_eq!(
            status(Want::Change, &[("kato-admin", "1")], reach, Some(token)),
            Some(401)
        );
    }
}

#[test]
fn web_pages_read_nothing_by_a_name_of_theirs_and_change_nothing() {
    for (host, expected) in [
        ("127.0.0.1:3181", None),
        ("[::1]:3181", None),
        ("localhost:3181", None),
        ("LOCALHOST", None),
        ("rebound.example:3181", Some(403)),
        ("127.0.0.1.rebound.example", Some(403)),
        ("localhost.rebound.example", Some(403)),
        ("user@localhost", Some(403)),
        ("", Some(403)),
    ] {
        assert_eq!(
            status(Want::Read, &[("host", host)], Reach::Loopback, None),
            expected,
            "{host}"
        );
    }
    let local = ("host", "127.0.0.1");
    assert_eq!(status(Want::Change, &[local], Reach::Loopback, None), Some(403));
    assert_eq!(
        status(Want::Change, &[local, ("kato-admin", "1")], Reach::Loopback, None),
        None
    );
    let of_page = [local, ("kato-admin", "1"), ("origin", "http://page.example")];
    assert_eq!(status(Want::Change, &of_page, Reach::Loopback, None), Some(403));
}

#[test]
fn a_token_file_that_others_may_read_or_that_holds_no_token_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let write = |text: &str, mode| kato_shared::durable::write(&path, text.as_bytes(), mode).unwrap();
    write("0123456789abcdef\n", 0o600);
    assert!(read_token(&path).unwrap().is(b"0123456789abcdef"));
    write("0123456789abcdef", 0o644);
    assert!(matches!(
        read_token(&path),
        Err(TokenError::Mode { mode: 0o644, .. })
    ));
    write("short", 0o600);
    assert!(matches!(
        read_token(&path),
        Err(TokenError::Short { length: 5, .. })
    ));
    write("two words of some length", 0o600);
    assert!(matches!(read_token(&path), Err(TokenError::Short { .. })));
    let missing = folder.path().join("none");
    assert!(matches!(read_token(&missing), Err(TokenError::Read { .. })));
    assert!(!format!("{:?}", read_token(&path)).contains("two words"));
}
