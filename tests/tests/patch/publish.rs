//! What cannot be published as a patch; and a repository with patches verifies.

use anyhow::Result;
use integration_tests::command;

use crate::site::{LONG, Site, TestPatch};

#[tokio::test(flavor = "multi_thread")]
async fn r70_a_patch_that_does_not_fit_to_what_is_published_is_refused_by_name() -> Result<()> {
    let site = Site::with(&[], &[TestPatch::of_etc(3, "three", &[("a", "a")])]).await?;
    let etc = |id, name| TestPatch::of_etc(id, name, &[("b", "b")]);
    let cases = [
        (etc(3, "again"), "its number 3 is not above 3"),
        (etc(2, "late"), "the next is 4"),
        (etc(4, "three"), "the name is that of the patch 3 already"),
        (
            etc(4, "four").with("roles = [\"dae\"]\n"),
            "the role `dae` is none",
        ),
        (
            etc(4, "five").with("requires = [\"ghost\"]\n"),
            "it requires `ghost`",
        ),
        (etc(4, "six").with("roles = []\n"), "affects no role"),
        (etc(4, "un derscore"), "the patch name `un derscore`"),
    ];
    for (patch, expected) in cases {
        let error = site.publish(&patch).await.unwrap_err();
        let said = kato_shared::chain::Chain(&error).to_string();
        assert!(said.contains(expected), "{said}");
    }
    let mut elsewhere = etc(4, "elsewhere");
    elsewhere.release.version = "9.0.0".parse()?;
    let error = site.publish(&elsewhere).await.unwrap_err().to_string();
    assert!(
        error.contains("no published release is one that it is for"),
        "{error}"
    );
    site.publish(&etc(4, "four")).await?;

    let mut kato = site.node.kato(&["release", "verify", "--dir"])?;
    kato.arg(site.repository.dir())
        .arg("--root")
        .arg(site.repository.root());
    let said = command::success("kato release verify", command::run(kato, LONG, &[])?)?;
    assert!(said.contains("2 patches"), "{said}");
    Ok(())
}
