//! Full disks.

use std::process::Command;

use anyhow::{Result, ensure};
use tempfile::TempDir;
use teredo_lab::{Scene, Teredo, Topology, process::output};

use super::PATIENCE;

/// A directory on a file system without room for another file.
struct Full(TempDir);

impl Full {
    fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut mount = Command::new("mount");
        // The directory itself is the only file.
        mount.args(["-t", "tmpfs", "-o", "size=4k,nr_inodes=1", "tmpfs"]);
        output(mount.arg(directory.path()))?;
        Ok(Self(directory))
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        if let Err(error) = output(Command::new("umount").arg(self.0.path())) {
            eprintln!("{error:#}");
        }
    }
}

#[test]
fn a_relay_without_room_for_its_socket_ends_with_a_sentence() -> Result<()> {
    let scene = Scene::new(Topology {
        server: None,
        clients: 0,
        ..Topology::default()
    })?;
    let before = scene.relay_state()?;
    let full = Full::new()?;
    for path in ["api", "run/api"] {
        let socket = full.0.path().join(path);
        let config = scene.relay_config();
        let config = config.set("node.api", format!("unix:{}", socket.display()));
        let mut relay = Teredo::start_unready(&scene.relay, &config)?;
        let status = relay.daemon.wait(PATIENCE)?;
        let told = relay.daemon.log();
        ensure!(status.code() == Some(1), "{status}: {told}");
        let last = told.lines().last().unwrap_or_default();
        ensure!(
            last.starts_with("teredo: ") && last.contains("No space left"),
            "{told}"
        );
    }
    ensure!(scene.relay_state()? == before, "it left something");
    Ok(())
}
