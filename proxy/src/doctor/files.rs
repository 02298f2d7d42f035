//! Settings of clients in files that do not do what they seem to. Each was measured with the real client.

use url::Url;

use super::Check;

/// A file with settings of npm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NpmFile {
    /// Where it is.
    pub path: String,
    /// What stands in it; empty where it is not there.
    pub text: String,
    /// Whether the npm of this machine reads it, as far as can be seen.
    pub is_read: bool,
}

/// What is wrong with apt's settings: `settings` is the text of all of them, as `apt.conf(5)` has it.
pub fn apt(settings: &str) -> Vec<Check> {
    let has = |item: &str| {
        let mut lines = settings.lines().map(str::trim_start);
        lines.any(|line| {
            let start = line.get(..item.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(item))
        })
    };
    let mut checks = Vec::new();
    if has("Acquire::https::CAInfo::") {
        let said = "Acquire::https::CAInfo::HOST does nothing, though apt's own manual has it";
        let hint = "write Acquire::https::HOST::CAInfo";
        checks.push(Check::warning("apt CAInfo", said, hint));
    }
    let detects = |scheme: &str| {
        ["Proxy-Auto-Detect", "ProxyAutoDetect"]
            .iter()
            .any(|name| has(&format!("Acquire::{scheme}::{name}")))
    };
    if detects("http") && !detects("https") {
        let said = "Acquire::http::Proxy-Auto-Detect is not asked about https sources";
        let hint = "set Acquire::https::Proxy-Auto-Detect, too";
        checks.push(Check::warning("apt Proxy-Auto-Detect", said, hint));
    }
    checks
}

/// What is wrong with the settings of podman and its relatives: whether this user has a `registries.conf` of their own.
pub fn containers(own: Option<&str>) -> Vec<Check> {
    let shadowed = own.map(|path| {
        let said = format!(
            "{path} takes the place of everything in /etc/containers/registries.conf.d for this user"
        );
        let hint = "put the tables for the cache into that file, too";
        Check::warning("containers registries.conf", said, hint)
    });
    shadowed.into_iter().collect()
}

/// What is wrong with npm's settings: whether the file that leads to `server` is one that only other builds of npm read.
pub fn npm(files: &[NpmFile], server: &Url) -> Vec<Check> {
    let leads_here = |file: &&NpmFile| {
        let mut settings = file.text.lines().filter_map(|line| line.split_once('='));
        settings.any(|(name, value)| {
            let url = value.trim().trim_matches('"').parse::<Url>();
            name.trim().ends_with("registry") && url.is_ok_and(|url| url.host_str() == server.host_str())
        })
    };
    let mut leading = files.iter().filter(leads_here);
    if leading.clone().any(|file| file.is_read) {
        return Vec::new();
    }
    let unread = leading.next().map(|file| {
        let said = format!(
            "{} leads to the server, and the npm of this machine does not read it",
            file.path
        );
        let hint = "put it into ~/.npmrc, or into the file that `npm config get globalconfig` names";
        Check::warning("npm settings", said, hint)
    });
    unread.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects(checks: &[Check]) -> Vec<&str> {
        checks.iter().map(|check| check.subject.as_str()).collect()
    }

    #[test]
    fn settings_of_apt_that_do_nothing_are_named_and_others_are_not() {
        for (settings, found) in [
            ("", &[][..]),
            (
                "Acquire::https::CAInfo \"/a\";\nAcquire::https::deb.example::CAInfo \"/a\";",
                &[],
            ),
            ("  acquire::https::cainfo::deb.example \"/a\";", &["apt CAInfo"]),
            ("// Acquire::https::CAInfo::deb.example \"/a\";", &[]),
            (
                "Acquire::http::Proxy-Auto-Detect \"/a\";",
                &["apt Proxy-Auto-Detect"],
            ),
            (
                "Acquire::http::Proxy-Auto-Detect \"/a\";\nAcquire::https::Proxy-Auto-Detect \"/a\";",
                &[],
            ),
        ] {
            assert_eq!(subjects(&apt(settings)), found, "{settings}");
        }
    }

    #[test]
    fn a_file_that_leads_here_and_that_npm_does_not_read_is_named() {
        let server = Url::parse("http://cache.site:3180/").unwrap();
        let (ours, other) = (
            "audit=false\nregistry = http://cache.site:3180/npm/\n",
            "registry=http://npm.example/\n",
        );
        for (system, user, found) in [
            ("", "", &[][..]),
            (ours, "", &["npm settings"]),
            (ours, other, &["npm settings"]),
            ("@a:registry=http://cache.site:3180/npm/", "", &["npm settings"]),
            (ours, ours, &[]),
            ("", ours, &[]),
            (other, "", &[]),
        ] {
            let file = |path: &str, text: &str, is_read| NpmFile {
                path: path.into(),
                text: text.into(),
                is_read,
            };
            let files = [
                file("/etc/npmrc", system, false),
                file("/root/.npmrc", user, true),
            ];
            assert_eq!(subjects(&npm(&files, &server)), found, "{system} {user}");
        }
    }

    #[test]
    fn a_users_own_list_of_registries_is_named() {
        assert_eq!(containers(None), []);
        assert_eq!(
            subjects(&containers(Some("/root/x"))),
            ["containers registries.conf"]
        );
    }
}
