//! Arguments of the verbs that ask a running proxy.

use std::path::PathBuf;

use clap::Args;
use kato_shared::{chain::Chain, secret::Secret};

use crate::{admin::access::read_token, origin::AdminAddress};

/// Where the running proxy is.
#[derive(Debug, Args)]
pub(super) struct AdminArgs {
    /// The admin address of the running proxy: `ADDRESS:PORT` or `unix:/path`
    #[arg(
        long,
        value_name = "ADDR",
        env = "KATO_PROXY_ADMIN",
        default_value = "127.0.0.1:3181"
    )]
    pub(super) admin: AdminAddress,
    /// The file with the token of the admin API, where it asks for one
    #[arg(long, value_name = "FILE", env = "KATO_PROXY_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
    /// Print the API's JSON document
    #[arg(long)]
    pub(super) json: bool,
}

impl AdminArgs {
    /// The token, where there is one.
    pub(super) fn token(&self) -> Result<Option<Secret>, String> {
        let read = self.admin_token_file.as_deref().map(read_token).transpose();
        read.map_err(|error| Chain(&error).to_string())
    }
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only URLs that begin so
    #[arg(default_value = "")]
    pub(super) prefix: String,
    /// Only what came from this upstream
    #[arg(long, value_name = "NAME")]
    pub(super) upstream: Option<String>,
    /// Only what has this content
    #[arg(long, value_name = "sha256:HEX")]
    pub(super) digest: Option<String>,
    /// Only responses with this status code
    #[arg(long, value_name = "CODE")]
    pub(super) status: Option<String>,
    /// url, size (largest first) or age (longest not validated first)
    #[arg(long, value_name = "ORDER", default_value = "url")]
    pub(super) sort: String,
    /// At most so many
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<usize>,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The URL, or a mirror path such as /pkg/a
    pub(super) url: String,
    /// A field of the request that is judged, e.g. 'Accept: text/html'; may be repeated
    #[arg(long, short = 'H', value_name = "NAME: VALUE")]
    pub(super) field: Vec<String>,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

/// Which stored responses are meant; what is given must all hold.
#[derive(Debug, Args)]
pub(super) struct SelectArgs {
    /// The URL, or a mirror path such as /pkg/a
    #[arg(required_unless_present_any = ["prefix", "upstream", "digest"], conflicts_with = "prefix")]
    pub(super) url: Option<String>,
    /// All URLs that begin so
    #[arg(long, value_name = "URL")]
    pub(super) prefix: Option<String>,
    /// All that came from this upstream
    #[arg(long, value_name = "NAME")]
    pub(super) upstream: Option<String>,
    /// All that has this content
    #[arg(long, value_name = "sha256:HEX")]
    pub(super) digest: Option<String>,
    /// Only say what would go
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

impl SelectArgs {
    /// As parameters of the API.
    pub(super) fn query(&self) -> Vec<(&str, &str)> {
        [
            ("url", &self.url),
            ("prefix", &self.prefix),
            ("upstream", &self.upstream),
            ("digest", &self.digest),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_deref()?)))
        .chain(self.dry_run.then_some(("dry_run", "1")))
        .collect()
    }
}
