//! A container runtime made of small files, for a [`TestNode`].

use anyhow::Result;

use crate::node::TestNode;

impl TestNode {
    /// Gives the node a container runtime of small files: `name` (docker or podman) keeps each reference as a file with its
    /// digest in `platform/images`, and notes every call in `platform/runtime`. It refuses to pull while
    /// `platform/fail-pull` exists, and delivers something else while `platform/other-image` does.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn with_runtime(&mut self, name: &str) -> Result<()> {
        const RUNTIME: &str = r#"#!/bin/sh
set -eu
platform=$(dirname "$0")/../root/platform
images=$platform/images
mkdir -p "$images"
echo "$*" >> "$platform/runtime"
file() { echo "$images/$(echo "$1" | tr '/:@' '___')"; }
for last; do :; done
case $1 in
    version) echo "of files" ;;
    info) echo / ;;
    pull) if [ -e "$platform/fail-pull" ]; then echo "no route to the registry" >&2; exit 125; fi
        digest=${last#*@}
        if [ -e "$platform/other-image" ]; then digest=sha256:0000; fi
        echo "$digest" > "$(file "$last")" ;;
    image) if [ "$2" = ls ]; then cat "$(file "$last")" 2>/dev/null || true; exit 0; fi
        digest=$(cat "$(file "$3")" 2>/dev/null) || { echo "no such image" >&2; exit 1; }
        echo "[{\"Id\": \"id of $digest\", \"RepoDigests\": [\"some/name@$digest\"]}]" ;;
    tag) cp "$(file "$2")" "$(file "$3")" ;;
    untag | rmi) rm "$(file "$last")" ;;
esac
"#;
        self.program(name, RUNTIME)?;
        self.add_settings(&format!("[images]\nruntime = \"{name}\"\n"))
    }

    /// What a reference means to the runtime of [`TestNode::with_runtime`].
    pub fn image(&self, reference: &str) -> Option<String> {
        let file = reference.replace(['/', ':', '@'], "_");
        let text = self.text(&format!("platform/images/{file}"))?;
        Some(text.trim().to_owned())
    }
}
