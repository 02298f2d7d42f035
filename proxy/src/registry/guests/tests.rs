use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::{HeaderMap, header};

use super::*;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// As `htpasswd -nbB -C 4 ada opensesame` writes it.
const ADA: &str = "ada:$2y$04$0RjH4FzSBaKxAcmgS7yN2Oouvj3iNIQq7Pl4haJTzLyE4b/V2cu42";

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn asking(authorization: &str) -> HeaderMap {
    HeaderMap::from_iter([(header::AUTHORIZATION, authorization.parse().unwrap())])
}

fn basic(pair: &str) -> HeaderMap {
    asking(&format!("Basic {}", BASE64_STANDARD.encode(pair)))
}

/// Guests by a file with `lines`, with tokens of a minute; `ci` may pull `hub/library/` alone.
fn guests(lines: &str) -> (tempfile::TempDir, Guests) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users");
    kato_shared::durable::write(&path, lines.as_bytes(), 0o600).unwrap();
    let settings = Registry {
        users_file: Some(path),
        token_lifetime: Some(HumanDuration::from_secs(60)),
        rights: [("ci".to_owned(), vec!["hub/library/".to_owned()])].into(),
        ..Registry::default()
    };
    (folder, Guests::new(&settings, None))
}

fn is_guest(seen: &Seen) -> bool {
    matches!(seen, Seen::Guest(_))
}

#[test]
fn a_user_shows_name_and_secret_or_the_secret_alone() {
    let (_folder, guests) = guests(&format!("node:{}\n", Digest::of(b"s3cr:et")));
    let admitted = |headers: &HeaderMap| is_guest(&guests.who(headers, now()));
    assert!(admitted(&basic("node:s3cr:et")));
    assert!(admitted(&asking("bearer s3cr:et")));
    for refused in [
        basic("other:s3cr:et"),
        basic("node:wrong"),
        asking("Digest x"),
        HeaderMap::new(),
    ] {
        assert!(
            matches!(guests.who(&refused, now()), Seen::Stranger),
            "{refused:?}"
        );
    }
    assert!(is_guest(&Guests::default().who(&HeaderMap::new(), now())));
}

#[test]
fn a_file_that_cannot_be_read_lets_nobody_in() {
    let (_folder, broken) = guests("node:secret\n");
    assert!(!is_guest(&broken.who(&basic("node:secret"), now())));
    let settings = Registry {
        users_file: Some("/nonexistent/users".into()),
        ..Registry::default()
    };
    let missing = Guests::new(&settings, None);
    assert!(!is_guest(&missing.who(&basic("node:secret"), now())));
    assert!(!missing.is_everybody());
}

#[tokio::test]
async fn a_password_is_verified_once_and_again_after_its_line_has_changed() {
    let node = Digest::of(b"x");
    let (folder, guests) = guests(&format!("node:{node}\n{ADA}\n"));
    let ada = basic("ada:opensesame");
    assert!(matches!(guests.who(&ada, now()), Seen::Claim(_)));
    assert!(is_guest(&guests.recognise(&ada, HERE, now()).await));
    assert!(
        is_guest(&guests.who(&ada, now())),
        "what is proved is told without delay"
    );
    assert!(
        matches!(
            guests.recognise(&basic("ada:wrong"), HERE, now()).await,
            Seen::Stranger
        ),
        "one password proves no other"
    );
    // Whoever is wrong waits as long, whatever the name.
    for wrong in ["eve:x", "node:wrong"] {
        let seen = guests.who(&basic(wrong), now());
        assert!(matches!(seen, Seen::Claim(Claim { user: None, .. })), "{seen:?}");
        assert!(matches!(
            guests.recognise(&basic(wrong), HERE, now()).await,
            Seen::Stranger
        ));
    }
    // A dummy line that happens to fit makes nobody of anybody.
    assert!(matches!(
        guests.recognise(&basic("eve:opensesame"), HERE, now()).await,
        Seen::Stranger
    ));
    let settings = Registry {
        users_file: Some(folder.path().join("users")),
        ..Registry::default()
    };
    assert!(is_guest(&Guests::new(&settings, Some(&guests)).who(&ada, now())));
    let other = ADA.replace("cu42", "cu43");
    kato_shared::durable::write(&folder.path().join("users"), other.as_bytes(), 0o600).unwrap();
    let changed = Guests::new(&settings, Some(&guests));
    assert!(matches!(
        changed.recognise(&ada, HERE, now()).await,
        Seen::Stranger
    ));
}

