//! A rehearsal ends with its export, whatever ended that: nothing that runs in its namespace stays.

/// Needs root: a rehearsal has a namespace of its own.
mod as_root {
    use std::{
        fs,
        os::unix::process::CommandExt as _,
        path::{Path, PathBuf},
        process::Child,
        time::Duration,
    };

    use anyhow::{Context, Result, ensure};
    use integration_tests::{command, proxy::program, published::put, wait};
    use rustix::process::{Pid, Signal, kill_process, kill_process_group};

    use crate::{SOON, Site};

    /// Within which nothing is left of it.
    const AT_ONCE: Duration = Duration::from_secs(1);

    /// Who gets a signal.
    #[derive(Debug, Clone, Copy)]
    enum At {
        Export,
        /// As from a terminal.
        Group,
        /// The process beside it that holds the namespace.
        Unshare,
        /// The first process of the namespace.
        Inside,
    }

    /// Whose network is that of `namespace`.
    fn within(namespace: &Path) -> Vec<i32> {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        numbers
            .filter(|number| {
                fs::read_link(format!("/proc/{number}/ns/net")).is_ok_and(|link| link == namespace)
            })
            .collect()
    }

    fn named(numbers: &[i32], word: &str) -> Option<Pid> {
        let has = |number: &&i32| {
            let line = fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.split(' ').next().is_some_and(|first| first.ends_with(word))
                || line.contains(&format!(" bundle {word} "))
        };
        numbers.iter().find(has).copied().and_then(Pid::from_raw)
    }

    /// An export in the midst of its rehearsal, and the namespace of that. Its command has left behind what it could: in its group, in a session of
    /// its own, and forked twice.
    fn under_way(site: &Site) -> Result<(Child, PathBuf)> {
        let link = site.path("namespace");
        if link.exists() {
            fs::remove_file(&link)?;
        }
        let script = format!(
            "sleep 600 & setsid sleep 600 & (setsid sh -c \"trap '' TERM INT HUP; sleep 600 & sleep 600\" &) ; readlink /proc/self/ns/net > {0}.new; mv {0}.new {0}; exec sleep 600",
            link.display()
        );
        let mut export = command::new(program()?);
        export
            .args(declared(site, &["sh", "-c", &script])?)
            .current_dir(site.path(""))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .process_group(0);
        let child = export.spawn()?;
        let namespace = wait::until("the command in the rehearsal", SOON, || {
            let text = fs::read_to_string(&link).ok()?;
            Some(PathBuf::from(text.trim()))
        })?;
        Ok((child, namespace))
    }

    /// The arguments of an export that declares the command `argv`.
    fn declared(site: &Site, argv: &[&str]) -> Result<Vec<String>> {
        let words: Vec<String> = argv.iter().map(|word| format!("'''{word}'''")).collect();
        let text = format!(
            "[[file]]\nurl = \"{}\"\n[[command]]\nargv = [{}]\ndeadline = \"300s\"\n",
            site.origin.url("/pool/0.deb"),
            words.join(", ")
        );
        put(&site.path(""), "site.toml", text.as_bytes())?;
        let (store, key, out) = (site.at("here"), site.at("key"), site.at("out"));
        let declaration = site.at("site.toml");
        let mut words = Site::export(&store, &key, &out);
        // Its reason.
        words.truncate(words.len() - 2);
        words.extend(["--declare", &declaration]);
        Ok(words.into_iter().map(str::to_owned).collect())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_of_a_rehearsal_outlives_its_export() -> Result<()> {
        let site = Site::new(1).await?;
        for (at, signal) in [
            (At::Export, Signal::TERM),
            (At::Export, Signal::KILL),
            (At::Export, Signal::HUP),
            (At::Group, Signal::INT),
            (At::Group, Signal::KILL),
            (At::Unshare, Signal::KILL),
            (At::Inside, Signal::KILL),
        ] {
            let (mut export, namespace) = under_way(&site)?;
            // `unshare`, what it runs, the server, the command, and what that has left: three that sleep, and a shell with one more.
            let before = wait::until("all that the command leaves", SOON, || {
                Some(within(&namespace)).filter(|all| all.len() >= 8)
            })?;
            let own = Pid::from_child(&export);
            match at {
                At::Export => kill_process(own, signal)?,
                At::Group => kill_process_group(own, signal)?,
                At::Unshare => kill_process(named(&before, "unshare").context("no `unshare`")?, signal)?,
                At::Inside => kill_process(named(&before, "rehearse").context("no `rehearse`")?, signal)?,
            }
            wait::until(
                &format!("the end of all after {signal:?} at {at:?}"),
                AT_ONCE,
                || within(&namespace).is_empty().then_some(()),
            )
            .with_context(|| format!("{:?} are left", within(&namespace)))?;
            let ended = command::end(&mut export, "the export", SOON)?;
            ensure!(!ended.success(), "{at:?}: {ended}");
        }
        // What they left in the store's folder goes with the next one.
        let words = declared(&site, &["true"])?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        site.ok(&words, &[])?;
        ensure!(!site.path("here/rehearsal").exists(), "something of it stays");
        Ok(())
    }
}
