//! One call of the command, from the lock to the table. Each step is a few lines here and a module of its own.

mod mode;

use std::collections::BTreeMap;

use anyhow::anyhow;
use kato_shared::{chain::Chain, clock::Clock, durable};
use tokio_util::sync::CancellationToken;

use super::{
    AGAIN,
    control::{Control, Wish},
    errand::Errand,
    event::{ClusterEvent, Watcher},
    examine::examine,
    facts,
    inventory::Inventory,
    remote::RemoteNode,
    report,
    rollout::{self, Reason, Rolled},
    target::{self, Found},
};
use crate::{
    audit::{AuditLog, Deed, Subject},
    cli::node::UpgradeRequest,
    document,
    exit::{Exit, Failure},
    lease::{Lease, Wanted},
    paths::NodePaths,
    plan::{
        cluster::{self as planning, Action, ClusterPlan, Wishes},
        facts::NodeStatus,
        preflight::{self, NodeProblem},
    },
    prepare::{self, CacheDecision, profile, report::Report},
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
            return self.decide(nodes, None).await;
        }
        let lease = Lease::take(&self.paths(), &self.wanted(), &self.clock).await?;
        // From the first question on: a node that has answered us refuses those who came before.
        let nodes = nodes
            .into_iter()
            .map(|(id, node)| (id, node.fenced(lease.token())))
            .collect();
        tokio::select! {
            outcome = self.decide(nodes, Some(&lease)) => outcome,
            () = lease.lost() => Err(Lease::failure()),
        }
    }

    /// From the facts to the table; without a lease nothing is changed.
    async fn decide(
        &self,
        nodes: BTreeMap<String, RemoteNode>,
        lease: Option<&Lease>,
    ) -> Result<Exit, Failure> {
        let facts = self.facts(&nodes).await?;
        let cache_url = if self.request.offline {
            // Nobody outside is asked, not even what there is to choose from.
            Some(Box::pin(prepare::offline(self.settings, &self.inventory, &self.request)).await?)
        } else {
            self.request.cache_url.clone()
        };
        let route = UpgradeRequest {
            cache_url,
            ..self.request.clone()
        };
        let found = Box::pin(target::find(self.settings, &route, &facts)).await?;
        self.check_ways(&facts, &found)?;
        let mut plan = self.plan(&facts, &found)?;
        let has_work = plan.upgrades().next().is_some();
        let mut problems = Vec::new();
        if has_work {
            let look = examine(&self.inventory, &nodes, &facts, &found, &mut plan, &self.clock);
            let examined = interruptible(look).await?;
            plan.warnings.extend(examined.warnings);
            problems = examined.problems;
        }
        let Some(lease) = lease else {
            self.print_plan(&plan);
            self.refuse(&problems)?;
            refuse_stuck(&plan)?;
            return Ok(Exit::Done);
        };
        lease.say(&format!(
            "the upgrade of the cluster to {}, plan {}",
            plan.target, plan.id
        ));
        self.refuse(&problems)?;
        if plan.upgrades().next().is_none() {
            terminal::say(&nothing_to_do(&plan));
            // A call that was killed behind its last node has left this to us.
            self.end_maintenance().await?;
            return Ok(Exit::Done);
        }
        self.maintenance().check(self.may_ask()).await?;
        refuse_stuck(&plan)?;
        self.confirm(&plan)?;
        let deed = Deed::new(Subject::ClusterUpgrade, format!("to {}", plan.target))
            .run(plan.id.clone())
            .forced(self.request.force);
        let log = AuditLog::in_folder(
            &self.paths().audit(),
            &self.inventory.core().id,
            self.clock.clone(),
        );
        log.around(deed, self.carry_out(nodes, plan)).await
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
        let (nodes, cache_url) = self.cache(nodes, &plan, reporter.as_ref()).await?;
        let plan = self.keep(plan, reporter.as_ref())?;
        let errand = Errand {
            plan: plan.id.clone(),
            target: plan.target.clone(),
            force: plan.force,
            apply_patches: self.request.apply_patches,
            cache_url,
            patience: self.inventory.ssh.patience.get(),
            implicit_role: self.inventory.implicit_role.clone(),
        };
        let staged = rollout::stage(&plan, &nodes, &errand, reporter.as_ref());
        if let Err((node, failure)) = interruptible(staged).await? {
            let what = anyhow!(
                "{node} failed at {}: {}; this call has changed nothing on any node",
                failure.error.step,
                failure.error.message
            );
            return Err(Failure::new(failure.exit, what).hint(again(&node, failure.error.hint.as_deref())));
        }
        if self.request.download_only {
            reporter.say("every node has what it needs");
            return Ok(Exit::Done);
        }
        self.begin_maintenance(&plan.id).await?;
        let control = self.control();
        let rolled = rollout::roll_out(&plan, &nodes, &errand, &control, reporter.as_ref());
        let rolled = interruptible(rolled)
            .await
            .map_err(|failure| self.with_maintenance(failure))?;
        match self.conclude(&rolled, reporter.as_ref()) {
            Ok(exit) => {
                self.end_maintenance().await?;
                Ok(exit)
            }
            Err(failure) => Err(self.with_maintenance(failure)),
        }
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

    /// The status of every node, or all that is in the way.
    async fn facts(
        &self,
        nodes: &BTreeMap<String, RemoteNode>,
    ) -> Result<BTreeMap<String, NodeStatus>, Failure> {
        let answers = facts::gather(nodes.values()).await;
        let mut problems = answers.problems;
        for (id, status) in &answers.facts {
            let Some(node) = self.inventory.node(id) else {
                continue;
            };
            let found = preflight::identity(node, &self.inventory.implicit_role, status);
            problems.extend(of(id, found));
        }
        // Who is left out needs not even be there.
        let (wanted, others): (Vec<_>, Vec<_>) = problems.into_iter().partition(|found| {
            let node = self.inventory.node(&found.node);
            node.is_none_or(|node| self.request.choice.wants(node))
        });
        for line in report::problem_lines(&others, &self.inventory) {
            terminal::say(&line);
        }
        self.refuse(&wanted)?;
        Ok(answers.facts)
    }

    fn check_ways(&self, facts: &BTreeMap<String, NodeStatus>, found: &Found) -> Result<(), Failure> {
        let problems: Vec<NodeProblem> = facts
            .iter()
            .flat_map(|(id, status)| of(id, preflight::way(status, &found.target.version, &found.graph)))
            .collect();
        self.refuse(&problems)
    }

    fn refuse(&self, problems: &[NodeProblem]) -> Result<(), Failure> {
        if problems.is_empty() {
            return Ok(());
        }
        for line in report::problem_lines(problems, &self.inventory) {
            terminal::say(&line);
        }
        let mut ids: Vec<&str> = problems.iter().map(|problem| problem.node.as_str()).collect();
        ids.dedup();
        let what = anyhow!(
            "not ready to be upgraded: {}; nothing was changed on any node",
            ids.join(", ")
        );
        Err(Failure::new(Exit::Preflight, what).hint("do as said above, then run the same command again"))
    }

    fn plan(&self, facts: &BTreeMap<String, NodeStatus>, found: &Found) -> Result<ClusterPlan, Failure> {
        let wishes = Wishes {
            role_order: self.request.role_order.clone(),
            force: self.request.force,
            choice: self.request.choice.clone(),
        };
        planning::plan(&self.inventory, facts, &found.target, &wishes, self.clock.now())
            .map_err(|error| Failure::new(Exit::Usage, error).hint("correct the list of `--role-order`"))
    }

    fn print_plan(&self, plan: &ClusterPlan) {
        if self.request.json {
            terminal::json(plan);
        } else {
            for line in report::plan_lines(plan) {
                terminal::data(&line);
            }
        }
    }

    fn confirm(&self, plan: &ClusterPlan) -> Result<(), Failure> {
        if !self.request.json {
            for line in report::plan_lines(plan) {
                terminal::say(&line);
            }
        }
        if self.request.skip_confirmation {
            return Ok(());
        }
        if !terminal::is_interactive() {
            let what = anyhow!(
                "nobody is here to confirm the upgrade of the cluster to {}",
                plan.target
            );
            return Err(Failure::new(Exit::Usage, what).hint(format!(
                "look at the plan with `{AGAIN} --plan`, then add `--skip-confirmation`"
            )));
        }
        let count = plan.upgrades().count();
        if terminal::confirm(&format!("upgrade {count} nodes to {}?", plan.target)) {
            Ok(())
        } else {
            Err(Failure::new(
                Exit::Declined,
                anyhow!("not confirmed; nothing was changed on any node"),
            ))
        }
    }

    /// Makes the cache ready, and tells the nodes to do without where the site has a proxy of its own.
    async fn cache(
        &self,
        nodes: BTreeMap<String, RemoteNode>,
        plan: &ClusterPlan,
        report: &dyn Reporter,
    ) -> Result<(BTreeMap<String, RemoteNode>, Option<url::Url>), Failure> {
        let request = UpgradeRequest {
            version: Some(plan.target.clone()),
            ..self.request.clone()
        };
        let others: Vec<_> = plan.upgrades().filter_map(|node| node.from.clone()).collect();
        match prepare::ensure(self.settings, &self.inventory, &request, &others, report).await? {
            CacheDecision::Use(url) => Ok((nodes, Some(url))),
            CacheDecision::Skip { reason } => {
                report.say(&format!("nodes download without a cache: {reason}"));
                let skip = vec![(profile::SKIP.to_owned(), "1".to_owned())];
                let nodes = nodes
                    .into_iter()
                    .map(|(id, node)| (id, node.with_env(skip.clone())));
                Ok((nodes.collect(), None))
            }
        }
    }

    /// Writes the plan before the first node is touched, or takes up the one that an earlier call wrote.
    fn keep(&self, plan: ClusterPlan, watcher: &dyn Watcher) -> Result<ClusterPlan, Failure> {
        let path = self.paths().state_dir().join("state/plan.json");
        let earlier = document::read::<ClusterPlan>(&path, "the plan of an upgrade of the cluster");
        let earlier = earlier.unwrap_or_else(|damaged| {
            tracing::warn!(error = %Chain(&damaged), "the earlier plan is replaced");
            None
        });
        let (plan, continued) = match earlier {
            Some(earlier) if plan.continues(&earlier) && !self.is_given_up(&earlier) => {
                (plan.continuing(&earlier), true)
            }
            _ => {
                durable::write_json(&path, &plan, 0o644)
                    .map_err(|error| Failure::new(Exit::Preflight, error))?;
                (plan, false)
            }
        };
        watcher.on(&ClusterEvent::ClusterStarted {
            plan: plan.clone(),
            continued,
        }
        .into());
        Ok(plan)
    }

    fn is_given_up(&self, plan: &ClusterPlan) -> bool {
        let wanted = self.control().wanted(&plan.id);
        wanted.is_some_and(|wanted| wanted.wish == Wish::Abort)
    }

    /// The table, and for a failure what to do next.
    fn conclude(&self, rolled: &Rolled, watcher: &dyn Watcher) -> Result<Exit, Failure> {
        let exit = rolled.exit();
        watcher.on(&ClusterEvent::ClusterFinished {
            exit,
            nodes: rolled.nodes.clone(),
            time: self.clock.now(),
        }
        .into());
        if !self.request.json {
            for line in report::result_lines(&rolled.nodes) {
                terminal::data(&line);
            }
        }
        if exit == Exit::Done {
            return Ok(Exit::Done);
        }
        Err(ended(exit, rolled))
    }
}

