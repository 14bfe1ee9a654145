//! The privileges of the process.
//!
//! The daemon begins with those that it was started with. In one phase it reads its keys, binds the
//! sockets of its API and makes its directories; then it gives up everything that its roles do not
//! need, for good, before it looks at the network or has a second thread.

mod act;
pub mod capabilities;
mod places;
pub mod sandbox;
mod successor;
mod user;

use std::path::Path;

use anyhow::{Context as _, Result};
use nix::{
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
    },
    unistd::Uid,
};

pub use act::act_as;
pub use places::prepare;
pub use successor::inherit;
pub use user::{Owner, Refusal, UserChange, has_descriptor_store, plan_user_change};

use crate::config::Config;

/// The remedy for a lack of file descriptors.
pub const MORE_FILES: &str =
    "raise the limit of open files (LimitNOFILE= of the service, or `ulimit -n`)";

/// Gives up every privilege that the daemon does not need any more, also as root, and changes the user.
/// `file` is that of the configuration.
///
/// Privileges belong to threads: call this before there is a second one.
///
/// # Errors
///
/// When the kernel refuses. Some privileges may be gone then, so the process should end.
pub fn give_up(config: &Config, file: &Path, change: Option<UserChange>) -> Result<()> {
    let context = "cannot give up privileges";
    let is_root = change.is_none() && Uid::effective().is_root();
    let keep = capabilities::held(config, is_root).context(context)?;
    match change {
        Some(change) => change.carry_out(&keep)?,
        None => capabilities::bound(&keep).context(context)?,
    }
    capabilities::keep_only(&keep).context(context)?;
    prctl::set_no_new_privs().context(context)?;
    if config.node.sandbox {
        sandbox::enter(config, file);
    }
    Ok(())
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
