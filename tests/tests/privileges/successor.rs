//! The privileges of a process that takes over.

use std::{collections::HashSet, io, process::Command, thread};

use anyhow::{Result, ensure};
use caps::{CapSet, Capability};
use nix::sys::prctl;
use teredo::privileges::inherit;

use super::NOBODY;

/// Capabilities and user of a daemon that has given up the others.
fn become_a_daemon() -> Result<()> {
    let keep = HashSet::from([Capability::CAP_NET_ADMIN, Capability::CAP_BPF]);
    caps::securebits::set_keepcaps(true)?;
    for call in [libc::SYS_setresgid, libc::SYS_setresuid] {
        // SAFETY: the call has numbers as arguments only. It is for this thread alone.
        let result = unsafe { libc::syscall(call, NOBODY, NOBODY, NOBODY) };
        ensure!(result == 0, "{}", io::Error::last_os_error());
    }
    caps::set(None, CapSet::Permitted, &keep)?;
    caps::set(None, CapSet::Effective, &keep)?;
    caps::clear(None, CapSet::Inheritable)?;
    prctl::set_no_new_privs()?;
    Ok(())
}

/// The sets of a program that the command runs.
fn sets(command: &mut Command) -> Result<String> {
    command.args(["-E", "^Cap(Prm|Eff)", "/proc/self/status"]);
    Ok(String::from_utf8(command.output()?.stdout)?)
}

#[test]
fn a_successor_has_the_capabilities_of_its_predecessor() -> Result<()> {
    let run = || -> Result<()> {
        become_a_daemon()?;
        let nothing = "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n";
        ensure!(sets(&mut Command::new("grep"))? == nothing);
        let mut command = Command::new("grep");
        inherit(&mut command)?;
        let all = "CapPrm:\t0000008000001000\nCapEff:\t0000008000001000\n";
        let found = sets(&mut command)?;
        ensure!(found == all, "{found}");
        Ok(())
    };
    thread::scope(|scope| scope.spawn(run).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
