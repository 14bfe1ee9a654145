//! The privileges that the kernel shows for a daemon.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Pid;
use teredo_lab::wait_until;

use super::{Host, NOBODY, PATIENCE, start};

const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
const SYS_NICE: u64 = 1 << 23;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;

/// A role with its keys, and the capabilities that it needs as any user.
struct Role {
    configure: fn(&Host, &str, &str) -> Result<PathBuf>,
    keys: &'static str,
    capabilities: u64,
    has_tunnel: bool,
}

const ROLES: [Role; 4] = [
    Role {
        configure: Host::configure,
        keys: "xdp.pin = false",
        capabilities: NET_ADMIN | NET_RAW | PERFMON | BPF,
        has_tunnel: true,
    },
    Role {
        configure: Host::configure,
        keys: "xdp.mode = \"off\"",
        capabilities: NET_ADMIN,
        has_tunnel: true,
    },
    Role {
        configure: Host::configure_server,
        keys: "xdp.mode = \"off\"",
        capabilities: NET_ADMIN | NET_RAW | BPF,
        has_tunnel: false,
    },
    Role {
        configure: Host::configure_client,
        keys: "",
        capabilities: NET_ADMIN,
        has_tunnel: true,
    },
];

/// Returns a field of /proc/PID/status.
fn field(pid: Pid, name: &str) -> Result<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mut lines = status.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(value.with_context(|| name.to_owned())?.trim().to_owned())
}

fn check(pid: Pid, user: u32, capabilities: u64, is_sandboxed: bool) -> Result<()> {
    for name in ["Uid", "Gid"] {
        let all = field(pid, name)?;
        ensure!(
            all.split_whitespace().all(|id| id == user.to_string()),
            "{name}: {all}"
        );
    }
    for (set, expected) in [
        ("CapPrm", capabilities),
        ("CapEff", capabilities),
        ("CapBnd", capabilities),
        ("CapInh", 0),
        ("CapAmb", 0),
    ] {
        let found = u64::from_str_radix(&field(pid, set)?, 16)?;
        ensure!(found == expected, "{set}: {found:x}, not {expected:x}");
    }
    ensure!(field(pid, "NoNewPrivs")? == "1");
    let filter = if is_sandboxed { "2" } else { "0" };
    ensure!(field(pid, "Seccomp")? == filter);
    Ok(())
}

/// Every thread has the same privileges as the first.
fn check_all(pid: Pid, user: u32, capabilities: u64, is_sandboxed: bool) -> Result<()> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?.file_name();
        let thread = Pid::from_raw(thread.to_str().context("a number")?.parse()?);
        let checked = check(thread, user, capabilities, is_sandboxed);
        // A thread that asks drivers ends by itself.
        if fs::exists(format!("/proc/{pid}/task/{thread}"))? {
            checked?;
        }
    }
    Ok(())
}

#[test]
fn every_role_keeps_what_it_needs_and_nothing_else() -> Result<()> {
    for (user, number) in [("", 0), ("nobody", NOBODY)] {
        for role in &ROLES {
            let host = Host::new()?;
            let before = host.traces()?;
            let file = (role.configure)(&host, &format!("user = \"{user}\""), role.keys)?;
            let mut daemon = start(&host, &file)?;
            // Root restrains the kernel's thread for the tunnel.
            let nice = if number == 0 && role.has_tunnel {
                SYS_NICE
            } else {
                0
            };
            check_all(daemon.pid(), number, role.capabilities | nice, true)
                .with_context(|| format!("{user:?}, {}", role.keys))?;
            ensure!(daemon.terminate()?.code() == Some(0), "{}", daemon.log());
            ensure!(!daemon.log().contains("WARN"), "{}", daemon.log());
            ensure!(host.traces()? == before);
        }
    }
    Ok(())
}

#[test]
fn root_with_pins_has_no_more_rights() -> Result<()> {
    let host = Host::new()?;
    let before = host.traces()?;
    let file = host.configure("", "")?;
    let mut daemon = start(&host, &file)?;
    check_all(
        daemon.pid(),
        0,
        NET_ADMIN | NET_RAW | SYS_NICE | PERFMON | BPF,
        true,
    )?;
    ensure!(host.traces()?.contains("in /sys/fs/bpf: true"));
    ensure!(daemon.terminate()?.code() == Some(0), "{}", daemon.log());
    ensure!(host.traces()? == before);
    Ok(())
}

#[test]
fn without_the_sandbox_the_privileges_are_gone_all_the_same() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("sandbox = false", "xdp.mode = \"off\"")?;
    let mut daemon = start(&host, &file)?;
    check_all(daemon.pid(), 0, NET_ADMIN | SYS_NICE, false)?;
    daemon.terminate()?;
    Ok(())
}

/// The rights to files are those of directories that the kernel may forget and read again.
#[test]
fn the_daemon_mends_its_network_after_the_kernel_has_dropped_its_caches() -> Result<()> {
    let host = Host::new()?;
    let file = host.configure("", "xdp.mode = \"off\"")?;
    let mut daemon = start(&host, &file)?;
    for _ in 0..2 {
        fs::write("/proc/sys/vm/drop_caches", "2")?;
        host.namespace.ip("link del dev teredo")?;
        wait_until("the tunnel is back", PATIENCE, || {
            let routes = host.namespace.ip("-6 route show 2001::/32")?;
            let forwards = "/proc/sys/net/ipv6/conf/teredo/forwarding";
            let forwards = host.namespace.run(|| fs::read_to_string(forwards))?;
            Ok(routes.contains("dev teredo") && forwards.is_ok_and(|text| text.trim() == "1"))
        })?;
    }
    ensure!(daemon.terminate()?.code() == Some(0), "{}", daemon.log());
    Ok(())
}
