//! A node's plan as a person reads it before saying yes.

use std::fmt::Write as _;

use kato_shared::settings::byte_size::human as bytes;

use crate::plan::{node::NodePlan, way_back::WayBack};

/// The plans of all releases on the way, without a final newline.
pub fn way(plans: &[NodePlan]) -> String {
    let texts: Vec<_> = plans.iter().map(text).collect();
    let mut whole = texts.join("\n");
    if let [first, .., last] = plans {
        let from = first
            .from
            .as_ref()
            .map_or_else(|| "nothing".into(), ToString::to_string);
        let patch = |plan: &NodePlan| plan.patch.as_ref().map(|name| format!("patch {name}"));
        let step = |plan: &NodePlan| patch(plan).unwrap_or_else(|| plan.to.to_string());
        let steps: Vec<_> = plans.iter().map(step).collect();
        let is_patch = |plan: &NodePlan| plan.patch.is_some();
        let what = match (plans.iter().all(is_patch), plans.iter().any(is_patch)) {
            (true, _) => "patches",
            (false, true) => "patches and releases",
            (false, false) => "releases",
        };
        let sum = plans
            .iter()
            .flat_map(|plan| &plan.space)
            .map(|need| need.bytes)
            .sum();
        // Writing to a String cannot fail.
        let _infallible = write!(
            whole,
            "\n{} {what}, one after the other: {from} → {}\n  space      {} in all, before the first begins\n  way back   from each to the one before; {} is the last",
            plans.len(),
            steps.join(" → "),
            bytes(sum),
            step(last)
        );
    }
    whole
}

/// The plan as text, without a final newline.
pub fn text(plan: &NodePlan) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _infallible = write(&mut text, plan);
    text.truncate(text.trim_end().len());
    text
}

fn write(text: &mut String, plan: &NodePlan) -> std::fmt::Result {
    match (&plan.from, &plan.patch) {
        (Some(from), Some(patch)) => writeln!(text, "{}: patch {patch} on {from}", plan.node)?,
        (Some(from), None) => writeln!(text, "{}: {from} → {}", plan.node, plan.to)?,
        (None, _) => writeln!(text, "{}: installs {}", plan.node, plan.to)?,
    }
    if plan.channel != "stable" {
        writeln!(text, "  channel    {}", plan.channel)?;
    }
    writeln!(text, "  roles      {}", plan.roles.join(", "))?;
    writeln!(text, "  download   {}", bytes(plan.download_bytes))?;
    if let Some(role) = &plan.retire {
        writeln!(text, "  retire     yes, for its role {role}; put back afterwards")?;
    }
    for path in &plan.backup {
        writeln!(text, "  back up    {}", path.display())?;
    }
    for module in &plan.modules {
        let version = module.version.as_deref().unwrap_or("");
        let what = module.skip.map_or_else(
            || match &module.dest {
                Some(dest) => format!("{} at {}", module.policy, dest.display()),
                None => format!("{}: {}", module.policy, module.contents.join(", ")),
            },
            |reason| format!("skipped: {reason}"),
        );
        writeln!(text, "  module     {} {version}  {what}", module.name)?;
    }
    for line in super::customizations::outlook_lines(&plan.local_changes) {
        writeln!(text, "  {line}")?;
    }
    for name in &plan.dropped {
        writeln!(text, "  stays      {name}, which the release has no more")?;
    }
    writeln!(text, "  restart    {}", restart(plan))?;
    let WayBack {
        point_of_no_return,
        reason,
    } = &plan.way_back;
    writeln!(text, "  way back   until {point_of_no_return}: {reason}")?;
    if plan.is_tolerant {
        let why = if plan.tolerance_asked {
            "--tolerant was given"
        } else {
            "the last run failed"
        };
        writeln!(
            text,
            "  tolerant   {why}: missing services and paths are warnings"
        )?;
    }
    for notice in &plan.notices {
        writeln!(text, "  note       {notice}")?;
    }
    Ok(())
}

const fn restart(plan: &NodePlan) -> &'static str {
    use kato_shared::release::RestartScope;
    match plan.restart {
        RestartScope::Services => "services",
        RestartScope::Reboot => "the machine",
        RestartScope::None => "nothing",
    }
}
