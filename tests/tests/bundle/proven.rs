//! An export shows that what was declared is there and works: by a look at the snapshot, and by a rehearsal without a network.

/// Needs root: a rehearsal has a namespace of its own.
mod as_root {
    use std::process::Output;

    use anyhow::{Context, Result, ensure};
    use integration_tests::published::put;
    use serde_json::Value;

    use crate::{Site, only};

    /// That the namespace has no way out.
    const SHUT_IN: &str = "[[command]]\nargv = [\"sh\", \"-c\", \"test -z \\\"$(ip route)\\\"\"]\n";

    /// An export by the declaration `text`, and what else is given.
    fn export(site: &Site, text: &str, more: &[&str]) -> Result<Output> {
        let settings = format!(
            "[cache]\nmin_free = \"0B\"\n[[upstream]]\nname = \"pkg\"\nurls = [\"{}\"]\n",
            site.origin.url("/")
        );
        put(&site.path(""), "proxy.toml", settings.as_bytes())?;
        put(&site.path(""), "site.toml", text.as_bytes())?;
        let (store, key, out) = (site.at("here"), site.at("key"), site.at("out"));
        let (config, declaration) = (site.at("proxy.toml"), site.at("site.toml"));
        let mut words = Site::export(&store, &key, &out);
        // Its reason.
        words.truncate(words.len() - 2);
        words.extend(["--config", &config, "--declare", &declaration]);
        words.extend(more);
        let said = site.run(&words, &[])?;
        ensure!(
            !site.path("here/rehearsal").exists(),
            "something of the rehearsal stays"
        );
        Ok(said)
    }

    fn header(site: &Site) -> Result<Value> {
        let bundle = only(&site.path("out"))?.display().to_string();
        serde_json::from_str(&site.ok(&["bundle", "info", &bundle, "--json"], &[])?).context("JSON")
    }

