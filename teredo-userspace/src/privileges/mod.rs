//! The privileges of the process, and the change to the user of `node.user`.

pub mod capabilities;

use std::{collections::HashSet, ffi::CString, io};

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability};
use nix::{
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
    },
    unistd::{Gid, Uid, User, getegid, geteuid, initgroups, setegid, seteuid, setgid, setuid},
};
use thiserror::Error;

use crate::config::Config;

/// The reason why the daemon cannot change to the user. Each is a sentence with the remedy.
#[derive(Debug, Error)]
pub enum Refusal {
    /// The user does not exist.
    #[error(
        "node.user = \"{0}\" is not a user of this host: `useradd --system {0}`, or set another"
    )]
    Unknown(String),
    /// Only root may change the user.
    #[error("only root can become node.user = \"{0}\": start as root, or set node.user = \"\"")]
    NotRoot(String),
    /// Only root may access the BPF file system.
    #[error(
        "node.user = \"{user}\" needs {keys} = false: pins are root's, and {user} could not remove \
         them at the end; set either"
    )]
    Pins {
        /// The user.
        user: String,
        /// The keys of the roles that pin.
        keys: &'static str,
    },
}

/// A change of user: the user to become and the capabilities to keep.
#[derive(Debug)]
pub struct UserChange {
    user: User,
    keep: HashSet<Capability>,
}

/// Returns the change to the configured user, or `None` if the daemon keeps its user.
///
/// # Errors
///
/// When the change is impossible.
pub fn plan_user_change(config: &Config) -> Result<Option<UserChange>, Refusal> {
    let name = &config.node.user;
    if name.is_empty() {
        return Ok(None);
    }
    let user = match User::from_name(name) {
        Ok(Some(user)) => user,
        _ => return Err(Refusal::Unknown(name.clone())),
    };
    if user.uid == Uid::effective() && !user.uid.is_root() {
        return Ok(None);
    }
    if !Uid::effective().is_root() {
        return Err(Refusal::NotRoot(name.clone()));
    }
    let pins = config.fast_path().filter(|fast_path| fast_path.pin);
    if let Some(fast_path) = pins
        && !user.uid.is_root()
    {
        return Err(Refusal::Pins {
            user: name.clone(),
            keys: fast_path.pin_keys(),
        });
    }
    let keep = capabilities::needed(config).into_iter().collect();
    Ok(Some(UserChange { user, keep }))
}

impl UserChange {
    /// Returns the user as the owner of files.
    #[must_use]
    pub fn owner(&self) -> Owner {
        Owner {
            uid: self.user.uid,
            gid: self.user.gid,
        }
    }

    /// Becomes the user for good, with only the needed capabilities.
    ///
    /// Capabilities belong to threads: call this before there is a second one.
    ///
    /// # Errors
    ///
    /// When the kernel refuses. The change may be incomplete then, so the process should end.
    pub fn carry_out(self) -> Result<()> {
        let name = self.user.name.clone();
        self.change()
            .with_context(|| format!("cannot become {name}"))
    }

    fn change(self) -> Result<()> {
        if self.user.uid.is_root() {
            return Ok(());
        }
        for capability in caps::read(None, CapSet::Bounding)? {
            if !self.keep.contains(&capability) {
                caps::drop(None, CapSet::Bounding, capability)?;
            }
        }
        caps::securebits::set_keepcaps(true)?;
        initgroups(&CString::new(self.user.name)?, self.user.gid)?;
        setgid(self.user.gid)?;
        setuid(self.user.uid)?;
        caps::securebits::set_keepcaps(false)?;
        caps::set(None, CapSet::Effective, &self.keep)?;
        caps::set(None, CapSet::Permitted, &self.keep)?;
        caps::set(None, CapSet::Inheritable, &HashSet::new())?;
        prctl::set_no_new_privs()?;
        Ok(())
    }
}

/// The user and group that will own a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: Uid,
    /// The group.
    pub gid: Gid,
}

impl Owner {
    /// Calls `work` with the rights of this user. To be called by root, before there is a second
    /// thread.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a change of the effective user or group.
    pub fn act<T>(self, work: impl FnOnce() -> T) -> io::Result<T> {
        let (uid, gid) = (geteuid(), getegid());
        setegid(self.gid)?;
        let result = seteuid(self.uid).map(|()| work());
        seteuid(uid)?;
        setegid(gid)?;
        Ok(result?)
    }
}

/// Raises the limit of open files as far as the process may. The API, the roles and the looks at the
/// host share it, and the usual limit of 1024 is for programs that call `select`.
pub fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::debug!("cannot raise the limit of open files: {error}");
    }
}
