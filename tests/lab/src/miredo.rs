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

/// The interface that Miredo's relay and client make; our daemon uses the same name.
pub const INTERFACE: &str = "teredo";
/// Longest time that a start may take.
const START: Duration = Duration::from_secs(10);
/// Longest time that qualification may take: a few round trips, and 4 seconds for each lost
/// solicitation.
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
    /// The server's process.
    pub daemon: Daemon,
}

impl Server {
    /// Starts the server on `primary` and the address after it, port 3544.
    ///
    /// # Errors
    ///
    /// Fails when the server does not come up.
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
    /// The relay's process.
    pub daemon: Daemon,
}

impl Relay {
    /// Starts the relay with this outer address.
    ///
    /// # Errors
    ///
    /// Fails when the relay does not come up.
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
    /// The client's process.
    pub daemon: Daemon,
    address: Ipv6Addr,
}

impl Client {
    /// Starts the client with this server and service port and waits until it is qualified. The
    /// server must be up: after three lost solicitations Miredo sleeps for 100 seconds.
    ///
    /// # Errors
    ///
    /// Fails when the client is not qualified in time.
    pub fn start(namespace: &Namespace, server: Ipv4Addr, port: u16) -> Result<Self> {
        let mut client = Self::start_unqualified(namespace, server, port)?;
        client.address = client
            .daemon
            .wait_for("it is qualified", QUALIFICATION, || {
                Ok(client_address(namespace))
            })?;
        Ok(client)
    }

    /// Starts the client without waiting, for NATs behind which it never qualifies.
    ///
    /// # Errors
    ///
    /// Fails when the client cannot be started.
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

    /// The Teredo address that the client qualified with; `::` after [`Self::start_unqualified`].
    #[must_use]
    pub fn address(&self) -> Ipv6Addr {
        self.address
    }

    /// Ends the client.
    ///
    /// # Errors
    ///
    /// Fails when the client does not end.
    pub fn terminate(mut self) -> Result<ExitStatus> {
        self.daemon.terminate()
    }
}
