//! `bundle`: carry what a store holds to a site without a network.
//!
//! These verbs work on the store itself, so no `kato-proxy serve` may run on it meanwhile; `verify` and `info` need no store.

mod args;
mod prove;
mod report;

use std::{
    fs,
    path::{Path, PathBuf},
};

use kato_shared::{clock::Clock, durable};
use tokio::runtime::{Builder, Runtime};

pub(super) use args::BundleArgs;
use args::{
    ExportArgs, ImportArgs, InfoArgs, KeygenArgs, MediumArgs, PasswordArgs, PlanArgs, StoreArgs, Verb,
    VerifyArgs,
};

use super::{explain, fail, print};
use crate::{
    bundle::{
        Bundle, BundleError,
        export::Export,
        import::Import,
        plan::Plan,
        prepare::{Order, prepare},
        receipt::Receipt,
        sign::{Signer, Trust, keygen},
        verify::{Depth, verify},
    },
    exit,
    settings::{Cache, DEFAULT_PATH, Settings},
    snapshot::Library,
    store::Store,
};

/// `bundle`.
pub(super) fn bundle(args: &BundleArgs) -> u8 {
    let outcome = match &args.verb {
        Verb::Keygen(args) => make_keys(args),
        Verb::Plan(args) => plan(args),
        Verb::Export(args) => export(args),
        Verb::Rehearse(args) => prove::rehearsed(args),
        Verb::Verify(args) => judge(args),
        Verb::Import(args) => import(args),
        Verb::Info(args) => info(args),
    };
    outcome.unwrap_or_else(|refused| refused)
}

/// For `map_err`: tells what went wrong, and with which code this ends.
fn refuse(error: impl Into<BundleError>) -> u8 {
    let error = error.into();
    let code = match &error {
        BundleError::Sign(_) | BundleError::Replay(_) => exit::TRUST_REFUSED,
        BundleError::Header { .. }
        | BundleError::Table { .. }
        | BundleError::TooLarge { .. }
        | BundleError::Content { .. }
        | BundleError::Snapshot(_) => exit::VERIFICATION_FAILED,
        BundleError::UnknownBase(_)
        | BundleError::Series(_)
        | BundleError::Pack(_)
        | BundleError::Wanted(_)
        | BundleError::NoBundle(_)
        | BundleError::Unproven => exit::USAGE,
        BundleError::NoRoom { .. }
        | BundleError::Occupied(_)
        | BundleError::Empty
        | BundleError::Library(_)
        | BundleError::Store(_)
        | BundleError::Full(_)
        | BundleError::Durable(_)
        | BundleError::File { .. } => exit::REFUSED,
    };
    fail(code, &explain(&error))
}

/// A store that was opened for one verb.
struct Opened {
    /// The settings file, if there is one.
    config: Option<PathBuf>,
    /// What it says of the store.
    cache: Cache,
    runtime: Runtime,
    store: Store,
    library: Library,
}

fn event_loop() -> Result<Runtime, u8> {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| fail(exit::REFUSED, &format!("no event loop: {error}")))
}

impl StoreArgs {
    /// The settings file, and what it and the flags say of the store.
    fn settled(&self) -> Result<(Option<PathBuf>, Cache), u8> {
        let default = Path::new(DEFAULT_PATH);
        let file = self
            .config
            .as_deref()
            .or_else(|| default.exists().then_some(default));
        let mut settings = match file {
            Some(path) => Settings::load(path).map_err(|error| fail(exit::USAGE, &explain(&error)))?,
            None => Settings::default(),
        };
        if let Some(dir) = &self.cache_dir {
            settings.cache.dir.clone_from(dir);
        }
        Ok((file.map(Path::to_owned), settings.cache))
    }

    fn open(&self) -> Result<Opened, u8> {
        let (config, cache) = self.settled()?;
        let runtime = event_loop()?;
        let store =
            Store::open(&cache, Clock::system()).map_err(|error| fail(exit::REFUSED, &explain(&error)))?;
        let library = Library::new(store.dir());
        Ok(Opened {
            config,
            cache,
            runtime,
            store,
            library,
        })
    }
}

impl PasswordArgs {
    fn read(&self) -> Result<Option<String>, u8> {
        let Some(path) = &self.password_file else {
            return Ok(None);
        };
        let text = fs::read_to_string(path).map_err(|error| {
            fail(
                exit::USAGE,
                &format!("reading `{}` failed: {error}", path.display()),
            )
        })?;
        Ok(Some(text.lines().next().unwrap_or_default().to_owned()))
    }
}

