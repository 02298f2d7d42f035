//! `kato print-sudoers`: the rule that lets Core run `kato` on a node, and nothing else, without a password.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{Context, node::load};
use crate::{
    cluster::inventory::Inventory,
    exit::{Exit, Failure},
    report::terminal,
};

/// Arguments of `kato print-sudoers`.
#[derive(Debug, Args)]
pub struct SudoersArgs {
    /// The account that Core logs in as; `[ssh] user` of the inventory when absent.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Where `kato` is on the nodes; `[node] kato_link` of the settings when absent.
    #[arg(long, value_name = "PATH")]
    pub kato: Option<PathBuf>,
    /// The settings file on the nodes.
    #[arg(long, value_name = "FILE", default_value = "/etc/kato/kato.toml")]
    pub settings: PathBuf,
}

/// What Core runs on nodes: the words behind the settings file and the token.
const VERBS: &str =
    "(node (upgrade|events|cordon|health|survey|retire|rejoin|version)|patch [a-z]+|audit [a-z]+|lock show)";

/// Words after the verb: values, short flags, and long options other than `--config`, which would name another settings file
/// and with it commands of its author's choice. POSIX has no way to say "not this word" but letter by letter.
const WORDS: &str = "( [^- ][^ ]*| -[a-z]| --([^c ]|c[^o ]|co[^n ]|con[^f ]|conf[^i ]|confi[^g ])[^ ]*)*";

/// Runs `kato print-sudoers`.
///
/// # Errors
/// [`Failure`] with exit code 2 for a name or path that does not fit into a rule.
pub fn run(args: &SudoersArgs, context: &Context) -> Result<Exit, Failure> {
    // On a machine that is not set up yet the defaults do.
    let settings = if context.config.exists() {
        load(context)?
    } else {
        crate::settings::Settings::default()
    };
    let inventory = Inventory::load(&Inventory::path_beside(&context.config)).ok();
    let of_inventory = inventory.map(|inventory| inventory.ssh.user);
    let user = args.user.clone().or(of_inventory).filter(|user| !user.is_empty());
    let user = user.unwrap_or_else(|| "stackato".into());
    let program = args.kato.clone().unwrap_or(settings.node.kato_link);
    for line in rule(&user, &program, &args.settings)?.lines() {
        terminal::data(line);
    }
    warn_of_owner(&user, &program);
    Ok(Exit::Done)
}

/// The file for `/etc/sudoers.d`.
fn rule(user: &str, program: &Path, settings: &Path) -> Result<String, Failure> {
    let (program, settings) = (plain(program)?, plain(settings)?);
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if user.is_empty() || user.starts_with('-') || !user.chars().all(fine) {
        let problem = anyhow::anyhow!("`{user}` is no account: expected letters, digits, `.`, `_` and `-`");
        return Err(Failure::new(Exit::Usage, problem).hint("name it with `--user`"));
    }
    let settings = settings.replace('.', "\\.");
    Ok(format!(
        "# /etc/sudoers.d/kato, mode 0440, on every node; check it with `visudo -cf`. Needs sudo 1.9.10 or later.\n\
         # Core runs kato with the settings file of the node and no other.\n\
         Cmnd_Alias KATO_FROM_CORE = {program} ^--config {settings}( --fence [0-9]+)? {VERBS}{WORDS}$\n\
         Defaults!KATO_FROM_CORE !requiretty, env_keep += \"STACKATO_UPGRADE_SKIP_PROXY_CACHE\"\n\
         {user} ALL = (root) NOPASSWD: KATO_FROM_CORE\n"
    ))
}

/// A path that means itself in a rule and in a regular expression, but for the dot.
fn plain(path: &Path) -> Result<&str, Failure> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    match path.to_str() {
        Some(text) if path.is_absolute() && text.chars().all(fine) => Ok(text),
        _odd => {
            let problem = anyhow::anyhow!(
                "`{}` does not fit into a rule: expected an absolute path of letters, digits, `.`, `_` and `-`",
                path.display()
            );
            Err(Failure::new(Exit::Usage, problem).hint("give another path"))
        }
    }
}

/// Whoever can replace the program is root by this rule.
fn warn_of_owner(user: &str, program: &Path) {
    let folder = program.parent().unwrap_or(Path::new("/"));
    if std::fs::metadata(folder).is_ok_and(|folder| folder.uid() != 0) {
        terminal::say(&format!(
            "warning: `{}` does not belong to root: whoever owns it can put another program there, which this rule lets {user} run \
             as root. Let root own it, or name another place with `--kato`",
            folder.display()
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c20_what_would_change_the_rule_s_meaning_is_refused() {
        let (kato, settings) = (Path::new("/opt/kato"), Path::new("/etc/kato/kato.toml"));
        assert!(
            rule("joe", kato, settings)
                .unwrap()
                .contains("joe ALL = (root) NOPASSWD: KATO_FROM_CORE")
        );
        assert!(rule("joe ALL=(ALL) ALL\n", kato, settings).is_err());
        assert!(rule("joe", Path::new("/opt/*, ALL"), settings).is_err());
        assert!(rule("joe", Path::new("kato"), settings).is_err());
        assert!(rule("joe", kato, Path::new("/etc/.*")).is_err());
    }
}
