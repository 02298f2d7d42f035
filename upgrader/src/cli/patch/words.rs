//! A command for patches in words again: the same one, for a node that is told it by Core.

use super::{InstallArgs, ListArgs, MarkArgs, PatchCommand, RunArgs, StatusArgs, WhereArgs};
use crate::{
    cli::Context,
    patch::cluster::{self, Call},
};

impl PatchCommand {
    /// Which nodes it is for.
    pub(super) const fn place(&self) -> &WhereArgs {
        match self {
            Self::Status(args) => &args.place,
            Self::Install(args) => &args.run.place,
            Self::Reset(place) | Self::Update(place) => place,
            Self::Mark(args) => &args.place,
            Self::Reinstall(args) => &args.run.place,
            Self::Revert(args) => &args.run.place,
        }
    }

    /// The same command for one node, there.
    pub(super) fn call(&self, context: &Context) -> Call {
        let (verb, mut words) = match self {
            Self::Status(args) => (cluster::Kind::Status, args.words()),
            Self::Install(args) => (args.kind(), args.words()),
            Self::Reset(_) => (cluster::Kind::Short, vec!["reset".to_owned()]),
            Self::Update(_) => (cluster::Kind::Short, vec!["update".to_owned()]),
            Self::Mark(args) => (cluster::Kind::Short, args.words()),
            Self::Reinstall(args) => {
                let mut words = vec!["reinstall".to_owned(), args.name.clone()];
                words.extend(args.run.words());
                (cluster::Kind::Run, words)
            }
            Self::Revert(args) => {
                let mut words = vec!["revert".to_owned()];
                words.extend(args.name.clone());
                words.extend(args.run.words());
                (cluster::Kind::Run, words)
            }
        };
        words.push("--local".into());
        words.extend(self.place().words());
        Call {
            kind: verb,
            words,
            json: context.json,
        }
    }
}

impl WhereArgs {
    fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(ip) = self.cache_ip {
            words.extend(["--cache-ip".into(), ip.to_string()]);
        }
        if let Some(url) = &self.cache_url {
            words.extend(["--cache-url".into(), url.to_string()]);
        }
        if let Some(value) = self.skip_cache.as_ref().filter(|value| !value.is_empty()) {
            words.extend(["--skip-cache".into(), value.clone()]);
        }
        words
    }
}

impl ListArgs {
    /// A manifest must be at the same path on every node that it is for.
    fn words(&self) -> Vec<String> {
        let path = self.manifest.as_ref().map(|path| path.display().to_string());
        path.map(|path| vec!["--manifest".into(), path])
            .unwrap_or_default()
    }
}

impl RunArgs {
    fn words(&self) -> Vec<String> {
        // Whether to ask was decided on Core; a node has no terminal.
        let flags = [("--no-restart", self.no_restart), ("--quiet", self.quiet)];
        let set = flags.into_iter().filter(|(_, set)| *set);
        set.map(|(name, _)| name.to_owned()).collect()
    }
}

impl StatusArgs {
    fn words(&self) -> Vec<String> {
        let mut words = vec!["status".to_owned()];
        words.extend(self.all.then(|| "--all".into()));
        words.extend(self.list.force_update.then(|| "--force-update".into()));
        words.extend(self.list.words());
        words
    }
}

impl InstallArgs {
    /// Nodes fetch before the first of them is changed; a plan is shown by each.
    const fn kind(&self) -> cluster::Kind {
        match (self.plan, self.download_only) {
            (true, _) => cluster::Kind::Short,
            (false, true) => cluster::Kind::Run,
            (false, false) => cluster::Kind::StagedRun,
        }
    }

    fn words(&self) -> Vec<String> {
        let mut words = vec!["install".to_owned()];
        words.extend(self.names.clone());
        if let Some(id) = self.to_patch_id {
            words.extend(["--to-patch-id".into(), id.to_string()]);
        }
        words.extend(self.single.then(|| "--single".into()));
        words.extend(self.plan.then(|| "--plan".into()));
        words.extend(self.download_only.then(|| "--download-only".into()));
        words.extend(self.list.words());
        words.extend(self.run.words());
        words
    }
}

impl MarkArgs {
    fn words(&self) -> Vec<String> {
        let how = if self.installed {
            "--installed"
        } else {
            "--notinstalled"
        };
        vec!["mark".into(), self.name.clone(), how.into()]
    }
}
