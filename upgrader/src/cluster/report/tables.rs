//! Plans, results and problems as lines of tables. Pure.

use std::time::Duration;

use kato_shared::{release::Version, settings::byte_size::human};

use crate::{
    cluster::{
        event::{NodeResult, Outcome, Traffic},
        inventory::Inventory,
    },
    plan::{
        cluster::{Action, ClusterPlan},
        preflight::NodeProblem,
        survey::AtRisk,
    },
    report::terminal,
};

pub(super) fn shown(version: Option<&Version>) -> String {
    version.map_or_else(|| "none".into(), Version::to_string)
}

pub(super) fn seconds(millis: u64) -> String {
    format!("{}.{} s", millis / 1000, millis % 1000 / 100)
}

/// The plan as lines for people.
pub fn plan_lines(plan: &ClusterPlan) -> Vec<String> {
    let header = ["", "node", "address", "version", "place"].map(String::from);
    let rows = plan.nodes.iter().zip(1..).map(|(node, number)| {
        let way = match node.action {
            Action::Upgrade => format!("{} → {}", shown(node.from.as_ref()), plan.target),
            Action::None => format!("{} (nothing to do)", plan.target),
            Action::LeftOut => format!("{} (left out)", shown(node.from.as_ref())),
        };
        [
            format!("{number}."),
            node.id.clone(),
            node.address.clone(),
            way,
            node.place.to_string(),
        ]
    });
    let mut lines = columns(std::iter::once(header).chain(rows));
    lines.extend(work_lines(plan));
    lines.extend(plan.warnings.iter().map(|text| format!("warning: {text}")));
    lines
}

/// What is fetched, what is upgraded together, and where the way back ends.
fn work_lines(plan: &ClusterPlan) -> Vec<String> {
    let mut lines = Vec::new();
    for node in plan.upgrades() {
        let Some(work) = &node.work else { continue };
        let between = work.hops.iter().filter(|hop| **hop != plan.target);
        let between: Vec<String> = between.map(Version::to_string).collect();
        let way = if between.is_empty() {
            String::new()
        } else {
            format!("by way of {}; ", between.join(", "))
        };
        lines.push(format!(
            "{}: {way}fetches {}, needs {} on its disks; no way back from {}{}",
            node.id,
            human(work.download_bytes),
            human(work.space_bytes),
            work.point_of_no_return,
            if work.is_drained { "; is emptied first" } else { "" },
        ));
        if let Some(risk) = work.at_risk.as_ref().filter(|risk| risk.count > 0) {
            lines.push(risk_line(&node.id, risk));
        }
    }
    let together: Vec<String> = plan
        .batches
        .iter()
        .filter(|batch| batch.len() > 1)
        .map(|batch| batch.join("+"))
        .collect();
    if !together.is_empty() {
        lines.push(format!("together: {}", together.join(", ")));
    }
    let bytes: u64 = plan
        .upgrades()
        .filter_map(|node| Some(node.work.as_ref()?.download_bytes))
        .sum();
    if bytes > 0 {
        lines.push(format!(
            "in all {} to the nodes, in {}",
            human(bytes),
            kato_shared::counted(plan.batches.len(), "batch", "batches")
        ));
    }
    if let Some(estimate) = &plan.estimate {
        let time = humantime::format_duration(Duration::from_secs(estimate.seconds));
        lines.push(format!("about {time}: {}", estimate.basis.join("; ")));
    }
    lines
}

/// Local changes that may not be in their place any more afterwards.
fn risk_line(node: &str, risk: &AtRisk) -> String {
    let named: Vec<String> = risk.first.iter().map(|path| path.display().to_string()).collect();
    let more = match risk.count.saturating_sub(named.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "{node}: {} may be replaced, `kato customizations scan` there says how: {}{more}",
        kato_shared::counted(risk.count, "local change", "local changes"),
        named.join(", ")
    )
}

/// What became of the nodes, as lines for people.
pub fn result_lines(results: &[NodeResult]) -> Vec<String> {
    let header = ["node", "before", "now", "time", ""].map(String::from);
    let rows = results.iter().map(|result| {
        let outcome = match result.outcome {
            Outcome::Upgraded => "upgraded",
            Outcome::AlreadyThere => "was there already",
            Outcome::Failed => "failed",
            Outcome::NotReached => "not reached",
            Outcome::LeftOut => "left out",
        };
        let time = if result.millis == 0 {
            "-".into()
        } else {
            seconds(result.millis)
        };
        [
            result.node.clone(),
            shown(result.from.as_ref()),
            shown(result.to.as_ref()),
            time,
            outcome.to_owned(),
        ]
    });
    columns(std::iter::once(header).chain(rows))
}

/// What keeps nodes from being upgraded, with what to do about each.
pub fn problem_lines(problems: &[NodeProblem], inventory: &Inventory) -> Vec<String> {
    problems
        .iter()
        .flat_map(|found| {
            let problem = format!("{}: {}", found.node, found.problem);
            let remedy = remedy(found, inventory);
            let remedy = (!remedy.is_empty()).then(|| format!("  hint: {remedy}"));
            std::iter::once(problem).chain(remedy)
        })
        .collect()
}

/// What to do about a problem; empty for a node that the inventory does not have.
pub fn remedy(found: &NodeProblem, inventory: &Inventory) -> String {
    let node = inventory.node(&found.node);
    node.map_or_else(String::new, |node| found.problem.remedy(node, &inventory.ssh))
}

/// What the cache was good for.
pub fn traffic_line(traffic: &Traffic) -> String {
    format!(
        "the nodes got {} from the cache, {} crossed the line to the upgrade hosts: {} saved",
        human(traffic.to_nodes),
        human(traffic.from_upstream),
        human(traffic.saved)
    )
}

/// Pads every column but the last to its widest cell.
pub(crate) fn columns<const N: usize>(rows: impl Iterator<Item = [String; N]>) -> Vec<String> {
    // A cell that somebody else wrote stays a cell.
    let rows: Vec<[String; N]> = rows
        .map(|row| row.map(|cell| terminal::flat(&cell).into_owned()))
        .collect();
    let mut widths = [0_usize; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    rows.iter()
        .map(|row| {
            let padded: Vec<String> = row
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            padded.join("  ").trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_a_table() {
        let result = |node: &str, outcome, millis| NodeResult {
            node: node.into(),
            from: Some(Version::new(1, 0, 0)),
            to: Some(Version::new(2, 0, 0)),
            millis,
            outcome,
        };
        let lines = result_lines(&[
            result("w1", Outcome::Upgraded, 12_345),
            result("controller-1", Outcome::NotReached, 0),
        ]);
        assert_eq!(
            lines,
            [
                "node          before  now    time",
                "w1            1.0.0   2.0.0  12.3 s  upgraded",
                "controller-1  1.0.0   2.0.0  -       not reached",
            ]
        );
    }
}
