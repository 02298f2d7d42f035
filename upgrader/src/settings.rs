//! The settings of a node: `/etc/kato/kato.toml`, every key with its default here and in `config/kato.toml`.
//!
//! Flags and `KATO_…` variables override single keys; the command line's modules do that.

mod download;
mod licence;
mod maintenance;
mod platform;

use std::path::{Component, Path, PathBuf};

use kato_shared::settings::{ByteSize, HumanDuration, SettingsError, Warning, range, text};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use url::Url;

pub use self::download::DownloadSettings;
pub use self::licence::LicenceSettings;
pub use self::maintenance::{MaintenanceAuto, MaintenanceSettings, Refused};
pub use self::platform::{
    Adapter, DockerSettings, KubernetesSettings, NomadSettings, PlatformCommand, PlatformSettings,
    SystemdSettings,
};
pub use crate::notify::settings::NotifySettings;

/// All settings of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Who this node is.
    pub node: NodeSettings,
    /// Where releases come from.
    pub release: ReleaseSettings,
    /// The cache on Core.
    pub cache: CacheSettings,
    /// How slowly downloads may come.
    pub download: DownloadSettings,
    /// How an upgrade goes about it.
    pub upgrade: UpgradeSettings,
    /// What becomes of local changes.
    pub customizations: CustomizationsSettings,
    /// The container runtime that images are pulled into.
    pub images: ImageSettings,
    /// Who is told what happens.
    pub notify: NotifySettings,
    /// The platform's licence limits while the cluster is upgraded.
    pub licence: LicenceSettings,
    /// The platform's maintenance mode while the cluster is upgraded.
    pub maintenance: MaintenanceSettings,
    /// The commands of the platform that is upgraded.
    pub platform: PlatformSettings,
}

/// `[node]`: who this node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeSettings {
    /// Its id in the inventory; the host name when empty.
    #[serde(deserialize_with = "text::name_or_none")]
    pub id: String,
    /// Its roles, e.g. `["dea"]`.
    #[serde(deserialize_with = "text::names")]
    pub roles: Vec<String>,
    /// Everything that is installed or recorded is below this folder; from `/` on.
    #[serde(deserialize_with = "absolute")]
    pub root: PathBuf,
    /// Latches, journal, backups and downloads, below `root`; from there on, without `..`.
    #[serde(deserialize_with = "absolute")]
    pub state_dir: PathBuf,
    /// Where operators call `kato`, below `root`; as `state_dir`.
    #[serde(deserialize_with = "absolute")]
    pub kato_link: PathBuf,
}

/// A relative path would be another place for each folder that `kato` is called in.
fn absolute<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    let leads_out = path.components().any(|part| matches!(part, Component::ParentDir));
    if !path.is_absolute() || leads_out {
        return Err(D::Error::custom(format!(
            "expected a path that begins with / and has no `..`, found `{}`",
            path.display()
        )));
    }
    Ok(path)
}

/// A number of backups: without one there would be no way back.
fn backups<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    range::count_near(from, "backups", 1..=1000)
}

/// A number of archives of local changes: whoever wants none says so by `save`.
fn archives<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    range::count_near(from, "archives", 1..=1000)
}

/// A number of runs: the first of them is one.
fn runs<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    range::count_near(from, "runs", 1..=100)
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self {
            id: String::new(),
            roles: Vec::new(),
            root: "/".into(),
            state_dir: "/var/stackato/upgrade".into(),
            kato_link: "/home/stackato/bin/kato".into(),
        }
    }
}

/// `[release]`: where releases come from and whom they are trusted from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReleaseSettings {
    /// The repository: `metadata/` and `targets/` are below it.
    #[serde(deserialize_with = "text::web")]
    pub url: Url,
    /// The TUF root metadata that this node was given at its installation.
    #[serde(deserialize_with = "text::filled")]
    pub trusted_root: PathBuf,
    /// The channel to take the newest release from.
    #[serde(deserialize_with = "text::name")]
    pub channel: String,
}

impl Default for ReleaseSettings {
    #[expect(clippy::expect_used, reason = "a constant URL, parsed by a test")]
    fn default() -> Self {
        Self {
            url: Url::parse("https://upgrade.stackato.com/").expect("the default URL is a URL"),
            trusted_root: "/etc/kato/root.json".into(),
            channel: "stable".into(),
        }
    }
}

