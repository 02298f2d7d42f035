use std::path::Path;

use kato_shared::settings::HumanDuration;

use super::*;

/// A platform that keeps its mode in a file of `folder`.
fn platform(folder: &Path, auto: MaintenanceAuto) -> Maintenance {
    let shell = |script: &str| {
        Some(PlatformCommand {
            argv: vec![
                "/bin/sh".into(),
                "-c".into(),
                script.replace("MODE", &folder.join("mode").display().to_string()),
            ],
            timeout: HumanDuration::from_secs(30),
        })
    };
    let mut settings = Settings::default();
    settings.node.root = folder.to_owned();
    settings.maintenance = MaintenanceSettings {
        auto,
        get: shell(r#"if test -e MODE; then echo '{"on": true}'; else echo '{"on": false}'; fi"#),
        on: shell("touch MODE"),
        off: shell("rm -f MODE"),
        serving: Vec::new(),
        refusing: Vec::new(),
    };
    Maintenance::of(&settings, &Clock::held_at(jiff::Timestamp::UNIX_EPOCH))
}

fn never() -> bool {
    panic!("nobody was to be asked")
}

#[test]
fn r03_what_is_needed_follows_from_the_setting_and_the_mode() {
    use MaintenanceAuto::{Off, On, Verify};
    for (auto, is, knows, expected) in [
        (Verify, None, true, Need::Nothing),
        (Verify, Some(true), true, Need::Nothing),
        (Verify, Some(false), true, Need::Ask),
        (On, None, true, Need::TurnOn),
        (On, None, false, Need::Nothing),
        (On, Some(true), true, Need::Nothing),
        (On, Some(false), true, Need::TurnOn),
        (Off, Some(false), true, Need::Nothing),
    ] {
        assert_eq!(need(auto, is, knows), expected, "{auto:?} {is:?}");
    }
}

#[tokio::test]
async fn r06_what_an_upgrade_turned_on_it_turns_off_again_also_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let first = platform(folder.path(), MaintenanceAuto::On);
    first.begin("p1", never).await.unwrap();
    assert_eq!(first.is_on().await.unwrap(), Some(true));
    assert!(first.left_on().unwrap().contains(OFF));
    // Killed here; the same command again finds it on and knows by whom.
    let second = platform(folder.path(), MaintenanceAuto::On);
    second.begin("p1", never).await.unwrap();
    assert_eq!(
        second.end().await.unwrap().unwrap(),
        "maintenance mode is off again"
    );
    assert_eq!(second.is_on().await.unwrap(), Some(false));
    assert_eq!((second.left_on(), second.end().await.unwrap()), (None, None));
}

#[tokio::test]
async fn r06_what_somebody_else_turned_on_stays_on_and_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let mode = platform(folder.path(), MaintenanceAuto::On);
    mode.by_hand(true).await.unwrap();
    mode.begin("p1", never).await.unwrap();
    assert_eq!(mode.left_on(), None);
    assert!(mode.end().await.unwrap().unwrap().contains("as it was before"));
    assert_eq!(mode.is_on().await.unwrap(), Some(true));
}

#[tokio::test]
async fn r03_verify_refuses_where_nobody_is_and_asks_where_somebody_is() {
    let folder = tempfile::tempdir().unwrap();
    let mode = platform(folder.path(), MaintenanceAuto::Verify);
    let refused = mode.check(false).await.unwrap_err();
    assert_eq!(refused.exit, Exit::Preflight);
    assert!(refused.hint.unwrap().contains("kato maintenance on"));
    mode.check(true).await.unwrap();
    assert_eq!(mode.begin("p1", || false).await.unwrap_err().exit, Exit::Declined);
    assert_eq!(mode.is_on().await.unwrap(), Some(false));
    mode.begin("p1", || true).await.unwrap();
    assert_eq!(mode.is_on().await.unwrap(), Some(true));
}

#[tokio::test]
async fn r05_the_way_off_is_open_whatever_the_platform_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut mode = platform(folder.path(), MaintenanceAuto::On);
    mode.begin("p1", never).await.unwrap();
    // The API is closed: nobody can be asked.
    let get = mode.settings.get.as_mut().unwrap();
    get.argv = vec!["/bin/false".into()];
    mode.by_hand(false).await.unwrap();
    assert!(!folder.path().join("mode").exists());
    assert_eq!(mode.left_on(), None);
}

#[tokio::test]
async fn r04_a_mode_that_stops_what_is_served_is_turned_off_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut mode = platform(folder.path(), MaintenanceAuto::On);
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    mode.settings.serving = vec![format!("http://{closed}/").parse().unwrap()];
    let refused = mode.begin("p1", never).await.unwrap_err();
    assert_eq!(refused.exit, Exit::Preflight);
    assert!(refused.to_string().contains("does not serve"), "{refused}");
    assert_eq!(mode.is_on().await.unwrap(), Some(false));
    assert_eq!(mode.left_on(), None);
}

/// Answers each request with `status`, and says what the requests began with.
async fn platform_that_answers(
    status: &'static str,
) -> (
    url::Url,
    tokio::sync::mpsc::Receiver<String>,
    tokio::task::JoinSet<()>,
) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v2/apps", listener.local_addr().unwrap());
    let (tell, requests) = tokio::sync::mpsc::channel(8);
    let mut serving = tokio::task::JoinSet::new();
    serving.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).await.unwrap_or(0);
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _gone = stream.write_all(answer.as_bytes()).await;
            let first = String::from_utf8_lossy(&head[..read])
                .lines()
                .next()
                .map(String::from);
            if tell.send(first.unwrap_or_default()).await.is_err() {
                break;
            }
        }
    });
    (url.parse().unwrap(), requests, serving)
}

