//! One call of the command, from the lock to the table. Each part is a few lines here and a module of its own.
//!
//! ```text
//!   lease ▶ look (facts, ways, measurements: everything in the way at once) ▶ ask ▶ keep (the plan file) ▶ cache ▶ stage ▶ roll out ▶ ending
//! ```

mod aftermath;
mod ask;
mod cache;
mod ending;
mod history;
mod keep;
mod look;
mod mode;
mod resume;

use std::collections::BTreeMap;

use anyhow::anyhow;
use kato_shared::clock::Clock;
use tokio_util::sync::CancellationToken;

use self::look::Look;
use super::{
    AGAIN,
    control::Control,
    errand::{Errand, NodeFailure},
    event::Watcher,
    inventory::Inventory,
    remote::RemoteNode,
    report, rollout,
};
use crate::{
    audit::{Deed, Subject},
    cli::node::UpgradeRequest,
    exit::{Exit, Failure},
    lease::{Lease, Wanted},
    paths::NodePaths,
    plan::{
        cluster::ClusterPlan,
        preflight::{NodeProblem, Problem},
    },
    prepare::report::Report,
    report::terminal,
    settings::Settings,
};

/// Reports a rollout and its preparation.
trait Reporter: Watcher + Report {}
impl<T: Watcher + Report> Reporter for T {}

/// One call of `kato node upgrade --cluster`.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) request: UpgradeRequest,
    pub(super) settings: &'a Settings,
    pub(super) inventory: Inventory,
    pub(super) clock: Clock,
}