/// Rules by which some nodes would never have their turn are found out before the first is touched.
fn refuse_stuck(plan: &ClusterPlan) -> Result<(), Failure> {
    match plan.foresee().1 {
        None => Ok(()),
        Some(halt) => Err(Failure::new(
            Exit::Preflight,
            anyhow!("{halt}; nothing was changed on any node"),
        )
        .hint("loosen the rules in [rollout] of cluster.toml, or give the role more nodes")),
    }
}

/// Why there is nothing to do.
fn nothing_to_do(plan: &ClusterPlan) -> String {
    let left_out: Vec<&str> = plan
        .nodes
        .iter()
        .filter(|node| node.action == Action::LeftOut)
        .map(|node| node.id.as_str())
        .collect();
    if left_out.is_empty() {
        format!("every node is at {} already", plan.target)
    } else {
        format!(
            "nothing to do: every node is at {} already but {}, which are left out",
            plan.target,
            left_out.join(", ")
        )
    }
}

/// A rollout that did not bring all nodes to the target, in words: the nodes that failed, and why no further one was begun.
fn ended(exit: Exit, rolled: &Rolled) -> Failure {
    let mut words: Vec<String> = rolled
        .failures
        .iter()
        .map(|(node, failure)| {
            format!(
                "{node} failed at {}: {}",
                failure.error.step, failure.error.message
            )
        })
        .collect();
    match &rolled.reason {
        Some(Reason::Rules(halt)) => words.push(halt.to_string()),
        Some(Reason::Aborted { reason }) => {
            let reason = reason
                .as_ref()
                .map_or_else(String::new, |reason| format!(": {reason}"));
            words.push(format!("the rollout was given up{reason}"));
        }
        None => {}
    }
    let failure = Failure::new(exit, anyhow!("{}", words.join("; ")));
    match (rolled.failures.first(), &rolled.reason) {
        (Some((node, failed)), _) => failure.hint(again(node, failed.error.hint.as_deref())),
        (None, Some(Reason::Aborted { .. })) => failure.hint(format!(
            "`{AGAIN}` makes a new plan; nodes that are done are skipped"
        )),
        (None, _) => {
            failure.hint("loosen the rules in [rollout] of cluster.toml, or give the role more nodes")
        }
    }
}

/// What to do next: what the node says, then the same command.
fn again(node: &str, hint: Option<&str>) -> String {
    let first = hint
        .map(|hint| format!("{node} says: {hint}. "))
        .unwrap_or_default();
    format!(
        "{first}On Core, the same command goes on: nodes that are done are skipped, the others are resumed"
    )
}

fn of(id: &str, problems: Vec<preflight::Problem>) -> impl Iterator<Item = NodeProblem> {
    problems.into_iter().map(move |problem| NodeProblem {
        node: id.to_owned(),
        problem,
    })
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
