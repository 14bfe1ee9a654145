//! The privileges of the process, and the change to the user of `node.user`.

pub mod capabilities;

use std::{collections::HashSet, ffi::CString, fs, os::unix::fs::DirBuilderExt as _};

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability};
use nix::{
    sys::prctl,
    unistd::{Uid, User, chown, initgroups, setgid, setuid},
};
use thiserror::Error;

use crate::config::{ApiAddress, Config};

/// The mode of directories that are made for the user.
const DIRECTORY_MODE: u32 = 0o755;

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
    /// Makes the directories of the API's sockets, then becomes the user for good, with only the
    /// needed capabilities.
    ///
    /// Capabilities belong to threads: call this before there is a second one.
    ///
    /// # Errors
    ///
    /// When the kernel refuses. The change may be incomplete then, so the process should end.
    pub fn carry_out(self, config: &Config) -> Result<()> {
        self.make_directories(config)?;
        let name = self.user.name.clone();
        self.change()
            .with_context(|| format!("cannot become {name}"))
    }

    fn make_directories(&self, config: &Config) -> Result<()> {
        for address in &config.node.api {
            let ApiAddress::Unix(path) = address else {
                continue;
            };
            let Some(directory) = path.parent() else {
                continue;
            };
            if !directory.exists() {
                let uid = Some(self.user.uid);
                fs::DirBuilder::new()
                    .mode(DIRECTORY_MODE)
                    .create(directory)
                    .and_then(|()| Ok(chown(directory, uid, Some(self.user.gid))?))
                    .with_context(|| format!("cannot make {}", directory.display()))?;
            }
        }
        Ok(())
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
