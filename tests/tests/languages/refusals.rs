//! What clients of package indexes ask for and a cache cannot give: refused with the way out, and no origin hears of it.

use anyhow::Result;
use kato_shared::api::Problem;

use crate::site::Site;

#[tokio::test]
async fn uploads_git_and_audits_are_refused_with_a_hint() -> Result<()> {
    for (kind, method, path, status, hint) in [
        ("pypi", "POST", "/legacy/", 405, "publish to the index itself"),
        ("npm", "PUT", "/a", 405, "publish to the index itself"),
        (
            "npm",
            "PUT",
            "/-/user/org.couchdb.user:a",
            405,
            "publish to the index itself",
        ),
        (
            "npm",
            "POST",
            "/-/npm/v1/security/advisories/bulk",
            404,
            "audit=false",
        ),
        (
            "cargo",
            "PUT",
            "/api/v1/crates/new",
            405,
            "publish to the index itself",
        ),
        (
            "cargo",
            "GET",
            "/index.git/info/refs?service=git-upload-pack",
            404,
            "sparse+",
        ),
        ("cargo", "POST", "/index.git/git-upload-pack", 404, "sparse+"),
    ] {
        let site = Site::start("up", kind).await?;
        let client = site.proxy.client();
        for target in [format!("/up{path}"), site.index.url(path)] {
            let (response, body) = client.request(method, &target).body("x").fetch().await?;
            let problem: Problem = serde_json::from_slice(&body)?;
            assert_eq!(response.status, status, "{method} {target}");
            let said = problem.hint.unwrap_or_default();
            assert!(said.contains(hint), "{method} {target}: {said}");
            if status == 405 {
                assert_eq!(response.header("allow"), Some("GET, HEAD"));
            }
        }
        assert_eq!(site.index.connections(), 0, "{method} {path}");
    }
    Ok(())
}