fn refusing(mode: &mut Maintenance, url: &url::Url) {
    let text = format!("refusing = [{{ url = \"{url}\" }}]");
    mode.settings.refusing = toml::from_str::<MaintenanceSettings>(&text).unwrap().refusing;
}

#[tokio::test]
async fn r04_writes_are_seen_to_be_refused_and_a_mode_that_lets_them_through_is_turned_off() {
    for (status, expected) in [
        ("503 Service Unavailable", None),
        (
            "201 Created",
            Some("is answered 201, expected a refusal (403, 405, 423, 503)"),
        ),
        ("404 Not Found", Some("is answered 404")),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut mode = platform(folder.path(), MaintenanceAuto::On);
        let (url, mut requests, _serving) = platform_that_answers(status).await;
        refusing(&mut mode, &url);
        let begun = mode.begin("p1", never).await;
        assert_eq!(requests.recv().await.unwrap(), "POST /v2/apps HTTP/1.1");
        let Some(expected) = expected else {
            begun.unwrap();
            assert_eq!(mode.is_on().await.unwrap(), Some(true));
            continue;
        };
        let refused = begun.unwrap_err();
        assert_eq!(refused.exit, Exit::Preflight);
        assert!(refused.to_string().contains(expected), "{refused}");
        // It was ours, and nothing was changed: it is off again.
        assert_eq!((mode.is_on().await.unwrap(), mode.left_on()), (Some(false), None));
    }
}

#[tokio::test]
async fn r04_a_mode_of_somebody_else_is_looked_at_too_and_is_not_turned_off() {
    let folder = tempfile::tempdir().unwrap();
    let mut mode = platform(folder.path(), MaintenanceAuto::Verify);
    mode.by_hand(true).await.unwrap();
    let (url, _requests, _serving) = platform_that_answers("201 Created").await;
    refusing(&mut mode, &url);
    let refused = mode.begin("p1", never).await.unwrap_err();
    assert_eq!(refused.exit, Exit::Preflight);
    assert_eq!(mode.is_on().await.unwrap(), Some(true));

    // Nobody there: a node may be in the middle of its upgrade, and the same command must be able to go on.
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    refusing(&mut mode, &format!("http://{closed}/").parse().unwrap());
    mode.begin("p1", never).await.unwrap();
    // Turned on by us it must be proved, however.
    mode.by_hand(false).await.unwrap();
    let refused = mode.begin("p1", || true).await.unwrap_err();
    assert!(refused.to_string().contains("cannot be asked"), "{refused}");
    assert_eq!(mode.is_on().await.unwrap(), Some(false));
}

#[tokio::test]
async fn c10_a_switch_is_believed_only_when_it_was_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut mode = platform(folder.path(), MaintenanceAuto::On);
    mode.settings.on.as_mut().unwrap().argv = vec!["/bin/true".into()];
    mode.between_looks = Duration::from_millis(1);
    let refused = mode.begin("p1", never).await.unwrap_err();
    assert!(refused.to_string().contains("still off"), "{refused}");
    assert_eq!(mode.left_on(), None);
}

#[tokio::test]
async fn r06_what_somebody_else_turned_on_between_our_look_and_our_command_stays_on() {
    let script = |text: &str, folder: &Path| PlatformCommand {
        argv: vec![
            "/bin/sh".into(),
            "-c".into(),
            text.replace("DIR", &folder.display().to_string()),
        ],
        timeout: HumanDuration::from_secs(30),
    };
    // Says how it is, and behind the answer with this number somebody else turns it on.
    let get = |at: u32| {
        format!(
            "echo x >>DIR/looks; if test -e DIR/mode; then echo '{{\"on\": true}}'; else echo '{{\"on\": false}}'; fi; \
             test $(wc -l <DIR/looks) -ne {at} || touch DIR/mode"
        )
    };
    let on = "echo x >>DIR/ons; if test -e DIR/mode; then echo '{\"changed\": false}'; else touch DIR/mode; echo '{\"changed\": true}'; fi";
    for (auto, at, ons) in [
        // Behind the first look, before the second.
        (MaintenanceAuto::On, 1, 0),
        (MaintenanceAuto::Verify, 1, 0),
        // Behind the last look before the command, which says so.
        (MaintenanceAuto::On, 2, 1),
        (MaintenanceAuto::Verify, 2, 1),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut mode = platform(folder.path(), auto);
        mode.settings.get = Some(script(&get(at), folder.path()));
        mode.settings.on = Some(script(on, folder.path()));
        mode.begin("p1", || true).await.unwrap();
        let calls = std::fs::read_to_string(folder.path().join("ons")).unwrap_or_default();
        assert_eq!(calls.lines().count(), ons, "{auto:?}, behind look {at}");
        assert_eq!((mode.ours().unwrap(), mode.left_on()), (None, None));
        assert!(mode.end().await.unwrap().unwrap().contains("as it was before"));
        assert_eq!(
            mode.is_on().await.unwrap(),
            Some(true),
            "{auto:?}, behind look {at}"
        );
    }
    // Nobody else: the same commands, and it is ours.
    let folder = tempfile::tempdir().unwrap();
    let mut mode = platform(folder.path(), MaintenanceAuto::On);
    mode.settings.get = Some(script(&get(0), folder.path()));
    mode.settings.on = Some(script(on, folder.path()));
    mode.begin("p1", never).await.unwrap();
    // Killed and begun again: `on` is not called any more, and it stays ours.
    mode.begin("p1", never).await.unwrap();
    assert_eq!(
        mode.end().await.unwrap().unwrap(),
        "maintenance mode is off again"
    );
    assert_eq!(mode.is_on().await.unwrap(), Some(false));
}