/// `[cache]`: the cache on Core that nodes download through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheSettings {
    /// The cache, e.g. `http://10.0.0.1:3180/`; without it downloads are direct.
    #[serde(deserialize_with = "text::web")]
    pub url: Option<Url>,
    /// Refuse to download when there is no cache.
    pub require: bool,
    /// The port of the cache that `--prepare` starts on Core.
    #[serde(deserialize_with = "range::port")]
    pub port: u16,
    /// The port of its admin listener, on loopback.
    #[serde(deserialize_with = "range::port")]
    pub admin_port: u16,
    /// The folder of the cache that `--prepare` starts on Core.
    #[serde(deserialize_with = "text::filled")]
    pub dir: PathBuf,
    /// The cache's program.
    #[serde(deserialize_with = "text::filled")]
    pub program: PathBuf,
    /// Registries of the images of releases, which the cache on Core fetches for the nodes.
    #[serde(deserialize_with = "text::webs")]
    pub registries: Vec<Url>,
    /// Archives of packages that modules name, which the cache on Core fetches for the nodes.
    #[serde(deserialize_with = "text::webs")]
    pub archives: Vec<Url>,
    /// The proxy that the cache itself goes out through; the one of the environment when absent.
    #[serde(deserialize_with = "text::web")]
    pub parent: Option<Url>,
    /// The file with `user:password` for that proxy.
    #[serde(deserialize_with = "text::filled_if_any")]
    pub parent_credentials_file: Option<PathBuf>,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            url: None,
            require: false,
            port: 3180,
            admin_port: 3181,
            dir: "/var/cache/kato-proxy".into(),
            program: "kato-proxy".into(),
            registries: Vec::new(),
            archives: Vec::new(),
            parent: None,
            parent_credentials_file: None,
        }
    }
}

/// `[upgrade]`: how an upgrade goes about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpgradeSettings {
    /// Nodes with one of these roles are retired before and put back after their upgrade.
    #[serde(deserialize_with = "text::names")]
    pub retire_roles: Vec<String>,
    /// How long a node may take to be empty after it was retired.
    #[serde(deserialize_with = "range::duration_near::<_, _, 0, 1, 604_800>")]
    pub retire_timeout: HumanDuration,
    /// What happens when it is not empty by then.
    pub retire_on_timeout: OnTimeout,
    /// How many backups are kept.
    #[serde(deserialize_with = "backups")]
    pub backup_keep: u32,
    /// Backups that are older are removed as well; the newest one never is.
    #[serde(deserialize_with = "range::duration_near::<_, _, 0, 3600, 3_153_600_000>")]
    pub backup_max_age: Option<HumanDuration>,
    /// How long the platform's health and version may take to become right after a restart; and how long a platform that gives no answer
    /// is waited for after the restart of the machine that an upgrade asked for, whatever it is asked.
    #[serde(deserialize_with = "range::duration_near::<_, _, 0, 1, 86_400>")]
    pub settle: HumanDuration,
    /// What becomes of a node that does not show that it is healthy after its upgrade.
    pub on_failure: OnFailure,
    /// After how many runs in which the same module failed the upgrade is given up as well.
    #[serde(deserialize_with = "runs")]
    pub module_attempts: u32,
    /// Hosts beside that of the releases which must be reachable before anything is downloaded.
    #[serde(deserialize_with = "text::webs")]
    pub hosts: Vec<Url>,
}

/// What becomes of a node whose upgrade failed for good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// It goes back to the release that it had, as long as there is a way back.
    #[default]
    RollBack,
    /// It stays as it is, for an operator to look at; the same command goes on.
    Stop,
}

/// What happens to a node that still has work when its time to become empty is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OnTimeout {
    /// It is put back into service, and nothing was changed.
    #[default]
    Fail,
    /// The upgrade goes on, and the work that is left is interrupted by it.
    Proceed,
    /// The platform is asked to end the work that is left (`force`); only then the upgrade goes on.
    Force,
}

impl Default for UpgradeSettings {
    fn default() -> Self {
        Self {
            retire_roles: vec!["dea".into()],
            retire_timeout: HumanDuration::from_secs(600),
            retire_on_timeout: OnTimeout::Fail,
            backup_keep: 3,
            backup_max_age: None,
            settle: HumanDuration::from_secs(600),
            on_failure: OnFailure::RollBack,
            module_attempts: 3,
            hosts: Vec::new(),
        }
    }
}

/// `[customizations]`: what becomes of local changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CustomizationsSettings {
    /// Whether an upgrade saves the local changes that it takes away, so that `reapply` can put them back.
    pub save: bool,
    /// How many archives of saved local changes are kept.
    #[serde(deserialize_with = "archives")]
    pub keep: u32,
    /// How much may be kept of the installed release's archives; what changed files were is read from there.
    pub pristine: ByteSize,
}

