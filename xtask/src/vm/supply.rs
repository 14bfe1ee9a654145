//! Everything that a machine is made of, from the cache or from Debian.

use std::{collections::BTreeMap, path::PathBuf, rc::Rc};

use anyhow::Result;

use super::{
    apt::Apt,
    cache::{Cache, InUse},
    debian::{Architecture, Release},
    kernel::{self, Kernel, Packages},
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

    /// The packages of a release.
    pub fn apt(&mut self, release: &'static Release) -> Result<Rc<Apt>> {
        if let Some(apt) = self.apts.get(release.codename) {
            return Ok(apt.clone());
        }
        let directory = self.cache.directory(&format!("apt/{}", release.codename))?;
        let apt = Rc::new(Apt::new(directory, &self.mirror, release)?);
        self.apts.insert(release.codename, apt.clone());
        Ok(apt)
    }

    /// The programs.
    pub fn tools(&mut self) -> Result<Tools> {
        Tools::new(self)
    }

    /// The packages of a kernel.
    pub fn packages(&mut self, kernel: &'static Kernel) -> Result<Packages> {
        let apt = self.apt(kernel.release()?)?;
        kernel.resolve(&apt, self.architecture)
    }

    /// The files of a kernel.
    pub fn kernel(&mut self, tools: &Tools, kernel: &'static Kernel) -> Result<kernel::Files> {
        let apt = self.apt(kernel.release()?)?;
        let mut get = || {
            let packages = kernel.resolve(&apt, self.architecture)?;
            packages.get(&mut self.cache, &apt, tools)
        };
        match get() {
            // The mirror may have newer packages instead of those that the lists name.
            Err(_) if apt.renew()? => get(),
            result => result,
        }
    }

    /// The image of a release's root file system.
    pub fn root(&mut self, tools: &Tools, release: &'static Release) -> Result<PathBuf> {
        let apt = self.apt(release)?;
        root::get(&mut self.cache, &apt, tools, release)
    }

    /// Ends adding to the cache.
    pub fn finish(self) -> Result<InUse> {
        self.cache.finish()
    }
}
