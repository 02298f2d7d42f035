//! `kato-proxy client-config`.

use clap::Args;
use url::Url;

use super::{SettingsArgs, fail, print};
use crate::{
    exit,
    settings::Settings,
    setup::{Client, Site},
    view::{ServerBase, is_plain_host},
};

#[derive(Debug, Args)]
pub(super) struct ClientConfigArgs {
    /// apt, docker, containerd, podman, skopeo, buildah, pip, npm, cargo, curl or env
    client: Client,
    /// How the client knows this server [default: this host's name and the port for clients]
    #[arg(long, value_name = "URL")]
    server: Option<Url>,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Prints what a client is told.
pub(super) fn client_config(args: &ClientConfigArgs) -> u8 {
    let settings = match args.settings.settle_without_authority() {
        Ok(settings) => settings,
        Err(message) => return fail(exit::USAGE, &message),
    };
    if let Some(url) = &args.server
        && !url.host_str().is_some_and(is_plain_host)
    {
        return fail(
            exit::USAGE,
            "--server is no URL with a name or an address\nhint: write it as http://HOST:3180/",
        );
    }
    let base = match args.server.as_ref().or(settings.listen.public_url.as_ref()) {
        Some(url) => ServerBase::configured(url),
        None => by_address(&settings),
    };
    let site = Site {
        settings: &settings,
        base: &base,
        client: None,
    };
    match args.client.text(site) {
        Some(text) => {
            print(&text);
            exit::DONE
        }
        None => fail(
            exit::USAGE,
            &format!(
                "no upstream of the settings is anything for {}\nhint: add [[upstream]] with the kind that it asks for",
                args.client
            ),
        ),
    }
}

/// What the settings and this host say about our name.
fn by_address(settings: &Settings) -> ServerBase {
    let address = settings.listen.data;
    if address.ip().is_unspecified() {
        let system = rustix::system::uname();
        ServerBase::in_clear(&format!(
            "{}:{}",
            system.nodename().to_string_lossy(),
            address.port()
        ))
    } else {
        ServerBase::in_clear(&address.to_string())
    }
}