#[tokio::test]
async fn a_token_is_for_its_repositories_while_its_user_is_as_it_was() {
    let (ci, node) = (Digest::of(b"c"), Digest::of(b"n"));
    let (folder, guests) = guests(&format!("ci:{ci}\nnode:{node}\n"));
    let wanted = || (vec!["hub/library/app".into(), "hub/secret/app".into()], true);
    let leave = |given: &Given, guests: &Guests, repository: Option<&str>| {
        let headers = asking(&format!("Bearer {}", given.token));
        match guests.who(&headers, now()) {
            Seen::Guest(guest) => Some(guest.leave(repository)),
            Seen::Stranger | Seen::Claim(_) | Seen::Crowded => None,
        }
    };
    let given = guests
        .token(&basic("ci:c"), wanted(), (HERE, now()))
        .await
        .unwrap();
    for (repository, expected) in [
        (Some("hub/library/app"), Leave::Granted),
        (Some("hub/library/other"), Leave::OtherToken),
        (Some("hub/secret/app"), Leave::Denied),
        (None, Leave::Denied),
    ] {
        assert_eq!(
            leave(&given, &guests, repository),
            Some(expected),
            "{repository:?}"
        );
    }
    let whole = guests
        .token(&basic("node:n"), wanted(), (HERE, now()))
        .await
        .unwrap();
    assert_eq!(
        leave(&whole, &guests, Some("hub/secret/app")),
        Some(Leave::Granted)
    );
    assert_eq!(leave(&whole, &guests, None), Some(Leave::Granted));
    for nobody in [
        basic("ci:wrong"),
        asking("Bearer c"),
        asking(&format!("Bearer {}", given.token)),
        HeaderMap::new(),
    ] {
        assert_eq!(
            guests.token(&nobody, wanted(), (HERE, now())).await,
            Err(NotGiven::Stranger),
            "{nobody:?}"
        );
    }
    // The same key, another secret: what was given before is over.
    let settings = Registry {
        users_file: Some(folder.path().join("users")),
        token_lifetime: Some(HumanDuration::from_secs(60)),
        ..Registry::default()
    };
    let lines = format!("ci:{}\nnode:{node}\n", Digest::of(b"other"));
    kato_shared::durable::write(&folder.path().join("users"), lines.as_bytes(), 0o600).unwrap();
    let later = Guests::new(&settings, Some(&guests));
    assert_eq!(leave(&given, &later, Some("hub/library/app")), None);
    assert_eq!(
        leave(&whole, &later, Some("hub/secret/app")),
        Some(Leave::Granted)
    );
}

#[tokio::test]
async fn who_guesses_delays_nobody_else_and_is_told_to_wait() {
    let (_folder, guests) = guests(ADA);
    let mut flood = tokio::task::JoinSet::new();
    for nth in 0..60 {
        let (door, shown) = (guests.clone(), basic(&format!("ada:guess {nth}")));
        flood.spawn(async move { door.recognise(&shown, HERE, now()).await });
    }
    let elsewhere = IpAddr::V4(std::net::Ipv4Addr::BROADCAST);
    let ada = guests.recognise(&basic("ada:opensesame"), elsewhere, now()).await;
    assert!(is_guest(&ada));
    let seen = flood.join_all().await;
    assert!(!seen.iter().any(is_guest));
    assert!(seen.iter().any(|one| matches!(one, Seen::Crowded)));
    assert!(seen.iter().any(|one| matches!(one, Seen::Stranger)));
    // It is over when they are.
    assert!(is_guest(
        &guests.recognise(&basic("ada:opensesame"), HERE, now()).await
    ));
}
