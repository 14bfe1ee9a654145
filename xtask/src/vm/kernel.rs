//! Debian's kernels.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    apt::{Apt, Package},
    cache::Cache,
    debian::{self, Architecture, Release},
    initrd, stanza,
    tools::{self, Tools},
};
use crate::shell;

/// A kernel, by the suite that has it.
#[derive(Debug, Eq, PartialEq)]
pub struct Kernel {
    /// The suite's name.
    pub name: &'static str,
    /// The codename of the release that the suite belongs to.
    release: &'static str,
    /// Whether teredo runs on it.
    pub is_supported: bool,
}

const fn kernel(name: &'static str, release: &'static str) -> Kernel {
    Kernel {
        name,
        release,
        is_supported: true,
    }
}

/// The kernels, from the oldest on.
pub const KERNELS: &[Kernel] = &[
    // Its kernel has no compare-and-exchange for eBPF programs.
    Kernel {
        is_supported: false,
        ..kernel("bullseye", "bullseye")
    },
    kernel("bookworm", "bookworm"),
    kernel("bookworm-backports", "bookworm"),
    kernel("trixie", "trixie"),
    kernel("trixie-backports", "trixie"),
    kernel("sid", "sid"),
];

/// Directories of modules that no virtual machine needs.
const USELESS: [&str; 10] = [
    "drivers/gpu",
    "drivers/media",
    "drivers/infiniband",
    "drivers/iio",
    "drivers/staging",
    "drivers/usb",
    "drivers/hid",
    "drivers/comedi",
    "drivers/net/wireless",
    "sound",
];

impl Kernel {
    /// The kernel of this name.
    pub fn named(name: &str) -> Result<&'static Self> {
        let find = |kernel: &&Self| kernel.name == name;
        KERNELS.iter().find(find).with_context(|| {
            let names = KERNELS.iter().map(|kernel| kernel.name);
            let names = names.collect::<Vec<_>>().join(", ");
            format!("there is no kernel {name}; there are {names}")
        })
    }

    /// The release that the suite belongs to.
    pub fn release(&self) -> Result<&'static Release> {
        debian::release(self.release)
    }

    /// Finds its packages: the first one depends on those that have the files.
    pub fn resolve(&'static self, apt: &Apt, architecture: &Architecture) -> Result<Packages> {
        // Updates and security updates come before the release, backports do not.
        let from = Some(self.name).filter(|name| *name != self.release);
        let mut packages: Vec<Package> = Vec::new();
        let mut names = vec![architecture.kernel.to_owned()];
        while let Some(name) = names.pop() {
            if packages.iter().any(|package| package.name == name) {
                continue;
            }
            let fields = apt
                .show(&name, from)?
                .with_context(|| format!("{} has no package {name}", self.name))?;
            packages.push(Package::new(&fields)?);
            let depends = stanza::dependencies(fields.get("Depends").unwrap_or_default());
            names.extend(depends.into_iter().filter(|name| is_part(name)));
        }
        ensure!(
            packages.len() > 1,
            "{} of {} depends on no kernel",
            architecture.kernel,
            self.name
        );
        Ok(Packages {
            kernel: self,
            packages: packages.split_off(1),
        })
    }
}

/// Whether a package is a kernel or a part of one.
fn is_part(name: &str) -> bool {
    let parts = [
        "linux-image-",
        "linux-binary-",
        "linux-modules-",
        "linux-base-",
    ];
    parts.iter().any(|part| name.starts_with(part))
}

/// The packages of a kernel.
#[derive(Debug)]
pub struct Packages {
    kernel: &'static Kernel,
    packages: Vec<Package>,
}

impl Packages {
    /// The version of Debian's packages.
    pub fn version(&self) -> &str {
        &self.packages[0].version
    }

    fn directory(&self) -> String {
        format!("kernels/{}", self.kernel.name)
    }

    /// All that the files depend on.
    fn recipe(&self) -> String {
        format!("{:?} {} {USELESS:?}", self.packages, initrd::INIT)
    }

