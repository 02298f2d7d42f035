//! Bad settings and bad surroundings: one paragraph, the remedy, exit code 2, nothing changed.

use std::{fs, path::Path};

use anyhow::Result;
use integration_tests::proxy::{Ended, Settings, run_to_end};
use tokio::net::TcpListener;

/// The code for wrong usage and for surroundings that refuse, by the table in README.md.
const USAGE: i32 = 2;
const PREFLIGHT: i32 = 20;

#[expect(
    clippy::disallowed_methods,
    reason = "a file of the test's own, which need not be durable"
)]
fn put(path: &Path, text: &str) -> Result<()> {
    Ok(fs::write(path, text)?)
}

fn assert_paragraph(ended: &Ended, mentions: &[&str]) {
    let text = ended.stderr.trim();
    assert!(
        matches!(ended.code, Some(USAGE | PREFLIGHT)),
        "code {:?}: {text}",
        ended.code
    );
    for mention in mentions {
        assert!(text.contains(mention), "no {mention:?} in: {text}");
    }
    assert!(text.contains("hint:"), "no remedy: {text}");
    assert!(!text.contains("\n\n"), "more than a paragraph: {text}");
    assert!(text.lines().count() <= 6, "more than a paragraph: {text}");
    assert!(!text.contains("panicked"), "{text}");
}

#[tokio::test]
async fn a_port_in_use_is_named_with_the_remedy() -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0").await?;
    let address = taken.local_addr()?.to_string();
    let folder = tempfile::tempdir()?;
    let ended = run_to_end(&[
        "serve",
        "--listen",
        &address,
        "--admin",
        "127.0.0.1:0",
        "--cache-dir",
        &folder.path().join("cache").display().to_string(),
        "--upstream",
        "files=http://files.example/",
    ])
    .await?;
    assert_paragraph(&ended, &[&address]);
    Ok(())
}

#[tokio::test]
async fn a_cache_folder_that_cannot_be_written_is_named_with_the_remedy() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("file");
    put(&file, "not a folder")?;
    // A folder below a file cannot be made, by root neither.
    let below = file.join("cache");
    let ended = Settings::new(&below)
        .upstream("files", "http://files.example/")
        .run_to_end()
        .await?;
    assert_paragraph(&ended, &[&below.display().to_string()]);
    assert_eq!(fs::read(&file)?, b"not a folder");
    Ok(())
}

#[tokio::test]
async fn an_unknown_key_is_named_with_file_line_and_the_nearest_key() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("proxy.toml");
    put(&file, "# settings\n[cache]\nmax_sise = \"1GiB\"\n")?;
    let ended = run_to_end(&["serve", "--config", &file.display().to_string()]).await?;
    assert_paragraph(&ended, &[&file.display().to_string(), "max_sise", "max_size"]);
    assert!(
        ended.stderr.contains(":3") || ended.stderr.contains("line 3"),
        "no line: {}",
        ended.stderr
    );
    Ok(())
}

#[tokio::test]
async fn a_second_process_on_the_same_store_is_refused() -> Result<()> {
    let setup = crate::Setup::start().await?;
    let ended = crate::settings(setup.cache.path(), &setup.origin)
        .run_to_end()
        .await?;
    assert_paragraph(&ended, &[&setup.cache.path().display().to_string()]);
    Ok(())
}
