//! The change to the user of `node.user`.

use std::{collections::HashSet, env, ffi::CString, io};

use anyhow::{Context as _, Result};
use caps::Capability;
use nix::unistd::{Gid, Uid, User, getegid, geteuid, initgroups, setegid, seteuid, setgid, setuid};
use thiserror::Error;

use super::capabilities;
use crate::config::Config;

/// The variable that systemd 254 and later, and our unit, set where there is a file descriptor store.
const STORE: &str = "FDSTORE";

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

/// A change of user.
#[derive(Debug)]
pub struct UserChange(User);

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
    if user.uid == Uid::effective() {
        return Ok(None);
    }
    if !Uid::effective().is_root() {
        return Err(Refusal::NotRoot(name.clone()));
    }
    let pins = config.fast_path().filter(|fast_path| fast_path.pin);
    if let Some(fast_path) = pins
        && !has_descriptor_store()
    {
        return Err(Refusal::Pins {
            user: name.clone(),
            keys: fast_path.pin_keys(),
        });
    }
    Ok(Some(UserChange(user)))
}

/// Returns whether a service manager keeps descriptors for the next process, so that nothing is pinned.
#[must_use]
pub fn has_descriptor_store() -> bool {
    env::var_os(STORE).is_some_and(|places| places != "0")
}

impl UserChange {
    /// Returns the user as the owner of files.
    #[must_use]
    pub fn owner(&self) -> Owner {
        Owner {
            uid: self.0.uid,
            gid: self.0.gid,
        }
    }

    /// Becomes the user for good, still permitted to have the capabilities of `keep`.
    pub(super) fn carry_out(self, keep: &HashSet<Capability>) -> Result<()> {
        let name = self.0.name.clone();
        self.change(keep)
            .with_context(|| format!("cannot become {name}"))
    }

    fn change(self, keep: &HashSet<Capability>) -> Result<()> {
        capabilities::bound(keep)?;
        caps::securebits::set_keepcaps(true)?;
        initgroups(&CString::new(self.0.name)?, self.0.gid)?;
        setgid(self.0.gid)?;
        setuid(self.0.uid)?;
        caps::securebits::set_keepcaps(false)?;
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