impl Call<'_> {
    /// From the lock to the table.
    pub(super) async fn upgrade(&self, nodes: BTreeMap<String, RemoteNode>) -> Result<Exit, Failure> {
        let choice = &self.request.choice;
        choice.check(&self.inventory).map_err(|error| {
            Failure::new(Exit::Usage, error).hint("correct the list of `--only` or `--exclude`")
        })?;
        // Only a call that changes nothing may run beside another.
        if self.request.plan_only {
            return Box::pin(self.decide(nodes, None)).await;
        }
        let lease = Lease::take(&self.paths(), &self.wanted(), &self.clock).await?;
        // From the first question on: a node that has answered us refuses those who came before.
        let nodes: BTreeMap<String, RemoteNode> = nodes
            .into_iter()
            .map(|(id, node)| (id, node.fenced(lease.token())))
            .collect();
        let outcome = tokio::select! {
            outcome = Box::pin(self.decide(nodes.clone(), Some(&lease))) => outcome,
            // Whoever has it now restores what is to be restored.
            () = lease.lost() => return Err(Lease::failure()),
        };
        self.with_limits_restored(outcome, &nodes).await
    }

    /// From the facts to the table; without a lease nothing is changed.
    async fn decide(
        &self,
        nodes: BTreeMap<String, RemoteNode>,
        lease: Option<&Lease>,
    ) -> Result<Exit, Failure> {
        let Look {
            mut plan,
            problems,
            is_whole,
        } = self.look(&nodes).await?;
        let has_work = plan.upgrades().next().is_some();
        let Some(lease) = lease else {
            // What is planned for a node that did not answer would be made up.
            if is_whole {
                self.print_plan(&plan);
            }
            self.refuse(&problems)?;
            self.refuse_another(&plan)?;
            return Ok(Exit::Done);
        };
        plan.fence = Some(lease.token());
        lease.say(&format!(
            "the upgrade of the cluster to {}, plan {}",
            plan.target,
            self.id_of(&plan)?
        ));
        self.refuse(&problems)?;
        self.refuse_another(&plan)?;
        if !has_work {
            terminal::say(&ask::nothing_to_do(&plan));
            // A call that was killed behind its last node has left this to us.
            self.end_maintenance(&plan).await?;
            return Ok(Exit::Done);
        }
        self.confirm(&plan)?;
        let deed = Deed::new(Subject::ClusterUpgrade, format!("to {}", plan.target))
            .run(plan.id.clone())
            .forced(self.request.force)
            .tolerant(self.request.tolerant);
        let log = self.audit_log();
        log.around(deed, Box::pin(self.carry_out(nodes, plan))).await
    }

    /// From the confirmed plan to the table.
    async fn carry_out(
        &self,
        nodes: BTreeMap<String, RemoteNode>,
        plan: ClusterPlan,
    ) -> Result<Exit, Failure> {
        let reporter: Box<dyn Reporter> = if self.request.json {
            Box::new(report::Json)
        } else {
            Box::new(report::Human::default())
        };
        let (nodes, cache) = self.cache(nodes, &plan, reporter.as_ref()).await?;
        let (plan, continued) = self.keep(plan, reporter.as_ref())?;
        let errand = Errand {
            plan: plan.id.clone(),
            target: plan.target.clone(),
            force: plan.force,
            tolerant: self.request.tolerant,
            apply_patches: self.request.apply_patches,
            cache_url: cache.url().cloned(),
            patience: self.inventory.ssh.patience.get(),
            implicit_role: self.inventory.implicit_role.clone(),
        };
        let staged = rollout::stage(&plan, &nodes, &errand, reporter.as_ref());
        self.all_staged(&interruptible(staged).await?)?;
        if self.request.download_only {
            reporter.say("every node has what it needs");
            return Ok(Exit::Done);
        }
        let control = self.control();
        // Nothing is opened for as long as a pause may last, nor for a plan that is given up.
        let admitted = rollout::admitted(&control, &plan.id, reporter.as_ref());
        let refused = interruptible(admitted)
            .await
            .map_err(|failure| self.with_maintenance(failure))?;
        if refused.is_none() {
            self.begin_maintenance(&plan.id).await?;
            self.waive_limits(&plan)
                .await
                .map_err(|failure| self.with_maintenance(failure))?;
        }
        let rolled = rollout::roll_out(&plan, &nodes, &errand, &control, reporter.as_ref());
        let rolled = interruptible(rolled)
            .await
            .map_err(|failure| self.with_maintenance(failure))?;
        if !continued {
            self.note_times(&rolled.nodes);
        }
        let traffic = cache.traffic().await;
        match self.conclude(&rolled, traffic, reporter.as_ref()) {
            Ok(exit) => {
                self.end_maintenance(&plan).await?;
                Self::remind_of_rules(&nodes);
                Ok(exit)
            }
            Err(failure) => Err(self.with_maintenance(failure)),
        }
    }

    /// Refuses when nodes could not get ready, with all of them and what is in the way of each.
    fn all_staged(&self, failed: &[(String, NodeFailure)]) -> Result<(), Failure> {
        let Some((node, first)) = failed.first() else {
            return Ok(());
        };
        let words: Vec<String> = failed
            .iter()
            .map(|(node, failure)| {
                format!(
                    "{node} failed at {}: {}",
                    failure.error.step, failure.error.message
                )
            })
            .collect();
        let what = anyhow!("{}; this call has changed nothing on any node", words.join("; "));
        let hint = ending::again(node, first.error.hint.as_deref());
        if failed.len() > 1 {
            let said = |(node, failure): &(String, NodeFailure)| NodeProblem {
                node: node.clone(),
                problem: Problem::Said {
                    what: format!("failed at {}: {}", failure.error.step, failure.error.message),
                    remedy: failure.error.hint.clone().unwrap_or_else(|| "see its log".into()),
                },
            };
            self.say_problems(&failed.iter().map(said).collect::<Vec<_>>());
        }
        Err(Failure::new(first.exit, what).hint(hint))
    }

    fn paths(&self) -> NodePaths {
        NodePaths::new(&self.settings.node.root, &self.settings.node.state_dir)
    }

    fn control(&self) -> Control {
        Control::in_state_dir(self.paths().state_dir())
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            run: "of the cluster".into(),
            about: "the upgrade of the cluster".into(),
            term: self.inventory.lease.get(),
        }
    }
}

/// Runs `work` until it ends or the operator interrupts it; what the nodes do goes on.
async fn interruptible<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let token = CancellationToken::new();
    let signalled = async {
        tokio::select! {
            _twice = kato_shared::shutdown::on_signals(token.clone()) => {}
            () = token.cancelled() => {}
        }
    };
    tokio::select! {
        done = work => Ok(done),
        () = signalled => Err(Failure::new(Exit::TryAgain, anyhow!("interrupted; a node that was started goes on by itself"))
            .hint(format!("`{AGAIN}` follows it and goes on from there"))),
    }
}
