//! An archive lists each index by several functions, and a client asks by one of them. What was fetched by one name is there by all.

/// Needs root: a rehearsal has a namespace of its own.
mod as_root {
    use std::{fs, path::Path, process::Command};

    use anyhow::{Context, Result, ensure};
    use integration_tests::{
        archive::{Archive, package},
        command,
        origin::{Origin, Resource},
        proxy::{Settings, run_to_end},
    };

    use crate::site::{put, succeed};

    /// The index of packages below its suite.
    const INDEX: &str = "main/binary-amd64/Packages";

    /// apt of a client that has nothing but this source and asks by one function alone, where one is given: it reads the suite, and fetches a package with what
    /// it depends on.
    const CLIENT: &str = r#"set -eu
root=$(mktemp -d "$HOME/apt.XXXXXX")
mkdir -p "$root/lists/partial" "$root/cache/archives/partial" "$root/etc"
: > "$root/status"
echo "deb [signed-by=$2] $1/debian stable main" > "$root/etc/sources.list"
printf 'Dir::Etc "%s/etc";\nDir::State "%s";\nDir::State::lists "%s/lists";\nDir::State::status "%s/status";\nDir::Cache "%s/cache";\n' "$root" "$root" "$root" "$root" "$root" > "$root/apt.conf"
printf 'APT::Sandbox::User "";\nAPT::Architecture "amd64";\nAcquire::Retries "0";\nAPT::Update::Error-Mode "any";\nAcquire::http::Proxy "DIRECT";\nAcquire::ForceHash "%s";\n' "$3" >> "$root/apt.conf"
export APT_CONFIG="$root/apt.conf"
apt-get -q update
apt-get -q -y --download-only install lab-app
test -s "$root/cache/archives/lab-app_1.0_all.deb"
test -s "$root/cache/archives/lab-part_1.0_all.deb"
"#;

    /// An archive of a package and what it depends on, with descriptions; its key is the second.
    fn publish(origin: &Origin, folder: &Path) -> Result<Archive> {
        let mut index = String::new();
        for (name, depends) in [("lab-part", &[][..]), ("lab-app", &["lab-part".to_owned()])] {
            let (path, bytes, paragraph) = package(folder, name, depends)?;
            origin.serve(&format!("/debian/{path}"), Resource::cacheable(bytes));
            index.push_str(&paragraph);
        }
        let mut archive = Archive::new()?;
        archive.index(INDEX, index);
        archive.index(
            "main/i18n/Translation-en",
            format!(
                "Package: lab-app\nDescription-md5: {}\nDescription-en: words\n",
                "0".repeat(32)
            ),
        );
        archive.list_by_sha512();
        archive.publish(origin)?;
        Ok(archive)
    }