    fn image(site: &Site, tag: &str) -> String {
        format!(
            "[[image]]\nrepository = \"{}\"\nreference = \"{tag}\"\n",
            site.origin.url("/app")
        )
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_there_and_works_is_exported_and_the_bundle_says_so() -> Result<()> {
        let site = Site::new(4).await?;
        let before = site.origin.connections();
        let curl =
            "[[command]]\nargv = [\"curl\", \"-sSfO\", \"{mirror}/pkg/pool/0.deb\"]\ndeadline = \"30s\"\n";
        let said = export(&site, &format!("{}{SHUT_IN}{curl}", image(&site, "1.0")), &[])?;
        ensure!(said.status.code() == Some(0), "{said:?}");
        let header = header(&site)?;
        ensure!(
            header["closure"]["ok"] == true && header["rehearsal"]["ok"] == true,
            "{header}"
        );
        ensure!(
            header["rehearsal"]["declared"]
                .as_array()
                .is_some_and(|all| all.len() == 2),
            "{header}"
        );
        ensure!(site.origin.connections() == before, "the origin was asked");
        Ok(())
    }

    /// Its own end is that of a command, whatever holds on to what it was given; and what it leaves ends with it.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_command_leaves_behind_ends_with_it_and_a_plain_file_is_declared() -> Result<()> {
        let site = Site::new(4).await?;
        let left = site.at("left");
        let file = format!("[[file]]\nurl = \"{}\"\n", site.origin.url("/pool/0.deb"));
        let leaves = format!(
            "[[command]]\nargv = [\"sh\", \"-c\", \"sleep 600 & echo $! > {left}; exit 0\"]\ndeadline = \"30s\"\n"
        );
        // In a session of its own it is of no group of the command.
        let apart = site.at("apart");
        let leaves_apart = format!(
            "[[command]]\nargv = [\"sh\", \"-c\", '''setsid sh -c 'echo $$ > {apart}; exec sleep 600' & until [ -s {apart} ]; do sleep 0.05; done''']\ndeadline = \"30s\"\n"
        );
        // Numbers are those of the namespace.
        let looks = format!(
            "[[command]]\nargv = [\"sh\", \"-c\", '''for one in $(cat {left} {apart}); do ! kill -0 $one || exit 7; done''']\n"
        );
        let said = export(&site, &format!("{file}{leaves}{leaves_apart}{looks}"), &[])?;
        ensure!(said.status.code() == Some(0), "{said:?}");

        let gone = format!("[[file]]\nurl = \"{}\"\n", site.origin.url("/pool/none.deb"));
        let said = export(&site, &format!("{gone}{SHUT_IN}"), &[])?;
        let words = String::from_utf8_lossy(&said.stderr).into_owned();
        ensure!(
            said.status.code() == Some(20) && words.contains("/pool/none.deb"),
            "{words}"
        );
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_missing_stops_an_export_or_is_waived_and_the_bundle_says_so() -> Result<()> {
        let site = Site::new(4).await?;
        let text = format!("{}{SHUT_IN}", image(&site, "2.0"));
        let said = export(&site, &text, &[])?;
        let words = String::from_utf8_lossy(&said.stderr).into_owned();
        ensure!(said.status.code() == Some(20), "{words}");
        ensure!(words.contains("/v2/app/manifests/2.0"), "{words}");
        ensure!(!site.path("out").exists(), "something was written");
        let said = export(&site, &text, &["--waive", "nobody runs it"])?;
        ensure!(said.status.code() == Some(0), "{said:?}");
        let header = header(&site)?;
        ensure!(header["closure"]["ok"] == false, "{header}");
        ensure!(header["closure"]["waived"][0] == "nobody runs it", "{header}");
        ensure!(header["rehearsal"]["ok"] == true, "{header}");
        Ok(())
    }

    /// A bundle for a request carries what was asked for; what the store holds beside that is nothing that the site will have.
    #[tokio::test(flavor = "multi_thread")]
    async fn the_bundle_is_rehearsed_and_not_the_store_that_it_comes_from() -> Result<()> {
        let site = Site::new(4).await?;
        let (here, there) = (site.at("here"), site.at("there"));
        let (key, out, public) = (site.at("key"), site.at("out"), site.at("key.pub"));
        let url = |nth: u8| site.origin.url(&format!("/pool/{nth}.deb"));
        let (first, asked) = (url(1), url(0));
        let mut words = Site::export(&here, &key, &out);
        words.extend(["--prefix", &first]);
        site.ok(&words, &[])?;
        let bundle = only(&site.path("out"))?.display().to_string();
        site.ok(&Site::import(&bundle, &there, &public), &[])?;
        let request = site.at("request.json");
        let words = [
            "request",
            "--cache-dir",
            &there,
            "--output",
            &request,
            "--add",
            &asked,
        ];
        site.ok(&words, &[])?;

        let curl = |nth: u8| {
            format!(
                "[[command]]\nargv = [\"curl\", \"-sSfO\", \"{{mirror}}/pkg/pool/{nth}.deb\"]\ndeadline = \"30s\"\n"
            )
        };
        let file = format!("[[file]]\nurl = \"{asked}\"\n");
        let all = format!("{file}{}{}", curl(0), curl(2));
        let said = export(&site, &all, &["--satisfy", &request])?;
        let words = String::from_utf8_lossy(&said.stderr).into_owned();
        ensure!(said.status.code() == Some(20), "{words}");
        ensure!(
            words.contains("/pool/2.deb") && !words.contains("missed  http://127.0.0.1/pool/0.deb"),
            "{words}"
        );
        let carried = format!("{file}{}{}", curl(0), curl(1));
        let said = export(&site, &carried, &["--satisfy", &request])?;
        ensure!(said.status.code() == Some(0), "{said:?}");
        Ok(())
    }

    /// Of two commands one fails, and one succeeds although it did not get what it asked for.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_clients_miss_in_the_rehearsal_stops_an_export() -> Result<()> {
        let site = Site::new(4).await?;
        let commands = "[[command]]\nargv = [\"curl\", \"-s\", \"{mirror}/pkg/unknown\"]\n[[command]]\nargv = [\"false\"]\n";
        let said = export(&site, &format!("{}{commands}", image(&site, "1.0")), &[])?;
        let words = String::from_utf8_lossy(&said.stderr).into_owned();
        ensure!(said.status.code() == Some(20), "{words}");
        ensure!(words.contains("missed") && words.contains("/unknown"), "{words}");
        ensure!(words.contains("failed  false"), "{words}");
        ensure!(!site.path("out").exists(), "something was written");
        Ok(())
    }
}
