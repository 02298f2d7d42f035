use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// Counts the questions, and answers each with its number.
#[expect(clippy::unnecessary_wraps, reason = "an answer is what `Read` may give")]
fn counted(_prompt: &str) -> Option<Secret> {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    Some(Secret::new(ASKED.fetch_add(1, Ordering::Relaxed).to_string()))
}

fn nobody(_prompt: &str) -> Option<Secret> {
    None
}

#[tokio::test]
async fn r17_a_node_is_asked_about_once_and_one_answer_does_for_all_on_request() {
    let each = Asker::new(counted, false);
    let first = each.answer("joe@a's password: ", &["a"], false).await.unwrap();
    assert_eq!(
        each.answer("joe@a's password: ", &["a"], false).await.unwrap(),
        first
    );
    let other = each.answer("joe@b's password: ", &["b"], false).await.unwrap();
    assert_ne!(other, first);
    // It was wrong.
    let second = each.answer("joe@a's password: ", &["a"], true).await.unwrap();
    assert_ne!(second, first);
    assert_eq!(
        each.answer("joe@a's password: ", &["a"], false).await.unwrap(),
        second
    );

    let one = Asker::new(counted, true);
    let first = one
        .answer("joe@10.0.0.1's password: ", &["a", "10.0.0.1"], false)
        .await
        .unwrap();
    let same = one
        .answer("joe@10.0.0.2's password: ", &["b", "10.0.0.2"], false)
        .await
        .unwrap();
    assert_eq!(first, same);
}

#[tokio::test]
async fn r17_a_question_of_ssh_is_answered_over_the_desk_and_asked_anew_when_it_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    let asker = Asker::new(counted, false);
    let desk = Desk::open(folder.path(), &asker, vec!["n1".into()]).unwrap();
    let socket = desk.socket.clone();
    let question = move || {
        let mut client = Client::connect(&socket).unwrap();
        client.write_all(b"password: ").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    };
    let ask = || tokio::task::spawn_blocking(question.clone());
    let first = ask().await.unwrap();
    assert!(first.ends_with('\n'), "{first:?}");
    assert_ne!(ask().await.unwrap(), first);
}

#[tokio::test]
async fn c20_without_an_answer_ssh_gets_none() {
    let folder = tempfile::tempdir().unwrap();
    let asker = Asker::new(nobody, false);
    let desk = Desk::open(folder.path(), &asker, vec![]).unwrap();
    let socket = desk.socket.clone();
    let question = tokio::task::spawn_blocking(move || ask(&socket, "password: "));
    assert!(!question.await.unwrap().unwrap());
}
