//! Whether the site already has a proxy of its own, so that no cache is set up on Core.
//!
//! Facts (the texts of the system default profile, the invoking environment) → [`verdict`] (pure) → a reason with the
//! file and line that decided. A cache is not set up when both `HTTP_PROXY` and `http_proxy` are set, nor when exactly
//! one is (with a warning: programs differ in which one they read), nor when [`SKIP`] is set to anything.
//!
//! Invariants: a variable that points to our own cache says nothing; an empty variable is not set; the file that a
//! login shell reads last wins; the invoking environment, which is such a shell's, wins over files.

mod lexer;
mod shell;

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use url::Url;

use shell::Statement;

/// Set to anything: no cache is set up or used.
pub const SKIP: &str = "STACKATO_UPGRADE_SKIP_PROXY_CACHE";

/// The two variables that have to be set both to name the site's own proxy.
const PROXIES: [&str; 2] = ["HTTP_PROXY", "http_proxy"];

/// What [`verdict`] looks at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The system default profile, in the order in which a login reads it.
    pub files: Vec<ProfileFile>,
    /// The environment of this process.
    pub environment: BTreeMap<String, String>,
}

/// A file of the system default profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileFile {
    /// Its path as the operator knows it, without the node's root.
    pub path: PathBuf,
    /// How it is read.
    pub syntax: Syntax,
    /// Its text.
    pub text: String,
}

/// How a file of the profile is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// A POSIX shell script.
    Shell,
    /// `NAME=value` lines, as `pam_env` reads `/etc/environment`.
    Environment,
}

/// What was decided, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Why no cache is set up; `None`: one is.
    pub skip: Option<String>,
    /// What the operator should read in either case.
    pub warnings: Vec<String>,
}

/// A file of the profile that exists and cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("reading `{path}` of the system default profile failed")]
pub struct GatherError {
    /// The file.
    pub path: PathBuf,
    #[source]
    source: io::Error,
}

/// A variable with the place where it was set.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    value: String,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    File { path: PathBuf, line: usize },
    Environment,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment => f.write_str("the environment of this command"),
        }
    }
}

/// Reads the profile below `root` and the environment of this process.
///
/// # Errors
/// [`GatherError`] when a file is there and cannot be read: deciding without it could build a second proxy.
pub fn gather(root: &Path) -> Result<Facts, GatherError> {
    let mut scripts: Vec<_> = match fs::read_dir(root.join("etc/profile.d")) {
        Ok(entries) => entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect(),
        Err(_no_such_folder) => Vec::new(),
    };
    scripts.retain(|name| {
        Path::new(name)
            .extension()
            .is_some_and(|extension| extension == "sh")
    });
    // The order of the shell's `*.sh`.
    scripts.sort_unstable();
    let scripts = scripts
        .into_iter()
        .map(|name| (format!("/etc/profile.d/{name}"), Syntax::Shell));
    let fixed = [
        ("/etc/environment".to_owned(), Syntax::Environment),
        ("/etc/profile".to_owned(), Syntax::Shell),
    ];
    let mut files = Vec::new();
    for (path, syntax) in fixed.into_iter().chain(scripts) {
        let path = PathBuf::from(path);
        match fs::read(root.join(path.strip_prefix("/").unwrap_or(&path))) {
            Ok(bytes) => files.push(ProfileFile {
                path,
                syntax,
                text: String::from_utf8_lossy(&bytes).into_owned(),
            }),
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(GatherError { path, source }),
        }
    }
    let environment = PROXIES
        .iter()
        .chain([&SKIP])
        .filter_map(|name| Some(((*name).to_owned(), variable(name)?)));
    Ok(Facts {
        files,
        environment: environment.collect(),
    })
}

fn variable(name: &str) -> Option<String> {
    Some(std::env::var_os(name)?.to_string_lossy().into_owned())
}

