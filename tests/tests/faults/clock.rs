//! Clocks of the daemon that are not those of the kernel.

use std::{io, os::unix::process::CommandExt as _, process::Command};

use anyhow::Result;
use teredo_lab::{Scene, Teredo, Topology, scene::Maker, wait_until};

use super::PATIENCE;

/// The offsets of a container that moved here from a machine that had been up for longer, or less long.
const OFFSETS: [&[u8]; 2] = [
    b"monotonic 86400 5\nboottime 86400 5\n",
    b"monotonic -60 0\nboottime -60 0\n",
];

/// Puts a command into a time namespace.
fn set_clocks(command: &mut Command, offsets: &'static [u8]) {
    // SAFETY: between fork and exec only system calls are made, with constant arguments.
    unsafe {
        command.pre_exec(move || {
            check(libc::unshare(libc::CLONE_NEWTIME))?;
            let file = libc::open(c"/proc/self/timens_offsets".as_ptr(), libc::O_WRONLY);
            check(file)?;
            let written = libc::write(file, offsets.as_ptr().cast(), offsets.len());
            check(written as i32)?;
            let namespace = libc::open(c"/proc/self/ns/time_for_children".as_ptr(), libc::O_RDONLY);
            check(namespace)?;
            check(libc::setns(namespace, libc::CLONE_NEWTIME))
        });
    }
}

fn check(result: i32) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The XDP program has the clock of the kernel.
#[test]
fn the_fast_path_works_in_a_time_namespace() -> Result<()> {
    for offsets in OFFSETS {
        let scene = Scene::new(Topology::default())?;
        let mut relay = Teredo::start_prepared(&scene.relay, &scene.relay_config(), |command| {
            set_clocks(command, offsets);
            Ok(())
        })?;
        relay.ready()?;
        let client = scene.start_client_of(Maker::Teredo, scene.site())?;
        scene.check_fast_path(&relay, &client)?;
        // The stamps of the program are as recent as the packets.
        wait_until("it was heard just now", PATIENCE, || {
            let peer = relay.peer(client.address())?;
            let heard = peer.and_then(|peer| peer.last_received_seconds);
            Ok(heard.is_some_and(|seconds| (0.0..20.0).contains(&seconds)))
        })?;
    }
    Ok(())
}
