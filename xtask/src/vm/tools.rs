//! The programs that make and run virtual machines: the host's own, or Debian's packages of them,
//! unpacked into the cache.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    apt::Apt,
    debian::{self, Architecture},
    supply::Supply,
};
use crate::{setup, shell};

/// Programs besides the emulator and busybox, and their packages.
const PROGRAMS: [(&str, &str); 7] = [
    ("mmdebstrap", "mmdebstrap"),
    ("mmtarfilter", "mmdebstrap"),
    ("mke2fs", "e2fsprogs"),
    ("depmod", "kmod"),
    ("modprobe", "kmod"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
];
const BUSYBOX: (&str, &str) = ("busybox", "busybox-static");

/// Packages that are never unpacked beside the host's own: what they have must fit the host's.
const NEVER: [&str; 4] = ["apt", "dpkg", "libc6", "libc-bin"];

/// The programs that make and run virtual machines.
#[derive(Debug)]
pub struct Tools {
    /// Unpacked packages, if some programs are not the host's.
    unpacked: Option<PathBuf>,
    architecture: &'static Architecture,
}

impl Tools {
    /// Finds the programs, and gets those that the host lacks.
    pub fn new(supply: &mut Supply) -> Result<Self> {
        let architecture = supply.architecture;
        let missing = missing(architecture);
        if missing.is_empty() {
            return Ok(Self {
                unpacked: None,
                architecture,
            });
        }
        let codename = debian::host_codename().unwrap_or_default();
        // The packages must fit the host's, so that another release of it needs others.
        let recipe = format!("{codename} {missing:?}");
        let unpacked = match supply.cache.find("tools", &recipe) {
            Some(unpacked) => unpacked,
            None => {
                let mut packages = missing.iter().map(|missing| missing.1).collect::<Vec<_>>();
                packages.dedup();
                let release = debian::release(&codename).ok().with_context(|| {
                    format!(
                        "vm: programs are missing; install what Debian calls {}",
                        packages.join(", ")
                    )
                })?;
                let apt = supply.apt(release)?;
                supply.cache.get("tools", &recipe, |directory| {
                    unpack(&apt, &packages, directory)?;
                    let mut programs = missing.iter();
                    programs.try_for_each(|(program, _)| link(directory, program))
                })?
            }
        };
        Ok(Self {
            unpacked: Some(unpacked),
            architecture,
        })
    }

    /// A program that can be started.
    pub fn command(&self, program: &str) -> Command {
        let Some((unpacked, private)) = self.private(program) else {
            return Command::new(shell::find(program).unwrap_or_else(|| program.into()));
        };
        let mut command = Command::new(private);
        command.env("LD_LIBRARY_PATH", self.library_path(unpacked));
        command
    }

    /// A program that can be started as root and finds the others.
    pub fn command_as_root(&self, program: &str) -> Result<Command> {
        let path = env::var_os("PATH").unwrap_or_default();
        let own = self.unpacked.iter().map(|unpacked| programs(unpacked));
        let path = env::join_paths(own.chain(env::split_paths(&path)))?;
        let command = self.command(program);
        // sudo keeps no environment.
        let mut as_root = shell::as_root("env");
        as_root.arg(assignment("PATH", &path));
        // mmdebstrap is a script, and what it starts is the host's.
        let variables = command.get_envs().filter(|_| program != "mmdebstrap");
        for (variable, value) in variables {
            as_root.arg(assignment(variable, value.unwrap_or_default()));
        }
        as_root.arg(command.get_program());
        Ok(as_root)
    }

    /// A busybox that needs no libraries.
    pub fn busybox(&self) -> PathBuf {
        match self.private(BUSYBOX.0) {
            Some((_, private)) => private,
            None => shell::find(BUSYBOX.0).unwrap_or_else(|| BUSYBOX.0.into()),
        }
    }

    /// The emulator.
    pub fn qemu(&self) -> Command {
        let mut command = self.command(self.architecture.qemu);
        if let Some((unpacked, _)) = self.private(self.architecture.qemu) {
            for directory in ["usr/share/qemu", "usr/share/seabios"] {
                command.arg("-L").arg(unpacked.join(directory));
            }
        }
        command
    }

    /// The unpacked packages and the program among them, if it is not the host's.
    fn private(&self, program: &str) -> Option<(&Path, PathBuf)> {
        let unpacked = self.unpacked.as_deref()?;
        let private = programs(unpacked).join(program);
        private.exists().then_some((unpacked, private))
    }

    fn library_path(&self, unpacked: &Path) -> String {
        let directories = fs::read_dir(unpacked.join("usr/lib")).into_iter().flatten();
        let triplets = directories
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.ends_with("-linux-gnu"));
        let root = unpacked.display();
        triplets
            .flat_map(|triplet| {
                [
                    format!("{root}/usr/lib/{triplet}"),
                    format!("{root}/lib/{triplet}"),
                ]
            })
            .collect::<Vec<_>>()
            .join(":")
    }
}

