//! `teredo probe`: the network as a client would see it.

mod report;
mod sockets;

use std::{
    net::{Ipv4Addr, SocketAddr, ToSocketAddrs as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::Args;
use rand::{TryRng as _, rngs::SysRng};
use teredo_common::{address::Endpoint, time::Instant};
use teredo_proto::{
    client::ServerEndpoints,
    probe::{Findings, Lifetime, LifetimeProbe, NatProbe},
};

use super::output::{print, print_json};
use crate::config::{ServerHost, ServerName};
use report::Report;
use sockets::Sockets;

#[derive(Debug, Args)]
pub struct Arguments {
    /// The server: its name or primary address, and its port if that is not 3544
    #[arg(value_name = "SERVER[:PORT]")]
    server: ServerName,
    /// The server's secondary address [default: the one after its primary address]
    #[arg(long, value_name = "IPV4")]
    secondary: Option<Ipv4Addr>,
    /// The local UDP port, as client.port of the client [default: any]
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 0,
        hide_default_value = true
    )]
    port: u16,
    /// Also measure how long the NAT keeps a mapping, which takes a minute and a half
    #[arg(long)]
    interval: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the findings. The exit code is 1 if Teredo would not work.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let server = look_up(arguments)?;
    let findings = find(server, arguments.port)?;
    let lifetime = match arguments.interval && findings.bubbles == Some(true) {
        true => Some(measure_lifetime(server)?),
        false => None,
    };
    let report = Report::new(&arguments.server, &findings, lifetime);
    if arguments.json {
        print_json(&report)?;
    } else {
        print(&report.to_text())?;
    }
    Ok(match findings.works() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn look_up(arguments: &Arguments) -> Result<ServerEndpoints> {
    let ServerName { host, port } = &arguments.server;
    let primary = match host {
        ServerHost::Address(address) => *address,
        ServerHost::Name(name) => ipv4_of(name)?,
    };
    let mut server = ServerEndpoints::new(primary);
    server.port = *port;
    server.secondary = arguments.secondary.unwrap_or(server.secondary);
    Ok(server)
}

fn ipv4_of(name: &str) -> Result<Ipv4Addr> {
    const NO_PORT: u16 = 0;
    let mut addresses = (name, NO_PORT)
        .to_socket_addrs()
        .with_context(|| format!("cannot look up {name}"))?;
    addresses
        .find_map(|address| match address {
            SocketAddr::V4(address) => Some(*address.ip()),
            SocketAddr::V6(_) => None,
        })
        .with_context(|| format!("{name} has no IPv4 address, but every Teredo server has one"))
}

fn find(server: ServerEndpoints, port: u16) -> Result<Findings> {
    let sockets = Sockets::open(NatProbe::SOCKETS, port)?;
    let source = sockets::source_towards(server.primary())?;
    let mut local = [Endpoint::default(); NatProbe::SOCKETS];
    for (local, port) in local.iter_mut().zip(sockets.ports()?) {
        *local = Endpoint::new(source, port);
    }
    let mut probe = NatProbe::new(server, local, seed()?, Instant::ZERO);
    sockets.run(&mut probe, server, |_| {})?;
    Ok(probe.findings())
}

fn measure_lifetime(server: ServerEndpoints) -> Result<Lifetime> {
    const ANY_PORT: u16 = 0;
    let sockets = Sockets::open(LifetimeProbe::SOCKETS, ANY_PORT)?;
    let mut probe = LifetimeProbe::new(server, seed()?, Instant::ZERO);
    eprintln!("measuring how long the NAT keeps an unused mapping");
    sockets.run(&mut probe, server, |probe| {
        while let Some(progress) = probe.poll_event() {
            let kept = if progress.kept { "kept" } else { "lost" };
            eprintln!("after {} s: {kept}", progress.idle.as_secs_f64());
        }
    })?;
    Ok(probe.lifetime())
}

fn seed() -> Result<[u8; 32]> {
    let mut seed = [0; 32];
    SysRng
        .try_fill_bytes(&mut seed)
        .context("the system has no random numbers")?;
    Ok(seed)
}
