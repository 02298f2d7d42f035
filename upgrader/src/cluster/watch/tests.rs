use super::*;

fn progress(subject: &str, done: u64) -> Progress {
    Progress {
        step: DOWNLOADS.into(),
        subject: subject.into(),
        done,
        total: 4 << 20,
    }
}

fn row(text: &str, speed: &str) -> Row {
    Row {
        node: "w1".into(),
        version: "1.0.0".into(),
        text: text.into(),
        speed: speed.into(),
    }
}

#[test]
fn a_speed_is_of_one_file_and_never_negative() {
    let second = Duration::from_secs(1);
    assert_eq!(
        speed(&progress("a", 0), &progress("a", 1 << 20), second * 2),
        Some(1 << 19)
    );
    assert_eq!(speed(&progress("a", 5), &progress("b", 9), second), None);
    assert_eq!(speed(&progress("a", 5), &progress("a", 3), second), None);
    assert_eq!(speed(&progress("a", 5), &progress("a", 9), Duration::ZERO), None);
}

#[test]
fn without_a_terminal_only_what_changed_is_a_line() {
    let mut screen = Screen::new(false);
    assert_eq!(
        screen.changes("at work", vec![row("idle", "")]),
        ["at work", "w1: 1.0.0 idle"]
    );
    assert_eq!(screen.changes("at work", vec![row("idle", "1 MiB/s")]), [""; 0]);
    assert_eq!(
        screen.changes("at work", vec![row("upgrading to 2.0.0 at stage", "")]),
        ["w1: 1.0.0 upgrading to 2.0.0 at stage"]
    );
}

#[test]
fn at_a_terminal_the_table_replaces_itself() {
    let mut screen = Screen::new(true);
    assert_eq!(screen.table("at work", vec![row("idle", "")]).len(), 2);
    let again = screen.table("complete", vec![row("idle", "")]);
    assert_eq!((again[0].as_str(), screen.drawn), ("complete", 2));
}
