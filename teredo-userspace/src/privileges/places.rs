//! The directories, mounts and programs that only root can make.

use std::{fs, os::unix::fs::lchown};

use super::{Owner, has_descriptor_store};
use crate::{
    check,
    config::Config,
    datapath::{sysfs, tun, xdp},
    node::port_mapping_directory,
};

/// Makes and finds out what the daemon of this configuration, running as `owner`, could not later. A
/// failure is told when the missing thing is used.
pub fn prepare(config: &Config, owner: Option<Owner>) {
    if config.fast_path().is_some_and(|wanted| wanted.pin)
        && !has_descriptor_store()
        && let Err(error) = xdp::mount_bpf()
    {
        tracing::debug!("{error}");
    }
    check::remember_owners(config);
    if config.has_tunnel() {
        sysfs::prepare();
    }
    if config
        .relay
        .as_ref()
        .is_some_and(|relay| relay.thread_count() > 1)
    {
        tun::prepare_queues();
    }
    if config
        .client
        .as_ref()
        .is_some_and(|client| client.port_mapping)
    {
        prepare_record(owner);
    }
}

/// Makes the directory of the record of port mappings, unless there is one.
fn prepare_record(owner: Option<Owner>) {
    let directory = port_mapping_directory();
    let made = fs::create_dir(&directory).and_then(|()| match owner {
        Some(owner) => {
            let (uid, gid) = (owner.uid.as_raw(), owner.gid.as_raw());
            lchown(&directory, Some(uid), Some(gid))
        }
        None => Ok(()),
    });
    if let Err(error) = made {
        tracing::debug!("{} was not made: {error}", directory.display());
    }
}
