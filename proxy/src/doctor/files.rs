//! Settings of clients in files that do not do what they seem to. Each was measured with the real client.

use super::Check;

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
    fn a_users_own_list_of_registries_is_named() {
        assert_eq!(containers(None), []);
        assert_eq!(
            subjects(&containers(Some("/root/x"))),
            ["containers registries.conf"]
        );
    }
}
