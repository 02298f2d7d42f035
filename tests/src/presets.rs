//! The presets that are delivered, as an operator uses them: copied, with hosts filled in.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

/// The text of the preset `name` for `proxy.toml`, with each of these placeholders replaced.
///
/// # Errors
/// When there is no such preset, or a placeholder does not stand in it.
pub fn preset(name: &str, filled_in: &[(&str, &str)]) -> Result<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/presets/proxy");
    let path = folder.join(format!("{name}.toml"));
    let mut text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    for (placeholder, host) in filled_in {
        ensure!(
            text.contains(placeholder),
            "`{placeholder}` in {}",
            path.display()
        );
        text = text.replace(placeholder, host);
    }
    Ok(text)
}
