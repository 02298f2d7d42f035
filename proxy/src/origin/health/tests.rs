//! Marks against origins and their URLs.

use super::*;

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

#[tokio::test]
async fn a_failure_counts_for_its_origin_and_for_a_while_then_a_probe_and_a_trial_decide() {
    let health = Health::default();
    let (one, same, other) = (
        url("http://a.example/x"),
        url("http://user:pw@a.example:80/y"),
        url("http://a.example:81/x"),
    );
    let now = Instant::now();
    assert!(health.failed(&one, now));
    assert!(!health.failed(&same, now), "the same failure");
    assert_eq!(health.standing(&same, now), Standing::Down { probe: false });
    assert_eq!(health.standing(&other, now), Standing::Up);
    let later = now + FIRST;
    assert_eq!(health.standing(&one, later), Standing::Down { probe: true });
    assert_eq!(
        health.standing(&one, later),
        Standing::Down { probe: false },
        "one probe"
    );
    health.connected(&one, later);
    assert_eq!(health.standing(&one, later), Standing::Up, "the trial");
    assert_eq!(
        health.standing(&one, later),
        Standing::Down { probe: false },
        "one trial"
    );
    health.failed(&one, later);
    assert_eq!(
        health.standing(&one, later + FIRST),
        Standing::Down { probe: false },
        "longer now"
    );
    assert_eq!(
        health.standing(&one, later + FIRST * 2),
        Standing::Down { probe: true }
    );
    health.connected(&one, later);
    assert!(health.answered(&one, false));
    assert_eq!(health.standing(&one, later), Standing::Up);
    assert!(!health.answered(&one, false));
}

#[tokio::test]
async fn p11_a_registry_with_nothing_left_is_not_asked_for_manifests_and_for_anything_else() {
    let (health, now) = (Health::default(), Instant::now());
    let url = |path: &str| Url::parse(&format!("http://registry.example/v2/app/{path}")).unwrap();
    let (tag, other, blob) = (url("manifests/v1"), url("manifests/v2"), url("blobs/x"));
    assert!(!health.limited(&tag, None, now), "there was enough before");
    assert!(health.limited(&tag, Some(Duration::from_secs(60)), now));
    assert!(!health.limited(&other, Some(Duration::from_secs(60)), now));
    assert_eq!(
        health.standing(&other, now),
        Standing::Busy(Duration::from_secs(60))
    );
    assert_eq!(health.standing(&blob, now), Standing::Up);
    assert!(
        health.may_try(&tag, now),
        "where there is nothing else it is asked"
    );
    assert_eq!(health.standing(&tag, now + Duration::from_secs(61)), Standing::Up);
    assert!(health.limited(&tag, None, now), "there is more");
    assert_eq!(health.standing(&tag, now), Standing::Up);
}

#[tokio::test]
async fn p11_retry_after_is_remembered_for_the_url_that_said_it() {
    let health = Health::default();
    let (busy, other, now) = (
        url("https://a.example/x?1"),
        url("https://a.example/y"),
        Instant::now(),
    );
    health.busy(&busy, Duration::from_secs(30), now);
    let seconds = |after: u64| health.standing(&busy, now + Duration::from_secs(after));
    assert_eq!(seconds(10), Standing::Busy(Duration::from_secs(20)));
    assert_eq!(seconds(30), Standing::Up);
    assert_eq!(health.standing(&other, now), Standing::Up);
    assert!(!health.may_try(&busy, now), "it said so itself");
}

#[tokio::test]
async fn p11_an_origin_is_busy_when_several_urls_are_and_is_tried_once_a_second() {
    let health = Health::default();
    let (other, now) = (url("https://a.example/other"), Instant::now());
    let all_busy = || {
        for nth in 0..3 {
            assert_eq!(health.standing(&other, now), Standing::Up);
            health.busy(
                &url(&format!("https://a.example/{nth}")),
                Duration::from_secs(30),
                now,
            );
        }
    };
    all_busy();
    assert_eq!(
        health.standing(&other, now),
        Standing::Busy(Duration::from_secs(30))
    );
    let later = now + TRIAL_EVERY;
    assert!(!health.may_try(&other, now), "it has just spoken");
    assert!(health.may_try(&other, later));
    assert!(!health.may_try(&other, later), "one trial");
    // Still busy: that ends nothing. Any other answer does.
    assert!(!health.answered(&other, true));
    assert!(matches!(health.standing(&other, now), Standing::Busy(_)));
    assert!(!health.answered(&other, false));
    all_busy();
}

#[tokio::test]
async fn silence_counts_for_its_url_and_of_several_for_their_origin() {
    let health = Health::default();
    let (other, now) = (url("https://a.example/other"), Instant::now());
    let silent = |nth: u8| health.stalled(&url(&format!("https://a.example/{nth}")), now);
    assert!(!silent(0) && !silent(0) && !silent(1));
    assert_eq!(health.standing(&other, now), Standing::Up);
    assert_eq!(
        health.standing(&url("https://a.example/0"), now),
        Standing::Down { probe: false }
    );
    assert!(silent(2), "news");
    assert_eq!(health.standing(&other, now), Standing::Down { probe: false });
    assert!(health.is_marked(&other, now));
    assert!(health.answered(&other, false));
    assert_eq!(health.standing(&other, now), Standing::Up);
}