impl PlanArgs {
    fn prepare(&self, opened: &Opened, signer: Option<&Signer>) -> Result<Plan, u8> {
        let order = Order {
            series: self.series.clone(),
            since: self.since.clone(),
            overlap: self.overlap,
            satisfy: self.satisfy.clone(),
            prefixes: self.prefix.clone(),
            keyrings: self.apt_key.clone(),
            sites: self.receipt_trust.clone(),
            limit: self.volume,
        };
        let parties = (&opened.store, &opened.library, opened.runtime.handle());
        prepare(parties, &order, &self.out, Clock::system().now(), signer).map_err(refuse)
    }
}

impl MediumArgs {
    fn trust(&self) -> Result<Trust, u8> {
        Trust::read(&self.trust).map_err(refuse)
    }

    fn open(&self) -> Result<Bundle, u8> {
        let trust = self.trust()?;
        Bundle::open(&self.bundle, Some(&trust)).map_err(refuse)
    }
}

fn make_keys(args: &KeygenArgs) -> Result<u8, u8> {
    let password = args.password.read()?;
    let public = keygen(&args.secret, &args.public, password).map_err(refuse)?;
    print(&format!(
        "secret key  {}\npublic key  {}  {public}\n",
        args.secret.display(),
        args.public.display()
    ));
    Ok(exit::DONE)
}

fn plan(args: &PlanArgs) -> Result<u8, u8> {
    let opened = args.store.open()?;
    let plan = args.prepare(&opened, None)?;
    print(&report::plan(&plan, args.json));
    Ok(exit::DONE)
}

fn export(args: &ExportArgs) -> Result<u8, u8> {
    let signer = Signer::read(&args.key, args.password.read()?).map_err(refuse)?;
    if args.waive.is_empty() && args.declare.is_none() {
        return Err(refuse(BundleError::Unproven));
    }
    let declared = args.declared()?;
    let opened = args.plan.store.open()?;
    let plan = args.plan.prepare(&opened, Some(&signer))?;
    let proofs = args.prove(&opened, &plan, &declared)?;
    let export = Export {
        store: &opened.store,
        library: &opened.library,
        out: &args.plan.out,
        plan: &plan,
        signer: &signer,
        closure: proofs.closure,
        rehearsal: proofs.rehearsal,
    };
    let exported = export.run().map_err(refuse)?;
    print(&report::exported(&plan, &exported, args.plan.json));
    Ok(exit::DONE)
}

fn judge(args: &VerifyArgs) -> Result<u8, u8> {
    let bundle = args.medium.open()?;
    let depth = if args.quick { Depth::Quick } else { Depth::Full };
    let found = verify(&bundle, &args.medium.from, depth).map_err(refuse)?;
    if let Some(path) = &args.report {
        durable::write_json(path, &found, 0o644).map_err(refuse)?;
    }
    print(&report::verified(&found, args.medium.json));
    Ok(if found.is_good() {
        exit::DONE
    } else {
        exit::VERIFICATION_FAILED
    })
}

fn import(args: &ImportArgs) -> Result<u8, u8> {
    let signer = args
        .receipt_key
        .as_ref()
        .map(|key| Signer::read(key, args.password.read()?).map_err(refuse))
        .transpose()?;
    let bundle = args.medium.open()?;
    let opened = args.store.open()?;
    let now = Clock::system().now();
    let import = Import {
        store: &opened.store,
        library: &opened.library,
        handle: opened.runtime.handle(),
        bundle: &bundle,
        others: &args.medium.from,
        keep: args.keep,
        allow_rollback: args.allow_rollback,
        now,
    };
    let imported = import.run().map_err(refuse)?;
    if let Some(wanted) = &imported.wanted {
        durable::write_json(&args.request, wanted, 0o644).map_err(refuse)?;
    }
    if let (Some(path), Some(active)) = (&args.receipt, &imported.active) {
        let receipt = Receipt::new(&args.site, active.clone(), now);
        receipt.write(path, signer.as_ref()).map_err(refuse)?;
    }
    print(&report::imported(
        &imported,
        &bundle,
        &args.request,
        args.medium.json,
    ));
    Ok(match (&imported.wanted, imported.findings.is_empty()) {
        (None, true) => exit::DONE,
        (None, false) => exit::VERIFICATION_FAILED,
        (Some(_), _) => exit::TRY_AGAIN,
    })
}

fn info(args: &InfoArgs) -> Result<u8, u8> {
    let medium = &args.medium;
    let trust = (!medium.trust.is_empty()).then(|| medium.trust()).transpose()?;
    let bundle = Bundle::open(&medium.bundle, trust.as_ref()).map_err(refuse)?;
    print(&report::info(&bundle, medium.json));
    Ok(exit::DONE)
}
