//! Host names that only one process knows.

use std::{
    ffi::CString,
    fs, io,
    os::unix::{ffi::OsStrExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
};

use anyhow::Result;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use tempfile::TempDir;

/// The files of the resolver, which a process may see in place of the host's.
#[derive(Debug)]
pub struct Names(TempDir);

impl Names {
    /// Creates files without names, and without servers that know others.
    ///
    /// # Errors
    ///
    /// Fails when the files cannot be written.
    pub fn new() -> Result<Self> {
        let names = Self(tempfile::tempdir()?);
        fs::write(names.0.path().join("resolv.conf"), "")?;
        names.set("")?;
        Ok(names)
    }

    /// Sets the names to those of the text, in the form of `/etc/hosts`.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be written.
    pub fn set(&self, hosts: &str) -> Result<()> {
        // In place, as it may be mounted.
        Ok(fs::write(self.0.path().join("hosts"), hosts)?)
    }

    /// Sets the servers that know other names, as in `/etc/resolv.conf`.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be written.
    pub fn set_servers(&self, servers: &str) -> Result<()> {
        Ok(fs::write(self.0.path().join("resolv.conf"), servers)?)
    }

    /// Makes a command see these files.
    ///
    /// # Errors
    ///
    /// Fails when a path contains a zero octet.
    pub fn prepare(&self, command: &mut Command) -> Result<()> {
        let path = |path: &Path| CString::new(path.as_os_str().as_bytes());
        let mounts = [
            (path(&self.0.path().join("hosts"))?, c"/etc/hosts"),
            (
                path(&self.0.path().join("resolv.conf"))?,
                c"/etc/resolv.conf",
            ),
        ];
        const NOTHING: Option<&std::ffi::CStr> = None;
        let apart = move || {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(NOTHING, c"/", NOTHING, private, NOTHING)?;
            for (from, to) in &mounts {
                mount(Some(&**from), *to, NOTHING, MsFlags::MS_BIND, NOTHING)?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec only system calls are made, without allocation.
        unsafe {
            command.pre_exec(move || apart().map_err(|errno: nix::Error| io::Error::from(errno)));
        }
        Ok(())
    }
}
