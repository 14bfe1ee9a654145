//! Everything that a machine is made of, from the cache or from Debian.

use std::{collections::BTreeMap, path::PathBuf, rc::Rc, time::Duration};

use anyhow::Result;

use super::{
    apt::Apt,
    cache::{Cache, InUse},
    debian::{Architecture, Release},
    kernel::{self, Kernel, Packages},
    machine::Machine,
    root,
    sources::{self, Mirror},
    tools::Tools,
};

/// The cache, and Debian's packages to fill it with.
#[derive(Debug)]
pub struct Supply {
    /// What is there already.
    pub cache: Cache,
    /// The machines' architecture, which is this host's.
    pub architecture: &'static Architecture,
    mirror: Mirror,
    apts: BTreeMap<&'static str, Rc<Apt>>,
}

impl Supply {
    /// Opens the cache and finds the mirror.
    pub fn new() -> Result<Self> {
        Ok(Self {
            architecture: Architecture::host()?,
            mirror: sources::mirror()?,
            cache: Cache::open()?,
            apts: BTreeMap::new(),
        })
    }

    /// Returns the packages of a release.
    pub fn apt(&mut self, release: &'static Release) -> Result<Rc<Apt>> {
        if let Some(apt) = self.apts.get(release.codename) {
            return Ok(apt.clone());
        }
        let directory = self.cache.directory(&format!("apt/{}", release.codename))?;
        let apt = Rc::new(Apt::new(directory, &self.mirror, release)?);
        self.apts.insert(release.codename, apt.clone());
        Ok(apt)
    }

    /// Finds the packages of a kernel.
    pub fn packages(&mut self, kernel: &'static Kernel) -> Result<Packages> {
        let apt = self.apt(kernel.release()?)?;
        kernel.resolve(&apt, self.architecture)
    }

    /// Prepares machines with these kernels and a root file system of `release`.
    pub fn prepare(
        mut self,
        kernels: &[&'static Kernel],
        release: &'static Release,
    ) -> Result<Parts> {
        let tools = Tools::new(&mut self)?;
        let apt = self.apt(release)?;
        let root = root::get(&mut self.cache, &apt, &tools, release)?;
        let kernels = kernels
            .iter()
            .map(|kernel| self.kernel(&tools, kernel))
            .collect::<Result<_>>()?;
        Ok(Parts {
            tools,
            architecture: self.architecture,
            root,
            kernels,
            cache: self.cache.finish()?,
        })
    }

    fn kernel(&mut self, tools: &Tools, kernel: &'static Kernel) -> Result<PreparedKernel> {
        let apt = self.apt(kernel.release()?)?;
        let mut get = || {
            let packages = kernel.resolve(&apt, self.architecture)?;
            Ok(PreparedKernel {
                kernel,
                version: packages.version().to_owned(),
                files: packages.get(&mut self.cache, &apt, tools)?,
            })
        };
        match get() {
            // The mirror may have newer packages instead of those that the lists name.
            Err(_) if apt.renew()? => get(),
            result => result,
        }
    }
}

/// A kernel that can be booted.
#[derive(Debug)]
pub struct PreparedKernel {
    /// The entry in the list of kernels.
    pub kernel: &'static Kernel,
    /// The version of its packages.
    pub version: String,
    files: kernel::Files,
}

/// The parts of machines, which stay in the cache while this exists.
#[derive(Debug)]
pub struct Parts {
    /// The kernels, in the order in which they were asked for.
    pub kernels: Vec<PreparedKernel>,
    tools: Tools,
    architecture: &'static Architecture,
    root: PathBuf,
    cache: InUse,
}

impl Parts {
    /// Assembles a machine with `memory` mebibytes, which may run for `timeout` with KVM.
    pub fn machine<'a>(
        &'a self,
        kernel: &'a PreparedKernel,
        memory: u32,
        timeout: Duration,
    ) -> Machine<'a> {
        Machine {
            tools: &self.tools,
            architecture: self.architecture,
            kernel: &kernel.files,
            root: &self.root,
            cache: &self.cache,
            memory,
            timeout,
        }
    }
}