    /// The files in the cache, if they are there.
    pub fn find(&self, cache: &Cache) -> Option<Files> {
        let directory = cache.find(&self.directory(), &self.recipe())?;
        Some(Files { directory })
    }

    /// The files in the cache; downloaded and made if they are not there.
    pub fn get(&self, cache: &mut Cache, apt: &Apt, tools: &Tools) -> Result<Files> {
        let build = |directory: &Path| {
            let archives = directory.join("archives");
            fs::create_dir_all(&archives)?;
            apt.download(&self.packages, &archives)?;
            let unpacked = directory.join("unpacked");
            for entry in fs::read_dir(&archives)?.flatten() {
                tools::extract(&entry.path(), &unpacked)?;
            }
            pack(tools, &unpacked, directory)?;
            fs::remove_dir_all(archives)?;
            Ok(fs::remove_dir_all(unpacked)?)
        };
        let directory = cache.get(&self.directory(), &self.recipe(), build)?;
        Ok(Files { directory })
    }
}

/// The files of a kernel.
#[derive(Clone, Debug)]
pub struct Files {
    directory: PathBuf,
}

impl Files {
    /// The kernel itself.
    pub fn image(&self) -> PathBuf {
        self.directory.join("vmlinuz")
    }

    /// What it runs first.
    pub fn initrd(&self) -> PathBuf {
        self.directory.join("initrd")
    }

    /// A file system with its modules.
    pub fn modules(&self) -> PathBuf {
        self.directory.join("modules.img")
    }
}

/// Makes the files of a kernel's unpacked packages.
fn pack(tools: &Tools, unpacked: &Path, directory: &Path) -> Result<()> {
    // depmod and modprobe look for modules below lib, to which packages add usr since trixie.
    let merged = unpacked.join("usr/lib/modules");
    if merged.exists() {
        fs::create_dir_all(unpacked.join("lib"))?;
        fs::rename(merged, unpacked.join("lib/modules"))?;
    }
    let all = unpacked.join("lib/modules");
    let mut entries = fs::read_dir(&all).with_context(|| "the packages have no modules")?;
    let modules = entries.next().context("the packages have no modules")??;
    let release = modules.file_name().to_string_lossy().into_owned();
    let modules = modules.path();
    let files = Files {
        directory: directory.to_owned(),
    };
    let images = [
        unpacked.join(format!("boot/vmlinuz-{release}")),
        modules.join("vmlinuz"),
    ];
    let image = images.iter().find(|image| image.exists());
    fs::rename(image.context("the packages have no kernel")?, files.image())?;
    for useless in USELESS {
        let _ = fs::remove_dir_all(modules.join("kernel").join(useless));
    }
    for link in ["build", "source"] {
        let _ = fs::remove_file(modules.join(link));
    }
    shell::run_quietly(
        tools
            .command("depmod")
            .arg("--basedir")
            .arg(unpacked)
            .arg(&release),
    )?;
    fs::write(files.initrd(), initrd::build(tools, unpacked, &release)?)?;
    shell::run_quietly(
        tools
            .command("mke2fs")
            .args(["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0"])
            .arg("-d")
            .arg(&modules)
            .arg(files.modules())
            .arg(format!("{}M", image_size(&modules)?)),
    )
}

/// Mebibytes of a file system that holds a directory.
fn image_size(directory: &Path) -> Result<u64> {
    let mut size = 0;
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                directories.push(entry.path());
            }
            // Files take whole blocks.
            size += metadata.len().next_multiple_of(4096);
        }
    }
    Ok(size / (1 << 20) * 9 / 8 + 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_parts_of_a_kernel() {
        for part in [
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-binary-7.3.4+deb13-cloud-amd64",
            "linux-modules-7.3.4+deb13-cloud-amd64",
            "linux-base-7.3.4+deb13-cloud-amd64",
        ] {
            assert!(is_part(part), "{part}");
        }
        for other in ["linux-base", "kmod", "linux-initramfs-tool"] {
            assert!(!is_part(other), "{other}");
        }
    }
}
