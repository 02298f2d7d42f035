//! A blob that no file of FAT32 can hold: cut, carried in any order, put together, and served as it was.
//!
//! All of it is on a btrfs that compresses, so that three times 5 GiB of holes are a few hundred megabytes of the machine's disk. The file
//! is not all zeros: what stands at its ends and on both sides of the largest size of a file tells one part from another.

/// Needs root: a file system is mounted.
mod as_root {
    use std::{
        fs,
        os::unix::fs::FileExt,
        path::{Path, PathBuf},
        process::Output,
        time::Duration,
    };

    use anyhow::{Context, Result, ensure};
    use integration_tests::{
        command,
        proxy::{Proxy, Settings, program},
        static_server::StaticServer,
    };
    use kato_shared::durable;
    use tempfile::TempDir;

    use crate::only;

    /// Long beside one pass over the blob on a busy machine.
    const PASS: Duration = Duration::from_secs(240);

    const BLOB: u64 = 5 << 30;

    /// The largest file of FAT32, in bytes.
    const LARGEST: u64 = 4_294_967_295;

    /// A file system with room for several blobs, unmounted when dropped.
    struct Roomy {
        mounted: PathBuf,
        _folder: TempDir,
    }

    impl Roomy {
        fn mount() -> Result<Self> {
            let folder = tempfile::tempdir()?;
            let (image, mounted) = (folder.path().join("image"), folder.path().join("mounted"));
            durable::create_new(&image)?.set_len(12 * BLOB)?;
            fs::create_dir(&mounted)?;
            let [image, at] = [&image, &mounted].map(|path| path.display().to_string());
            command::ok(&["mkfs.btrfs", "--quiet", &image])?;
            command::ok(&["mount", "-o", "loop,compress-force=lzo", &image, &at])?;
            Ok(Self {
                mounted,
                _folder: folder,
            })
        }

        fn at(&self, name: &str) -> String {
            self.mounted.join(name).display().to_string()
        }

        /// A proxy with its store here.
        fn proxy(&self, store: &str, origin: &StaticServer) -> Settings {
            Settings::new(&self.mounted.join(store)).upstream("pkg", origin.url().as_str())
        }

        /// A bundle of the store `here`, as on a medium whose files are no larger than those of FAT32; returns its folder.
        fn export(&self, kato_proxy: &str) -> Result<PathBuf> {
            let [key, public, out, here] = ["key", "key.pub", "out", "here"].map(|name| self.at(name));
            let pair = ["--secret", &key, "--public", &public];
            command::ok(&[&[kato_proxy, "bundle", "keygen"][..], &pair].concat())?;
            let mut limited = command::new("prlimit");
            limited
                .arg(format!("--fsize={LARGEST}"))
                .args([kato_proxy, "bundle", "export", "--cache-dir", &here])
                .args(["--series", "test", "--key", &key, "--out", &out])
                .args(["--waive", "a test", "--volume", "fat32"]);
            command::success("export", command::run(limited, PASS, &[])?)?;
            only(Path::new(&out))
        }

        /// What is there of `bundle` comes into the store `there`.
        fn import(&self, kato_proxy: &str, bundle: &Path) -> Result<Output> {
            let mut program = command::new(kato_proxy);
            program
                .args(["bundle", "import", "--cache-dir", &self.at("there")])
                .args(["--trust", &self.at("key.pub")])
                .arg(bundle);
            command::run(program, PASS, &[])
        }
    }

    impl Drop for Roomy {
        fn drop(&mut self) {
            command::ok(&["umount", "--lazy", &self.mounted.display().to_string()]).ok();
        }
    }

    fn blob(path: &Path) -> Result<()> {
        let file = durable::create_new(path)?;
        file.set_len(BLOB)?;
        for at in [0, 1 << 20, LARGEST - 3, (4 << 30) + 512, BLOB - 8] {
            file.write_all_at(&u64::to_be_bytes(at + 1), at)?;
        }
        Ok(())
    }

    async fn fetch(proxy: &Proxy, to: &str) -> Result<()> {
        let url = format!("http://{}/pkg/disk.img", proxy.data);
        let mut curl = command::new("curl");
        curl.args(["-sSf", "-o", to, &url]);
        let fetched = tokio::task::spawn_blocking(move || command::run(curl, PASS, &[]));
        command::success("curl", fetched.await??).map(drop)
    }

    /// The volumes in `bundle`; no file in it is larger than FAT32 holds.
    fn volumes(bundle: &Path) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for item in fs::read_dir(bundle)? {
            let path = item?.path();
            let size = fs::metadata(&path)?.len();
            ensure!(size <= LARGEST, "{} has {size} bytes", path.display());
            if path.extension().is_some_and(|end| end == "tar") {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }

    /// Asks a new store for the blob, and waits until it is kept.
    async fn record(settings: Settings) -> Result<()> {
        let mut proxy = settings.start().await?;
        fetch(&proxy, "/dev/null").await?;
        proxy
            .wait_for_stats(|stats| stats.queued_responses == 0 && stats.stored_bytes >= BLOB)
            .await?;
        proxy.terminate()?;
        proxy.ended().await.map(drop)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn five_gibibytes_travel_in_files_of_fat32_that_come_one_by_one_from_the_last() -> Result<()> {
        let disk = Roomy::mount()?;
        let source = disk.mounted.join("origin");
        fs::create_dir(&source)?;
        blob(&source.join("disk.img"))?;
        let origin = StaticServer::start(&source).await?;
        record(disk.proxy("here", &origin)).await?;

        let kato_proxy = program()?.display().to_string();
        let bundle = disk.export(&kato_proxy)?;
        fs::remove_dir_all(disk.at("here"))?;
        let parts = volumes(&bundle)?;
        ensure!(parts.len() == 2, "{parts:?}");
        let [aside, seen] = ["aside", "seen"].map(|name| disk.mounted.join(name));
        durable::rename(&parts[0], &aside)?;
        let first = disk.import(&kato_proxy, &bundle)?;
        let said = String::from_utf8_lossy(&first.stdout);
        let dropped = parts[0].file_name().context("a volume has a name")?;
        let is_named = said.contains(&dropped.display().to_string());
        ensure!(!first.status.success() && is_named, "{first:?}");
        durable::rename(&parts[1], &seen)?;
        durable::rename(&aside, &parts[0])?;
        let second = disk.import(&kato_proxy, &bundle)?;
        ensure!(second.status.success(), "{second:?}");
        fs::remove_dir_all(disk.at("out"))?;

        let before = origin.total();
        let settings = disk.proxy("there", &origin).arguments(&["--offline"]);
        let mirror = settings.start().await?;
        let body = disk.at("body");
        fetch(&mirror, &body).await?;
        let mut cmp = command::new("cmp");
        cmp.arg(source.join("disk.img")).arg(&body);
        command::success("cmp", command::run(cmp, PASS, &[])?)?;
        ensure!(origin.total() == before, "the origin was asked");
        Ok(())
    }
}
