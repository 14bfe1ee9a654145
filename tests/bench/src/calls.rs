//! The system calls of a relay in userspace without the relay, as a bound for all that work like it.
//!
//! The program `calls` knows no peers, checks nothing, and changes no octet.

use std::{net::SocketAddrV4, time::Duration};

use anyhow::{Context as _, Result};
use teredo_lab::{
    Namespace,
    process::{Daemon, udp_port_is_open},
    teredo::binary,
};

/// The TUN interface of the program. Its kernel thread is named as that of our daemon.
pub const INTERFACE: &str = "teredo-calls";
/// Octets of its packets at most.
pub const MTU: u16 = 1280;
/// Longest time that a start may take.
const START: Duration = Duration::from_secs(10);

/// Starts the program at this address and port.
///
/// # Errors
///
/// Fails when the program was not built, or does not start.
pub fn start(namespace: &Namespace, local: SocketAddrV4) -> Result<Daemon> {
    let mut command = namespace.command(binary()?.with_file_name("calls"))?;
    command.arg(local.to_string());
    let mut daemon = Daemon::start("calls", command, Daemon::directory("calls")?)?;
    let port = local.port();
    daemon.wait_for("it has its port", START, || {
        let is_open = namespace.run(|| udp_port_is_open(port))??;
        Ok(is_open.then_some(()))
    })?;
    namespace
        .ip_batch(&format!(
            "link set {INTERFACE} mtu {MTU} up
            route add 2001::/32 dev {INTERFACE}"
        ))
        .context("set up the interface of the program")?;
    Ok(daemon)
}
