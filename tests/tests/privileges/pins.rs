//! What other users put into the BPF file system, where every user may write.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt as _, lchown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde_json::Value;
use teredo_common::maps::{ABI_VERSION, PEERS};
use teredo_lab::{Daemon, teredo::binary};

use super::{Host, NOBODY, PATIENCE, start};

const ROOT: &str = "/sys/fs/bpf";

/// Runs `work` where a BPF file system of its own is mounted as `mount -t bpf` does it.
fn where_everybody_writes(work: impl FnOnce(&Host) -> Result<()> + Send) -> Result<()> {
    let host = Host::new()?;
    let run = || {
        let none: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some("bpf"), ROOT, Some("bpf"), MsFlags::empty(), none)?;
        fs::set_permissions(ROOT, fs::Permissions::from_mode(0o1777))?;
        work(&host)
    };
    thread::scope(|scope| scope.spawn(run).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn instance(host: &Host) -> PathBuf {
    Path::new(ROOT).join("teredo").join(host.namespace.name())
}

fn directory(host: &Host) -> PathBuf {
    instance(host).join(format!("v{ABI_VERSION}"))
}

/// Runs a command as the user nobody.
fn as_nobody(program: &str, arguments: &[&str], path: &Path) -> Result<Output> {
    let mut command = Command::new(program);
    command.args(arguments).arg(path);
    Ok(command.uid(NOBODY).gid(NOBODY).output()?)
}

/// Asserts that the daemon does not start, with a sentence that has all these parts.
fn assert_refused(host: &Host, file: &Path, parts: &[&str]) -> Result<()> {
    let mut command = host.namespace.command(binary()?)?;
    command.args(["run", "--config"]).arg(file);
    let mut daemon = Daemon::start("teredo", command, Daemon::directory("daemon")?)?;
    let status = daemon.wait(PATIENCE)?;
    let said = daemon.log();
    ensure!(status.code() == Some(1), "{said}");
    let last = said.lines().last().context("it says nothing")?;
    for part in parts {
        ensure!(last.contains(part), "no {part} in {last}");
    }
    Ok(())
}

#[test]
fn planted_directories_are_refused() -> Result<()> {
    where_everybody_writes(|host| {
        let planted = as_nobody("mkdir", &["-p"], &directory(host))?;
        ensure!(planted.status.success(), "{planted:?}");
        let native = host.configure("", "xdp.mode = \"native\"")?;
        let parts = ["/sys/fs/bpf/teredo belongs to the user nobody", "xdp.pin"];
        assert_refused(host, &native, &parts)?;

        // In the mode that does its best, the daemon works without.
        let file = host.configure("", "")?;
        let mut check = host.namespace.command(binary()?)?;
        let check = check.args(["check", "--config"]).arg(&file).output()?;
        let said = String::from_utf8(check.stdout)?;
        ensure!(said.contains(parts[0]), "{said}");
        let mut daemon = start(host, &file)?;
        let mut status = Command::new(binary()?);
        let status = status.args(["status", "--json", "--config"]).arg(&file);
        let status: Value = serde_json::from_slice(&status.output()?.stdout)?;
        ensure!(status.to_string().contains(parts[0]), "{status}");
        ensure!(daemon.terminate()?.code() == Some(0), "{}", daemon.log());
        ensure!(directory(host).exists(), "it is not the daemon's to remove");

        // One level down, in a directory of root.
        let native = host.configure("", "xdp.mode = \"native\"")?;
        lchown("/sys/fs/bpf/teredo", Some(0), Some(0))?;
        let parts = [host.namespace.name(), "belongs to the user nobody"];
        assert_refused(host, &native, &parts)?;
        lchown(instance(host), Some(0), Some(0))?;
        fs::set_permissions(instance(host), fs::Permissions::from_mode(0o777))?;
        assert_refused(host, &native, &["other users may write in", "chmod go-w"])?;
        fs::set_permissions(instance(host), fs::Permissions::from_mode(0o755))?;
        assert_refused(host, &native, &["belongs to the user nobody"])?;
        // What was planted in a directory of root is gone then.
        let mut daemon = start(host, &native)?;
        ensure!(directory(host).join(PEERS).exists());
        ensure!(daemon.terminate()?.code() == Some(0), "{}", daemon.log());
        Ok(())
    })
}

#[test]
fn others_cannot_take_the_lock_or_remove_pins() -> Result<()> {
    where_everybody_writes(|host| {
        let file = host.configure("", "xdp.mode = \"native\"")?;
        let mut daemon = start(host, &file)?;
        for _ in 0..2 {
            for path in [Path::new(ROOT).join("teredo"), instance(host)] {
                let locked = as_nobody("flock", &["--nonblock", "--command", "true"], &path)?;
                ensure!(!locked.status.success(), "{path:?}");
            }
            for path in [directory(host).join(PEERS), instance(host)] {
                let removed = as_nobody("rm", &["-r", "-f"], &path)?;
                ensure!(!removed.status.success(), "{path:?}");
            }
            ensure!(directory(host).join(PEERS).exists());
            // What a killed daemon left is as safe.
            daemon.kill()?;
        }
        let mut daemon = start(host, &file)?;
        ensure!(daemon.terminate()?.code() == Some(0), "{}", daemon.log());
        ensure!(!instance(host).exists());
        Ok(())
    })
}

#[test]
fn planted_maps_and_links_are_refused() -> Result<()> {
    where_everybody_writes(|host| {
        let file = host.configure("", "xdp.mode = \"native\"")?;
        for number in 0.. {
            start(host, &file)?.kill()?;
            let mut pins = fs::read_dir(directory(host))?.collect::<Result<Vec<_>, _>>()?;
            pins.sort_by_key(fs::DirEntry::file_name);
            let Some(pin) = pins.get(number).map(fs::DirEntry::path) else {
                ensure!(number >= 3, "maps and a link: {pins:?}");
                break;
            };
            lchown(&pin, Some(NOBODY), Some(NOBODY))?;
            let name = pin.to_str().context("a name")?;
            if name.contains("link-") {
                // It is taken for a link of somebody else's program.
                assert_refused(host, &file, &["(teredo) is attached to wan"])?;
                lchown(&pin, Some(0), Some(0))?;
            } else {
                assert_refused(host, &file, &[name, "belongs to the user nobody"])?;
            }
        }
        let mut daemon = start(host, &file)?;
        ensure!(daemon.terminate()?.code() == Some(0), "{}", daemon.log());
        Ok(())
    })
}

#[test]
fn a_file_system_that_everybody_may_change_has_no_pins() -> Result<()> {
    where_everybody_writes(|host| {
        fs::set_permissions(ROOT, fs::Permissions::from_mode(0o777))?;
        let file = host.configure("", "xdp.mode = \"native\"")?;
        let parts = ["other users may write in /sys/fs/bpf,", "xdp.pin"];
        assert_refused(host, &file, &parts)
    })
}