fn assignment(variable: impl AsRef<OsStr>, value: &OsStr) -> OsString {
    let mut assignment = variable.as_ref().to_owned();
    assignment.push("=");
    assignment.push(value);
    assignment
}

/// Where links to the programs are.
fn programs(unpacked: &Path) -> PathBuf {
    unpacked.join("programs")
}

/// The programs that the host lacks, and their packages.
fn missing(architecture: &Architecture) -> Vec<(&'static str, &'static str)> {
    let mut missing = [(architecture.qemu, architecture.qemu_package)]
        .into_iter()
        .chain(PROGRAMS)
        .filter(|(program, _)| shell::find(program).is_none())
        .collect::<Vec<_>>();
    // There is another busybox, which needs libraries.
    if !setup::is_installed(BUSYBOX.1) {
        missing.push(BUSYBOX);
    }
    missing
}

/// Downloads packages with what they depend on and unpacks them.
fn unpack(apt: &Apt, packages: &[&str], directory: &Path) -> Result<()> {
    let archives = directory.join("archives");
    apt.download_missing(packages, &archives)?;
    for entry in fs::read_dir(&archives)?.flatten() {
        let file = entry.path();
        if file.extension().is_none_or(|extension| extension != "deb") {
            continue;
        }
        let fields = shell::output(
            Command::new("dpkg-deb")
                .args(["--showformat=${Package} ${Essential}", "--show"])
                .arg(&file),
        );
        let fields = fields.with_context(|| format!("{} is damaged", file.display()))?;
        let (name, essential) = fields.split_once(' ').unwrap_or((&fields, ""));
        if essential.trim() != "yes" && !NEVER.contains(&name) {
            extract(&file, directory)?;
        }
    }
    fs::remove_dir_all(archives)?;
    Ok(())
}

/// Unpacks the files of a package.
pub fn extract(package: &Path, directory: &Path) -> Result<()> {
    let mut command = Command::new("dpkg-deb");
    shell::run_quietly(command.arg("--extract").arg(package).arg(directory))
}

/// Makes a link to a program of the unpacked packages, whose own links hold for an installed
/// package.
fn link(unpacked: &Path, program: &str) -> Result<()> {
    let directories = ["usr/bin", "usr/sbin", "bin", "sbin"];
    let mut files = directories
        .map(|directory| unpacked.join(directory).join(program))
        .into_iter();
    let mut file = files
        .find(|file| file.symlink_metadata().is_ok())
        .with_context(|| format!("no package has {program}"))?;
    if let Ok(target) = fs::read_link(&file) {
        file = match target.strip_prefix("/") {
            Ok(target) => unpacked.join(target),
            Err(_) => file.with_file_name(target),
        };
    }
    ensure!(file.exists(), "{program} leads to nothing");
    let relative = Path::new("..").join(file.strip_prefix(unpacked)?);
    fs::create_dir_all(programs(unpacked))?;
    Ok(symlink(relative, programs(unpacked).join(program))?)
}
