//! Miredo, the other implementation: its server, relay and client.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{
    namespace::Namespace,
    process::{Daemon, udp_port_is_open},
    teredo::client_address,
};

/// The interface that Miredo's relay and client make; ours as well.
pub const INTERFACE: &str = "teredo";
/// How long a start may take.
const START: Duration = Duration::from_secs(10);
/// Qualification takes a few round trips; a lost solicitation costs 4 seconds.
const QUALIFICATION: Duration = Duration::from_secs(20);

fn start(
    name: &str,
    namespace: &Namespace,
    program: &str,
    user: &str,
    configuration: &str,
) -> Result<Daemon> {
    let directory = Daemon::directory(name)?;
    let file = directory.path().join("miredo.conf");
    fs::write(&file, configuration)?;
    let mut command = namespace.command(Path::new("/usr/sbin").join(program))?;
    command.arg("-f").arg("-c").arg(&file).arg("-p");
    command.arg(directory.path().join("pid")).args(["-u", user]);
    Daemon::start(name, command, directory)
        .with_context(|| format!("is the package {program} installed? see `cargo xtask setup`"))
}

fn wait_for_port(daemon: &mut Daemon, namespace: &Namespace, port: u16) -> Result<()> {
    let what = format!("it listens on UDP port {port}");
    daemon.wait_for(&what, START, || {
        let open = namespace.run(|| udp_port_is_open(port))??;
        Ok(open.then_some(()))
    })
}

/// Miredo's Teredo server.
#[derive(Debug)]
pub struct Server {
    /// Its process.
    pub daemon: Daemon,
}

impl Server {
    /// Starts it on `primary` and the address after it, port 3544.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn start(namespace: &Namespace, primary: Ipv4Addr) -> Result<Self> {
        let configuration = format!("ServerBindAddress {primary}\n");
        let mut daemon = start(
            "miredo-server",
            namespace,
            "miredo-server",
            "miredo-server",
            &configuration,
        )?;
        wait_for_port(&mut daemon, namespace, 3544)?;
        Ok(Self { daemon })
    }
}

/// Miredo's Teredo relay.
#[derive(Debug)]
pub struct Relay {
    /// Its process.
    pub daemon: Daemon,
}

impl Relay {
    /// Starts it with this outer address.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn start(namespace: &Namespace, address: Ipv4Addr, port: u16) -> Result<Self> {
        let configuration = format!(
            "RelayType relay\nInterfaceName {INTERFACE}\nBindAddress {address}\nBindPort {port}\n"
        );
        let mut daemon = start(
            "miredo-relay",
            namespace,
            "miredo",
            "miredo",
            &configuration,
        )?;
        wait_for_port(&mut daemon, namespace, port)?;
        Ok(Self { daemon })
    }
}

/// Miredo's Teredo client.
#[derive(Debug)]
pub struct Client {
    /// Its process.
    pub daemon: Daemon,
    address: Ipv6Addr,
}

impl Client {
    /// Starts it with this server and service port and waits until it is qualified. The server
    /// must be up: after three lost solicitations Miredo sleeps for 100 seconds.
    ///
    /// # Errors
    ///
    /// When it is not qualified in time.
    pub fn start(namespace: &Namespace, server: Ipv4Addr, port: u16) -> Result<Self> {
        let mut client = Self::start_unqualified(namespace, server, port)?;
        client.address = client
            .daemon
            .wait_for("it is qualified", QUALIFICATION, || {
                Ok(client_address(namespace))
            })?;
        Ok(client)
    }

    /// Starts it and does not wait, for NATs behind which it never qualifies.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start_unqualified(namespace: &Namespace, server: Ipv4Addr, port: u16) -> Result<Self> {
        let configuration = format!(
            "RelayType client\nInterfaceName {INTERFACE}\nServerAddress {server}\nBindPort {port}\n"
        );
        let daemon = start(
            "miredo-client",
            namespace,
            "miredo",
            "miredo",
            &configuration,
        )?;
        Ok(Self {
            daemon,
            address: Ipv6Addr::UNSPECIFIED,
        })
    }

    /// The Teredo address that it qualified with; `::` when nobody waited for that.
    #[must_use]
    pub fn address(&self) -> Ipv6Addr {
        self.address
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn terminate(mut self) -> Result<ExitStatus> {
        self.daemon.terminate()
    }
}