/// Whether a cache is set up on Core. `own` are the URLs under which our own cache is known.
pub fn verdict(facts: &Facts, own: &[Url]) -> Verdict {
    let settings = settings(facts);
    let mut warnings = Vec::new();
    if let Some(setting) = settings.get(SKIP) {
        if matches!(setting.value.to_ascii_lowercase().as_str(), "0" | "false" | "no") {
            warnings.push(format!(
                "{SKIP} is set to `{}` and that still skips the cache; unset it to use one",
                setting.value
            ));
        }
        let skip = Some(format!(
            "{SKIP} is set to `{}` by {}",
            setting.value, setting.place
        ));
        return Verdict { skip, warnings };
    }
    let mut foreign = Vec::new();
    for name in PROXIES {
        match settings.get(name) {
            Some(setting) if own.iter().any(|own| is_same(&setting.value, own)) => {}
            Some(setting) => foreign.push((name, setting)),
            None => {}
        }
    }
    let skip = match foreign.as_slice() {
        [] => None,
        [(upper, first), (lower, second)] => {
            let places = if first.place == second.place {
                first.place.to_string()
            } else {
                format!("{} and {}", first.place, second.place)
            };
            Some(format!(
                "{upper} and {lower} are set by {places}: nodes use the site's own proxy {}",
                second.value
            ))
        }
        [(name, setting), ..] => {
            let other = if *name == PROXIES[0] {
                PROXIES[1]
            } else {
                PROXIES[0]
            };
            warnings.push(format!(
                "only {name} is set, by {}, and {other} is not: some programs read one, some the other; set both or none",
                setting.place
            ));
            Some(format!("{name} is set to {} by {}", setting.value, setting.place))
        }
    };
    Verdict { skip, warnings }
}

/// The variables of interest that are set and not empty.
fn settings(facts: &Facts) -> BTreeMap<String, Setting> {
    let mut known = BTreeMap::new();
    let mut places = BTreeMap::new();
    for file in &facts.files {
        for statement in statements(file) {
            let place = Place::File {
                path: file.path.clone(),
                line: statement.line,
            };
            match statement.value {
                Some(value) => {
                    let value = value.expand(&known, &PROXIES);
                    known.insert(statement.name.clone(), value);
                    places.insert(statement.name, place);
                }
                None => {
                    known.remove(&statement.name);
                }
            }
        }
    }
    for (name, value) in &facts.environment {
        known.insert(name.clone(), value.clone());
        places.insert(name.clone(), Place::Environment);
    }
    PROXIES
        .into_iter()
        .chain([SKIP])
        .filter_map(|name| {
            let value = known.remove(name).filter(|value| !value.is_empty())?;
            Some((
                name.to_owned(),
                Setting {
                    value,
                    place: places.remove(name)?,
                },
            ))
        })
        .collect()
}

fn statements(file: &ProfileFile) -> Vec<Statement> {
    match file.syntax {
        Syntax::Shell => shell::statements(&file.text),
        // Each line is an assignment of its own; a `#` inside one belongs to the value only when it is quoted.
        Syntax::Environment => (1..)
            .zip(file.text.lines())
            .flat_map(|(number, line)| {
                let line = line.trim().trim_start_matches("export ");
                let literal = line.replace('\\', "\\\\").replace('$', "\\$");
                shell::statements(&literal)
                    .into_iter()
                    .map(move |statement| Statement {
                        line: number,
                        ..statement
                    })
            })
            .collect(),
    }
}

/// Whether `value` of a proxy variable names `own`: same scheme, host and port. The scheme may be missing, as `curl` allows.
fn is_same(value: &str, own: &Url) -> bool {
    let with_scheme = if value.contains("://") {
        value.to_owned()
    } else {
        format!("http://{value}")
    };
    Url::parse(&with_scheme).is_ok_and(|given| {
        given.scheme() == own.scheme()
            && given.host() == own.host()
            && given.port_or_known_default() == own.port_or_known_default()
    })
}

#[cfg(test)]
mod tests;
