//! A host of files that two indexes have: what one of them says about a URL is nothing to clients of the other.

use anyhow::{Context, Result};
use integration_tests::{
    origin::{Origin, Resource},
    proxy::{Proxy, Settings},
};
use tempfile::TempDir;

use crate::site::{document, put, sha256};

const FILE: &str = "/p/a-1.whl";

struct Shared {
    indexes: [Origin; 2],
    files: Origin,
    proxy: Proxy,
    _folder: TempDir,
}

impl Shared {
    /// Two upstreams, `one` and `two`, with one host for the files of both.
    async fn start() -> Result<Self> {
        let indexes = [Origin::start().await?, Origin::start().await?];
        let files = Origin::start().await?;
        let folder = tempfile::tempdir()?;
        let upstream = |name: &str, index: &Origin| {
            format!(
                "[[upstream]]\nname = \"{name}\"\nkind = \"pypi\"\nurls = [\"{}\"]\nfile_urls = [\"{}\"]\n",
                index.url("/"),
                files.url("/")
            )
        };
        let settings = format!(
            "[cache]\nmin_free = \"0B\"\n{}{}",
            upstream("one", &indexes[0]),
            upstream("two", &indexes[1])
        );
        let file = put(folder.path(), "proxy.toml", settings.as_bytes())?;
        let config = ["--config", file.to_str().context("a path of ASCII")?];
        let proxy = Settings::new(&folder.path().join("cache"))
            .arguments(&config)
            .start()
            .await?;
        Ok(Self {
            indexes,
            files,
            proxy,
            _folder: folder,
        })
    }

    /// The index `nth` names the file, with this content.
    fn publish(&self, nth: usize, content: &[u8]) {
        let page = format!(
            "<a href=\"{}#sha256={}\">a</a>",
            self.files.url(FILE),
            sha256(content)
        );
        self.indexes[nth].serve("/simple/a/", document(page, "text/html"));
    }

    /// Reads the page of the upstream `name` and follows its link: the path, the status, what is said.
    async fn follow(&self, name: &str) -> Result<(String, u16, String)> {
        let client = self.proxy.client();
        let (_, page) = client.fetch(&format!("/{name}/simple/a/")).await?;
        let page = String::from_utf8(page)?;
        let link = page.split(['"', '#']).nth(1).context("a link")?.to_owned();
        let (response, body) = client.fetch(&link).await?;
        Ok((link, response.status, String::from_utf8_lossy(&body).into_owned()))
    }
}

#[tokio::test]
async fn what_one_index_says_spoils_nothing_for_clients_of_another() -> Result<()> {
    let shared = Shared::start().await?;
    shared.files.serve(FILE, Resource::cacheable("the file"));
    shared.publish(0, b"the file");
    shared.publish(1, b"something else");
    // In turn, so that neither is told what was learned for the other.
    for _ in 0..2 {
        let (link, status, said) = shared.follow("one").await?;
        assert!(link.starts_with("/~one/http/"), "{link}");
        assert_eq!((status, said.as_str()), (200, "the file"));
        let (link, status, said) = shared.follow("two").await?;
        assert!(link.starts_with("/~two/http/"), "{link}");
        assert_eq!(status, 502, "its own index says so");
        assert!(said.contains(&sha256(b"something else")), "{said}");
    }
    // Who does not say of which upstream the file is gets it as any other.
    let (response, body) = shared.proxy.client().fetch(&shared.files.url(FILE)).await?;
    assert_eq!((response.status, body.as_slice()), (200, &b"the file"[..]));
    Ok(())
}

#[tokio::test]
async fn what_both_indexes_say_is_believed_and_stored_once() -> Result<()> {
    let shared = Shared::start().await?;
    shared.files.serve(FILE, Resource::cacheable("the file"));
    for nth in 0..2 {
        shared.publish(nth, b"the file");
    }
    for name in ["one", "two", "one"] {
        let (_, status, said) = shared.follow(name).await?;
        assert_eq!((status, said.as_str()), (200, "the file"));
    }
    assert_eq!(shared.files.requests(FILE).len(), 1);
    // The origin's file is another one by now: neither door gives it out, since both indexes promise the first.
    shared.files.serve(FILE, Resource::cacheable("another"));
    let (response, body) = shared
        .proxy
        .client()
        .get(&shared.files.url(FILE))
        .header("cache-control", "no-cache")
        .fetch()
        .await?;
    assert_eq!((response.status, body.as_slice()), (200, &b"the file"[..]));
    Ok(())
}