impl Default for CustomizationsSettings {
    fn default() -> Self {
        Self {
            save: true,
            keep: 5,
            pristine: ByteSize::new(512 << 20),
        }
    }
}

/// `[images]`: the container runtime that images of a release are pulled into.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageSettings {
    /// The runtime.
    pub runtime: Runtime,
    /// Its program with arguments for every call, e.g. `["docker", "--host", "unix:///run/x.sock"]`; the program found in
    /// `PATH`, and for containerd the namespace `k8s.io`, when empty.
    #[serde(deserialize_with = "text::all_filled")]
    pub command: Vec<String>,
}

/// A container runtime.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// The first of docker, podman and containerd whose program is in `PATH`.
    #[default]
    Auto,
    /// docker, by its daemon.
    Docker,
    /// podman.
    Podman,
    /// containerd, by `ctr`.
    Containerd,
}

impl Settings {
    /// Reads `path`.
    ///
    /// # Errors
    /// [`SettingsError`] with file, line and the nearest valid key.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        kato_shared::settings::load(path)
    }

    /// [`Self::load`], with what is to be said of a file that is taken all the same.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_told(path: &Path) -> Result<(Self, Vec<Warning>), SettingsError> {
        kato_shared::settings::load_told(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_gives_the_defaults() {
        let settings: Settings = kato_shared::settings::parse(Path::new("kato.toml"), "").unwrap();
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn a_path_that_depends_on_where_kato_is_called_is_refused() {
        for (key, path) in [
            ("root", "relroot"),
            ("root", "/srv/../x"),
            ("state_dir", "../../x"),
            ("kato_link", "kato"),
        ] {
            let text = format!("[node]\n{key} = \"{path}\"\n");
            let error = kato_shared::settings::parse::<Settings>(Path::new("kato.toml"), &text).unwrap_err();
            let text = kato_shared::chain::Chain(&error).to_string();
            assert!(text.contains("expected a path that begins with /"), "{text}");
        }
    }

    #[test]
    fn a_window_of_no_time_is_refused_and_no_floor_is_a_choice() {
        let of = |text: &str| kato_shared::settings::parse::<Settings>(Path::new("kato.toml"), text);
        let error = of("[download]\nmin_speed_window = \"0s\"\n").unwrap_err();
        let text = kato_shared::chain::Chain(&error).to_string();
        assert!(text.contains("`0s` given, expected a duration"), "{text}");
        let timeouts = of("[download]\nmin_speed = \"0B\"\n")
            .unwrap()
            .download
            .timeouts();
        assert_eq!(timeouts.floor.bytes, 0);
        assert_eq!(
            Settings::default().download.timeouts(),
            crate::fetch::Timeouts::default()
        );
    }

    /// A table with a key in its second line, and what is said to be expected.
    const NOT_MEANT: &[(&str, &str)] = &[
        ("[node]\nid = \"../x\"", "expected a name of letters"),
        ("[node]\nroles = [\"\"]", "expected a name of letters"),
        (
            "[release]\nurl = \"ftp://h.example/\"",
            "expected an address such as",
        ),
        ("[release]\nchannel = \"\"", "expected a name of letters"),
        (
            "[release]\ntrusted_root = \"\"",
            "expected a text that is not empty",
        ),
        ("[cache]\nurl = \"unix:/run/x\"", "expected an address such as"),
        ("[cache]\nport = 0", "expected a port from 1 to 65535"),
        ("[cache]\nadmin_port = 65536", "expected a port from 1 to 65535"),
        (
            "[cache]\nregistries = [\"oci://h.example\"]",
            "expected an address such as",
        ),
        ("[download]\ndocument_timeout = \"0s\"", "from `1s` to `1day`"),
        (
            "[upgrade]\nbackup_keep = -1",
            "a number of backups from 1 to 1000",
        ),
        ("[upgrade]\nsettle = \"soon\"", "from `1s` to `1day`"),
        ("[upgrade]\nsettle = 60", "from `1s` to `1day`"),
        (
            "[upgrade]\nhosts = [\"ssh://h.example\"]",
            "expected an address such as",
        ),
        ("[images]\ncommand = [\"\"]", "expected a text that is not empty"),
        (
            "[notify]\nurls = [\"ftp://h.example/\"]",
            "expected an address such as",
        ),
        (
            "[platform]\nretire = { argv = [] }",
            "expected a program and its arguments",
        ),
        (
            "[platform]\nsystemd = { units = { dea = [] } }",
            "expected at least one unit",
        ),
        (
            "[platform]\nsystemd = { units = { \"*\" = [\"a b.service\"] } }",
            "expected the name of one unit",
        ),
        (
            "[platform]\ndocker = { label = \"\" }",
            "expected a text that is not empty",
        ),
        (
            "[platform]\nnomad = { program = \"\" }",
            "expected a text that is not empty",
        ),
        (
            "[licence]\nwaive = { argv = [] }",
            "expected a program and its arguments",
        ),
        (
            "[maintenance]\nserving = [\"ftp://h.example/\"]",
            "expected an address such as",
        ),
        (
            "[maintenance]\nrefusing = [{ url = \"http://h.example/\", status = [] }]",
            "expected at least one status",
        ),
        (
            "[maintenance]\nrefusing = [{ url = \"http://h.example/\", status = [200] }]",
            "expected at least one status",
        ),
        (
            "[maintenance]\nrefusing = [{ url = \"http://h.example/\", method = \"\" }]",
            "expected a method",
        ),
    ];

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_line() {
        for (text, said) in NOT_MEANT {
            let read = kato_shared::settings::parse::<Settings>(Path::new("kato.toml"), text);
            let refused = read.map(|_| *text).unwrap_err().to_string();
            assert!(
                refused.starts_with("kato.toml:2: ") && refused.contains(said),
                "{text}: {refused}"
            );
        }
    }

    /// A table with a key in its second line that earlier versions took, how it stands there, and as what it is taken now.
    const NEAR: &[(&str, &str, &str)] = &[
        (
            "[download]",
            "min_speed_window = \"2h\"",
            "min_speed_window = \"1h\"",
        ),
        (
            "[download]",
            "document_timeout = \"2days\"",
            "document_timeout = \"1day\"",
        ),
        ("[upgrade]", "retire_timeout = \"0s\"", "retire_timeout = \"1s\""),
        (
            "[upgrade]",
            "retire_timeout = \"8days\"",
            "retire_timeout = \"7days\"",
        ),
        ("[upgrade]", "settle = \"0s\"", "settle = \"1s\""),
        ("[upgrade]", "settle = \"2days\"", "settle = \"1day\""),
        ("[upgrade]", "backup_keep = 0", "backup_keep = 1"),
        ("[upgrade]", "backup_keep = 5000", "backup_keep = 1000"),
        ("[upgrade]", "backup_max_age = \"1s\"", "backup_max_age = \"1h\""),
        ("[upgrade]", "module_attempts = 0", "module_attempts = 1"),
        ("[upgrade]", "module_attempts = 101", "module_attempts = 100"),
        ("[customizations]", "keep = 0", "keep = 1"),
        ("[notify]", "timeout = \"0s\"", "timeout = \"1s\""),
        ("[notify]", "timeout = \"1h\"", "timeout = \"10m\""),
        ("[notify]", "waiting = \"0s\"", "waiting = \"1s\""),
        (
            "[platform]",
            "retire = { argv = [\"x\"], timeout = \"0s\" }",
            "retire = { argv = [\"x\"], timeout = \"1s\" }",
        ),
        (
            "[platform]",
            "systemd = { settle = \"2days\" }",
            "systemd = { settle = \"1day\" }",
        ),
        (
            "[platform]",
            "systemd = { timeout = \"0s\" }",
            "systemd = { timeout = \"1s\" }",
        ),
        (
            "[platform]",
            "docker = { stop_timeout = \"2days\" }",
            "docker = { stop_timeout = \"1day\" }",
        ),
        (
            "[platform]",
            "docker = { timeout = \"0s\" }",
            "docker = { timeout = \"1s\" }",
        ),
        (
            "[platform]",
            "kubernetes = { drain_timeout = \"0s\" }",
            "kubernetes = { drain_timeout = \"1s\" }",
        ),
        (
            "[platform]",
            "kubernetes = { timeout = \"0s\" }",
            "kubernetes = { timeout = \"1s\" }",
        ),
        (
            "[platform]",
            "nomad = { drain_deadline = \"0s\" }",
            "nomad = { drain_deadline = \"1s\" }",
        ),
        (
            "[platform]",
            "nomad = { timeout = \"0s\" }",
            "nomad = { timeout = \"1s\" }",
        ),
        (
            "[licence]",
            "waive = { argv = [\"x\"], timeout = \"0s\" }",
            "waive = { argv = [\"x\"], timeout = \"1s\" }",
        ),
    ];

    #[test]
    fn r34_a_number_that_earlier_versions_took_is_the_nearest_allowed_one_and_told() {
        let read = |table: &str, line: &str| {
            let text = format!("{table}\n{line}\n");
            kato_shared::settings::parse_told::<Settings>(Path::new("kato.toml"), &text).unwrap()
        };
        for (table, old, new) in NEAR {
            let ((taken, told), (meant, nothing)) = (read(table, old), read(table, new));
            assert_eq!(taken, meant, "{old}");
            assert!(nothing.is_empty(), "{new}: {nothing:?}");
            let [told] = told.as_slice() else {
                panic!("{old}: {told:?}");
            };
            let told = told.to_string();
            assert!(
                told.starts_with("kato.toml:2: ")
                    && told.contains(" given, expected ")
                    && told.contains("` is taken, and kato "),
                "{old}: {told}"
            );
        }
    }

    fn shipped(name: &str) -> (PathBuf, String) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config").join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        (path, text)
    }

    #[test]
    fn the_shipped_file_shows_every_key_with_its_default() {
        let (path, text) = shipped("kato.toml");
        let settings: Settings = kato_shared::settings::parse(&path, &text).unwrap();
        assert_eq!(settings, Settings::default());
        // Every key of the defaults, and every verb, is a key or a commented key of the file.
        let document = serde_json::to_value(Settings::default()).unwrap();
        for (table, keys) in document.as_object().unwrap() {
            let (_, section) = text.split_once(&format!("\n[{table}]\n")).unwrap();
            let section = section.split("\n[").next().unwrap();
            for key in keys.as_object().unwrap().keys() {
                let is_shown = section
                    .lines()
                    .any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} = ")));
                assert!(is_shown, "[{table}] {key}");
            }
        }
    }

    #[test]
    fn commented_keys_of_the_shipped_file_are_valid_when_they_are_taken_in() {
        let (path, text) = shipped("kato.toml");
        let is_key = |line: &str| {
            line.strip_prefix("# ")
                .and_then(|rest| rest.split_once(" = "))
                .is_some_and(|(key, _)| !key.contains(' '))
        };
        let opened: Vec<_> = text
            .lines()
            .map(|line| if is_key(line) { &line[2..] } else { line })
            .collect();
        let settings: Settings = kato_shared::settings::parse(&path, &opened.join("\n")).unwrap();
        assert!(settings.cache.url.is_some());
        assert_eq!(settings.platform.reboot.unwrap().argv, ["systemctl", "reboot"]);
        assert!(settings.platform.backup.is_some());
        let maintenance = &settings.maintenance;
        assert!(maintenance.get.is_some() && maintenance.on.is_some() && maintenance.off.is_some());
        assert!(settings.notify.secret_file.is_some() && settings.notify.ca_file.is_some());
    }

    #[test]
    fn every_preset_is_valid_and_its_commands_are_shipped_and_never_call_kato() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/presets");
        let mut adapters = Vec::new();
        for item in std::fs::read_dir(folder).unwrap() {
            let name = item.unwrap().file_name().into_string().unwrap();
            if Path::new(&name).extension().is_none_or(|end| end != "toml") {
                continue;
            }
            let (path, text) = shipped(&format!("presets/{name}"));
            let settings: Settings = kato_shared::settings::parse(&path, &text).unwrap();
            adapters.push((name, settings.platform.adapter));
            let platform = serde_json::to_value(&settings.platform).unwrap();
            for (verb, command) in platform.as_object().unwrap() {
                let program = command.get("argv").and_then(|argv| argv[0].as_str());
                if let Some(script) = program.and_then(|path| path.strip_prefix("/usr/local/lib/kato/")) {
                    let (_, text) = shipped(&format!("presets/{script}"));
                    assert!(text.starts_with("#!/bin/sh\n"), "{verb}");
                    let mut words = text
                        .lines()
                        .filter(|line| !line.starts_with('#'))
                        .flat_map(str::split_whitespace);
                    assert!(
                        !words.any(|word| word == "kato" || word.ends_with("/kato")),
                        "{verb}"
                    );
                }
            }
        }
        adapters.sort();
        let expected = [
            ("docker.toml", Adapter::Docker),
            ("kubernetes.toml", Adapter::Kubernetes),
            ("nomad.toml", Adapter::Nomad),
            ("stackato.toml", Adapter::Exec),
            ("systemd.toml", Adapter::Systemd),
        ];
        assert_eq!(
            adapters,
            expected.map(|(name, adapter)| (name.to_owned(), adapter))
        );
    }
}
