//! An archive in two generations, made of packages that are built here: what it serves is changed from one request to the next.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use integration_tests::lab::{Background, HOST, Lab};
use kato_shared::{Digest, durable};

use crate::origin::{Request, index, new_key, requests, said, serve, sign, text};

/// A package whose version differs between the generations, and one that it depends on.
pub(crate) const PACKAGES: [&str; 2] = ["lab-tool", "lab-library"];

/// A running archive.
#[derive(Debug)]
pub(crate) struct Archive<'lab> {
    lab: &'lab Lab,
    /// Its address, as an operator would name the upstream.
    pub(crate) url: String,
    nginx: Option<Background>,
}

impl<'lab> Archive<'lab> {
    /// Builds both generations and serves the first. Each has its own indexes under `by-hash`, and not those of the other.
    ///
    /// # Errors
    /// When a tool of `tests/packages.txt` is missing.
    pub(crate) fn start(lab: &'lab Lab) -> Result<Self> {
        new_key(lab)?;
        for generation in [1, 2] {
            build(lab, generation)?;
        }
        let mut archive = Self {
            lab,
            url: format!("http://{HOST}/debian/"),
            nginx: None,
        };
        durable::create_folder(&lab.folder().join("site"))?;
        archive.flip(1)?;
        archive.nginx = Some(serve(lab)?);
        Ok(archive)
    }

    /// Serves another generation from the next request on.
    ///
    /// # Errors
    /// When the folder cannot be changed.
    pub(crate) fn flip(&self, to: usize) -> Result<()> {
        flip(self.lab, to)
    }

    /// Stops the web server.
    pub(crate) fn stop(&mut self) {
        self.nginx = None;
    }

    /// The public key that signs it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn public_key(&self) -> Result<Vec<u8>> {
        fs::read(self.lab.folder().join("signer.gpg")).context("no public key")
    }

    /// Every request so far, in order.
    ///
    /// # Errors
    /// When the log has a line that nginx did not finish.
    pub(crate) fn requests(&self) -> Result<Vec<Request>> {
        requests(self.lab)
    }

    /// The file of a package in a generation.
    pub(crate) fn package(&self, name: &str, number: usize) -> PathBuf {
        generation(self.lab, number)
            .join("pool")
            .join(file_name(name, number))
    }
}

/// See [`Archive::flip`].
pub(crate) fn flip(lab: &Lab, to: usize) -> Result<()> {
    let site = lab.folder().join("site");
    let new = site.join("next");
    std::os::unix::fs::symlink(generation(lab, to), &new).context("no link")?;
    durable::rename(&new, &site.join("debian"))?;
    Ok(())
}

fn generation(lab: &Lab, number: usize) -> PathBuf {
    lab.folder().join(format!("generation-{number}"))
}

/// The library is the same in both.
fn file_name(name: &str, generation: usize) -> String {
    let version = if name == "lab-library" { 1 } else { generation };
    format!("{name}_{version}.0+lab_amd64.deb")
}

fn build(lab: &Lab, number: usize) -> Result<()> {
    let site = generation(lab, number);
    durable::create_folder(&site.join("pool"))?;
    for name in PACKAGES {
        let tree = lab.folder().join(format!("tree-{name}-{number}"));
        durable::create_folder(&tree.join("DEBIAN"))?;
        durable::create_folder(&tree.join("usr/share").join(name))?;
        let version = if name == "lab-library" { 1 } else { number };
        let depends = if name == "lab-tool" {
            "Depends: lab-library\n"
        } else {
            ""
        };
        let control = format!(
            "Package: {name}\nVersion: {version}.0+lab\nArchitecture: amd64\nMaintainer: Lab <lab@lab.example>\n{depends}Description: {}\n",
            "a package of the lab ".repeat(version)
        );
        durable::write(&tree.join("DEBIAN/control"), control.as_bytes(), 0o644)?;
        let content = format!("{name} {version}\n").repeat(1000);
        durable::write(
            &tree.join("usr/share").join(name).join("text"),
            content.as_bytes(),
            0o644,
        )?;
        let package = site.join("pool").join(file_name(name, number));
        let argv = [
            "dpkg-deb",
            "--root-owner-group",
            "--build",
            text(&tree)?,
            text(&package)?,
        ];
        said(lab, &argv)?;
    }
    index(lab, &site)?;
    let stable = site.join("dists/stable");
    let release = fs::read_to_string(stable.join("Release")).context("no Release")?;
    durable::write(
        &stable.join("Release"),
        // Sizes differ, so that validators made of time and size do, too.
        format!(
            "Acquire-By-Hash: yes\nDescription: {}\n{release}",
            "changed ".repeat(number)
        )
        .as_bytes(),
        0o644,
    )?;
    sign(lab, &stable)?;
    let binary = stable.join("main/binary-amd64");
    let by_hash = binary.join("by-hash/SHA256");
    durable::create_folder(&by_hash)?;
    for name in ["Packages", "Packages.gz", "Packages.xz"] {
        let content = fs::read(binary.join(name)).context("an index is missing")?;
        durable::write(&by_hash.join(Digest::of(&content).hex()), &content, 0o644)?;
    }
    date(lab, &stable, number)
}

/// Generations differ in their dates: apt asks by date alone, in whole seconds.
fn date(lab: &Lab, stable: &Path, number: usize) -> Result<()> {
    let changed = format!("{number} minutes ago", number = 100 - number);
    let mut argv = vec!["touch", "--date", &changed];
    let documents = ["Release", "InRelease", "Release.gpg"].map(|name| stable.join(name));
    for document in documents.iter().filter(|document| document.exists()) {
        argv.push(text(document)?);
    }
    said(lab, &argv)?;
    Ok(())
}