    /// The names in `by-hash` of the index at `path` that `release` lists, a function each.
    fn names(release: &str, path: &str) -> Vec<String> {
        let (mut function, mut found) = ("", Vec::new());
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for line in release.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                [hex, _, listed] if line.starts_with(' ') && *listed == path => {
                    found.push(format!("{folder}/by-hash/{function}/{hex}"));
                }
                [section] => function = section.trim_end_matches(':'),
                _ => {}
            }
        }
        found
    }

    fn client(folder: &Path, mirror: &str, (key, function): (&str, &str)) -> Command {
        let mut sh = command::new("sh");
        sh.arg(folder.join("client.sh"))
            .args([mirror, key, function])
            .env("HOME", folder);
        sh
    }

    async fn done(words: &[&str]) -> Result<()> {
        let ended = run_to_end(words).await?;
        ensure!(ended.code == Some(0), "{words:?}: {ended:?}");
        Ok(())
    }

    /// A site that is being proved: what stands where in a folder.
    struct Files<'f>(&'f Path);

    impl Files<'_> {
        fn at(&self, name: &str) -> String {
            self.0.join(name).display().to_string()
        }

        /// Fills the store `here` as one client would that asks by SHA-512.
        async fn fill(&self, origin: &Origin, key: &str) -> Result<()> {
            let source = format!("{} stable main", origin.url("/debian"));
            let (here, config) = (self.at("here"), self.at("proxy.toml"));
            let store = ["prefetch", "--cache-dir", &here, "--config", &config];
            let wanted = ["--apt-source", &source, "--apt-key", key, "--apt-arch", "amd64"];
            done(&[&store[..], &wanted, &["--apt-package", "lab-app"]].concat()).await
        }

        /// Carries it from `here` to `there`; both proofs are given, nothing is waived.
        async fn carry(&self, archive: &str, key: &str) -> Result<()> {
            let declared = format!(
                "[[apt]]\narchive = \"{archive}\"\nsuite = \"stable\"\ncomponents = [\"main\"]\narchitectures = [\"amd64\"]\n\
                 packages = [\"lab-app\", \"lab-part\"]\n[[command]]\nargv = [\"sh\", \"{}\", \"{{mirror}}\", \"{key}\", \"SHA256\"]\n",
                self.at("client.sh")
            );
            put(self.0, "site.toml", declared.as_bytes())?;
            let [secret, public, out, here, there] =
                ["key", "key.pub", "out", "here", "there"].map(|name| self.at(name));
            let (config, declaration) = (self.at("proxy.toml"), self.at("site.toml"));
            done(&["bundle", "keygen", "--secret", &secret, "--public", &public]).await?;
            let store = ["bundle", "export", "--cache-dir", &here, "--config", &config];
            let series = ["--series", "s", "--key", &secret, "--out", &out];
            done(&[&store[..], &series, &["--declare", &declaration]].concat()).await?;
            let bundle = self.at("out/s-000001");
            let import = ["bundle", "import", &bundle, "--trust", &public];
            done(&[&import[..], &["--cache-dir", &there]].concat()).await
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_index_that_was_fetched_by_one_name_is_answered_by_every_name_of_it() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let files = Files(folder.path());
        let mut origin = Origin::start().await?;
        let archive = publish(&origin, folder.path())?;
        put(folder.path(), "client.sh", CLIENT.as_bytes())?;
        let settings = format!(
            "[cache]\nmin_free = \"0B\"\n[[upstream]]\nname = \"debian\"\nkind = \"packages\"\nurls = [\"{}\"]\n",
            origin.url("/debian/")
        );
        put(folder.path(), "proxy.toml", settings.as_bytes())?;
        let key = archive.key().display().to_string();
        files.fill(&origin, &key).await?;
        origin.stop().await;
        files.carry(&origin.url("/debian"), &key).await?;

        let far = Settings::new(&folder.path().join("there"))
            .arguments(&["--config", &files.at("proxy.toml"), "--offline"])
            .start()
            .await?;
        // The second one asks as it likes: by the strongest.
        for function in ["SHA256", ""] {
            let mirror = format!("http://{}", far.data);
            succeed(client(folder.path(), &mirror, (&key, function))).await?;
        }
        let notes = folder.path().join("there/misses.jsonl");
        ensure!(!notes.exists(), "{}", fs::read_to_string(notes)?);
        let suite = "/debian/dists/stable";
        let (_, release) = far.client().fetch(&format!("{suite}/InRelease")).await?;
        let (_, expected) = far.client().fetch(&format!("{suite}/{INDEX}")).await?;
        let names = names(std::str::from_utf8(&release).context("InRelease")?, INDEX);
        ensure!(names.len() == 2, "{names:?}");
        for name in &names {
            let (answer, body) = far.client().fetch(&format!("{suite}/{name}")).await?;
            assert_eq!((answer.status, body == expected), (200, true), "{name}");
        }
        // Nobody had asked by the weaker function: it is the mirror that knows.
        let asked = |function: &str| {
            let of_function = |name: &&String| name.contains(function);
            let name = names.iter().find(of_function).context("no such name")?;
            anyhow::Ok(origin.requests(&format!("{suite}/{name}")).len())
        };
        assert_eq!((asked("/SHA256/")?, asked("/SHA512/")? > 0), (0, true));
        let unlisted = format!("{suite}/main/binary-amd64/by-hash/SHA512/00");
        assert_eq!(far.client().fetch(&unlisted).await?.0.status, 404);
        Ok(())
    }
}
