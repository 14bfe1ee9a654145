//! What virtual machines are made of, outside of the repository.

use std::{
    env,
    fs::{self, File, TryLockError},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};

use crate::shell;

/// The variable that names another directory for the cache.
const VARIABLE: &str = "TEREDO_VM_CACHE";
/// Mebibytes that building a kernel's or a root's image may take.
const SPACE: u64 = 1500;
/// How long older versions are kept, which another checkout of the repository may use.
const KEPT: Duration = Duration::from_secs(3 * 24 * 60 * 60);
/// Where something is made before it has its name.
const SCRATCH: &str = "scratch";
/// Where running machines have files.
const RUNS: &str = "runs";

/// The cache while this process adds to it. Others wait for that.
#[derive(Debug)]
pub struct Cache {
    directory: PathBuf,
    _adding: File,
    /// Directories that have not been used for [`KEPT`].
    stale: Vec<PathBuf>,
}

/// The cache while this process uses what is in it: nothing of that is removed.
#[derive(Debug)]
pub struct InUse {
    runs: PathBuf,
    _using: File,
}

impl InUse {
    /// A directory for the files of running machines.
    pub fn runs(&self) -> &Path {
        &self.runs
    }
}

impl Cache {
    /// Opens the cache, and waits while another process adds to it.
    pub fn open() -> Result<Self> {
        let directory = directory()?;
        let create = || -> Result<File> {
            fs::create_dir_all(&directory)?;
            lock_file(&directory, "adding")
        };
        let adding = create().with_context(|| {
            format!(
                "{} cannot be used; {VARIABLE} names another directory",
                directory.display()
            )
        })?;
        if let Err(TryLockError::WouldBlock) = adding.try_lock() {
            eprintln!("vm: waiting for another process that prepares virtual machines");
            adding.lock()?;
        }
        // Another process has ended in the middle of something.
        let _ = fs::remove_dir_all(directory.join(SCRATCH));
        Ok(Self {
            directory,
            _adding: adding,
            stale: Vec::new(),
        })
    }

    /// A directory of the cache, made if there is none.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let directory = self.directory.join(name);
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }

    /// The directory that `build` makes of a recipe, if it has been made.
    pub fn find(&self, name: &str, recipe: &str) -> Option<PathBuf> {
        Some(self.place(name, recipe)).filter(|place| place.exists())
    }

    /// The directory that `build` makes of a recipe; made now if it has not been made.
    pub fn get(
        &mut self,
        name: &str,
        recipe: &str,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let place = self.place(name, recipe);
        if !place.exists() {
            self.ensure_space()?;
            // Below the cache, since /tmp may be small, and one can rename from there.
            let scratch = self.directory(SCRATCH)?;
            let scratch = tempfile::tempdir_in(scratch)?;
            build(scratch.path()).with_context(|| format!("{name} cannot be built"))?;
            fs::create_dir_all(self.directory.join(name))?;
            fs::rename(scratch.keep(), &place)?;
        }
        File::open(&place)?.set_modified(SystemTime::now())?;
        let entries = fs::read_dir(self.directory.join(name))?.flatten();
        self.stale.extend(
            entries
                .map(|entry| entry.path())
                .filter(|path| is_old(path)),
        );
        Ok(place)
    }

    fn place(&self, name: &str, recipe: &str) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        recipe.hash(&mut hasher);
        self.directory
            .join(name)
            .join(format!("{:016x}", hasher.finish()))
    }

    fn ensure_space(&self) -> Result<()> {
        let text = shell::output(
            Command::new("df")
                .args(["--output=avail", "--block-size=1M"])
                .arg(&self.directory),
        );
        let free = text.and_then(|text| text.lines().nth(1)?.trim().parse::<u64>().ok());
        ensure!(
            free.is_none_or(|free| free >= SPACE),
            "{} has {} MiB left where {SPACE} MiB may be needed; {VARIABLE} names another \
             directory",
            self.directory.display(),
            free.unwrap_or_default()
        );
        Ok(())
    }

    /// Ends adding. Removes what has not been used for days, unless another process uses the
    /// cache.
    pub fn finish(self) -> Result<InUse> {
        let using = lock_file(&self.directory, "using")?;
        let runs = self.directory.join(RUNS);
        if using.try_lock().is_ok() {
            let _ = fs::remove_dir_all(&runs);
            for directory in &self.stale {
                fs::remove_dir_all(directory)
                    .with_context(|| format!("{}", directory.display()))?;
            }
            using.unlock()?;
        }
        // Nobody else removes anything before: that takes the other lock, too.
        using.lock_shared()?;
        fs::create_dir_all(&runs)?;
        Ok(InUse {
            runs,
            _using: using,
        })
    }
}

/// Whether a directory has not been used for [`KEPT`].
fn is_old(directory: &Path) -> bool {
    let used = fs::metadata(directory).and_then(|metadata| metadata.modified());
    let age = used.ok().and_then(|used| used.elapsed().ok());
    age.is_some_and(|age| age > KEPT)
}

fn lock_file(directory: &Path, name: &str) -> Result<File> {
    let mut options = File::options();
    let options = options.create(true).truncate(false).write(true);
    Ok(options.open(directory.join(format!("{name}.lock")))?)
}

fn directory() -> Result<PathBuf> {
    if let Some(directory) = env::var_os(VARIABLE) {
        return Ok(directory.into());
    }
    let caches = shell::home("XDG_CACHE_HOME", ".cache")?;
    Ok(caches.join("teredo-vm"))
}
