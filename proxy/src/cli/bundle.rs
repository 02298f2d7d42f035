//! `bundle`: carry what a store holds to a site without a network.
//!
//! These verbs work on the store itself, or beside the `kato-proxy serve` that has it open (`opened`); `verify` and `info` need no store.

mod args;
mod opened;
mod prove;
mod report;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

pub(super) use args::BundleArgs;
use args::{
    ExportArgs, ImportArgs, InfoArgs, KeygenArgs, MediumArgs, PasswordArgs, PlanArgs, Verb, VerifyArgs,
};
use jiff::Timestamp;
use kato_shared::{clock::Clock, durable};
use opened::{Opened, Reached, event_loop};

use super::{explain, fail, print};
use crate::{
    beside::Taking,
    bundle::{
        Bundle, BundleError, Fault, Finding,
        export::Export,
        host::Alone,
        import::{Import, Imported},
        ledger::Allowed,
        plan::Plan,
        prepare::{Order, prepare},
        receipt::Receipt,
        sign::{Signer, Trust, keygen},
        verify::{Depth, verify},
    },
    exit,
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
    fail(error.code(), &explain(&error))
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
            parameters: opened.parameters.clone(),
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
    let opened = args.store.open_filled(args.json)?;
    let plan = args.prepare(&opened, None)?;
    print(&report::plan(&plan, Clock::system().now(), args.json));
    Ok(exit::DONE)
}

fn export(args: &ExportArgs) -> Result<u8, u8> {
    let signer = Signer::read(&args.key, args.password.read()?).map_err(refuse)?;
    if args.waive.is_empty() && args.declare.is_none() {
        return Err(refuse(BundleError::Unproven));
    }
    let declared = args.declared()?;
    let opened = args.plan.store.open_filled(args.plan.json)?;
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
    let now = Clock::system().now();
    let (imported, store) = match args.store.reach(args.medium.json)? {
        Reached::Open(opened) => {
            let imported = args.alone(&opened, &bundle, now).map_err(refuse)?;
            (imported, opened.store.dir().to_owned())
        }
        Reached::Served(server) => {
            let taking = args.taking().map_err(refuse)?;
            (server.import(taking)?, server.store)
        }
    };
    let request = args.request(&store);
    if let (Some(path), Some(active)) = (&args.receipt, &imported.active) {
        let receipt = Receipt::new(&args.site, active.clone(), now);
        receipt.write(path, signer.as_ref()).map_err(refuse)?;
    }
    print(&report::imported(&imported, &bundle, &request, args.medium.json));
    // Said first: where it cannot be written, the rest is of use all the same.
    if let Some(wanted) = &imported.wanted {
        durable::write_json(&request, wanted, 0o644).map_err(refuse)?;
    }
    Ok(taken(&imported))
}

impl ImportArgs {
    fn allowed(&self) -> Allowed {
        Allowed {
            rollback: self.allow_rollback,
            other_series: self.replace_series,
        }
    }

    /// Takes `bundle` into a store that is ours alone.
    fn alone(&self, opened: &Opened, bundle: &Bundle, now: Timestamp) -> Result<Imported, BundleError> {
        let import = Import {
            store: &opened.store,
            library: &opened.library,
            handle: opened.runtime.handle(),
            bundle,
            others: &self.medium.from,
            keep: self.keep,
            allowed: self.allowed(),
            now,
            host: &Alone,
        };
        import.run()
    }

    /// What the server of the store is told: it has another working folder, and may see other files.
    fn taking(&self) -> Result<Taking, BundleError> {
        let whole = |path: &PathBuf| {
            fs::canonicalize(path).map_err(|source: io::Error| BundleError::File {
                action: "looking for",
                path: path.clone(),
                source,
            })
        };
        Ok(Taking {
            bundle: whole(&self.medium.bundle)?,
            others: self.medium.from.iter().map(whole).collect::<Result<_, _>>()?,
            trust: Trust::spelled(&self.medium.trust)?,
            keep: self.keep,
            allowed: self.allowed(),
        })
    }

    /// Where a request is written: by default beside the content of `store`, and never onto the medium.
    fn request(&self, store: &Path) -> PathBuf {
        self.request.clone().unwrap_or_else(|| store.join("request.json"))
    }
}

/// The exit code of an import: what is missing may come another time, what is wrong is a matter for somebody.
fn taken(imported: &Imported) -> u8 {
    let is_wrong = |finding: &Finding| finding.fault == Fault::Wrong;
    if imported.findings.iter().any(is_wrong) {
        exit::VERIFICATION_FAILED
    } else if imported.wanted.is_some() || !imported.findings.is_empty() {
        exit::TRY_AGAIN
    } else {
        exit::DONE
    }
}

fn info(args: &InfoArgs) -> Result<u8, u8> {
    let medium = &args.medium;
    let trust = (!medium.trust.is_empty()).then(|| medium.trust()).transpose()?;
    let bundle = Bundle::open(&medium.bundle, trust.as_ref()).map_err(refuse)?;
    print(&report::info(&bundle, medium.json));
    Ok(exit::DONE)
}
