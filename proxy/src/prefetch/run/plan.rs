//! What is missing, and how much that is.

use kato_shared::{counted, settings::byte_size::human};

use crate::prefetch::Item;

/// What is missing, and what is held.
#[derive(Debug, Default)]
pub struct Plan {
    /// Items that are held.
    pub held: u64,
    /// Bytes of them.
    pub held_bytes: u64,
    /// What is to be fetched, in the order of paths.
    pub missing: Vec<Item>,
    /// What is held, and may be another one by now, in the order of paths: the cache is asked for it, and knows whether it has to ask anybody.
    pub again: Vec<Item>,
}

impl Plan {
    /// The bytes of what is missing, as far as indexes say, and how many items they say nothing about.
    pub fn size(&self) -> (u64, usize) {
        let known = self.missing.iter().filter_map(|item| item.size).sum();
        let unknown = self.missing.iter().filter(|item| item.size.is_none()).count();
        (known, unknown)
    }

    /// A line for people.
    pub fn line(&self) -> String {
        let (bytes, unknown) = self.size();
        let exactly = match unknown {
            0 => format!("exactly {} ({bytes} bytes)", human(bytes)),
            _ => format!(
                "{} ({bytes} bytes) and {} whose size no index says",
                human(bytes),
                counted(unknown, "file", "files")
            ),
        };
        let again = match self.again.len() {
            0 => String::new(),
            again => format!(", and {again} more, which may have changed and are asked for again"),
        };
        format!(
            "{} missing, {exactly}; {} held, {}{again}",
            counted(self.missing.len(), "file is", "files are"),
            counted(self.held, "is", "are"),
            human(self.held_bytes)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_exact_only_where_every_size_is_known() {
        let item = |size| Item {
            size,
            ..Item::at("/a".into())
        };
        let mut plan = Plan {
            missing: vec![item(Some(1000)), item(Some(24))],
            ..Plan::default()
        };
        assert!(
            plan.line().contains("exactly 1.0 KiB (1024 bytes)"),
            "{}",
            plan.line()
        );
        plan.missing.push(item(None));
        assert!(plan.line().contains("1 file whose size"), "{}", plan.line());
        plan.missing.clear();
        plan.again.push(item(None));
        assert_eq!(
            plan.line(),
            "0 files are missing, exactly 0 B (0 bytes); 0 are held, 0 B, and 1 more, which may have changed and are asked for again"
        );
    }
}
