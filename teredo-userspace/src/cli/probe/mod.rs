//! `teredo probe`: the network as a client would see it.

mod failure;
mod report;
mod sockets;

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _},
    process::ExitCode,
    str::FromStr,
};

use anyhow::Result;
use clap::Args;
use rand::{TryRng as _, rngs::SysRng};
use teredo_common::{
    address::{Endpoint, ServicePrefix},
    scope::{Ipv4Scope, is_global_unicast},
    time::Instant,
};
use teredo_proto::{
    client::ServerEndpoints,
    probe::{Findings, Lifetime, LifetimeProbe, NatProbe, RelayProbe, Way},
};

use super::{
    log::explain,
    output::{print, print_json},
};
use crate::config::{ServerHost, ServerName};
use failure::Failure;
use report::{FailureReport, Report};
use sockets::Sockets;

/// The exit code of an invalid command line.
const INVALID: u8 = 2;

#[derive(Debug, Args)]
pub struct Arguments {
    /// The server: its name or primary address, and its port if that is not 3544
    #[arg(value_name = "SERVER[:PORT]")]
    server: ServerText,
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
    /// Also find the relay by which packets of this native host come to clients
    #[arg(long, value_name = "IPV6")]
    relay_of: Option<Ipv6Addr>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The text that names the server. It is parsed later, so that errors can be JSON, too.
#[derive(Clone, Debug)]
struct ServerText(String);

impl FromStr for ServerText {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// Prints the findings. The exit code is 1 if Teredo would not work or cannot be measured, 2 if the
/// server is not valid.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let report = match measure(arguments) {
        Ok(report) => report,
        Err(failure) => return fail(failure, arguments.json),
    };
    if arguments.json {
        print_json(&report)?;
    } else {
        print(&report.to_text())?;
    }
    Ok(match report.works() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Reports an invalid command line as JSON.
pub fn refuse(error: &clap::Error) -> ExitCode {
    let message = error.to_string();
    // The advice follows after an empty line.
    let sentence = message.split("\n\n").next().unwrap_or_default();
    let sentence = sentence.strip_prefix("error: ").unwrap_or(sentence);
    let words: Vec<_> = sentence.split_whitespace().collect();
    match print_json(&FailureReport::new(Failure::Arguments(words.join(" ")))) {
        Ok(()) => ExitCode::from(INVALID),
        Err(_) => ExitCode::FAILURE,
    }
}

/// Reports a failure: as JSON, as clap reports invalid arguments, or by returning it.
fn fail(failure: Failure, json: bool) -> Result<ExitCode> {
    let is_invalid = matches!(failure, Failure::Name { .. } | Failure::NotNative(_));
    if json {
        print_json(&FailureReport::new(failure))?;
        return Ok(match is_invalid {
            true => ExitCode::from(INVALID),
            false => ExitCode::FAILURE,
        });
    }
    if is_invalid {
        // In the form of other invalid arguments.
        explain(&format!(
            "error: {failure}\n\nFor more information, try '--help'."
        ));
        return Ok(ExitCode::from(INVALID));
    }
    Err(failure.into())
}

fn measure(arguments: &Arguments) -> Result<Report, Failure> {
    let ServerText(text) = &arguments.server;
    let name: ServerName = text.parse().map_err(|source| Failure::Name {
        text: text.clone(),
        source,
    })?;
    let server = look_up(&name, arguments.secondary)?;
    let findings = find(server, arguments.port)?;
    let lifetime = match arguments.interval && findings.bubbles == Some(true) {
        true => Some(measure_lifetime(server)?),
        false => None,
    };
    let way = match arguments.relay_of {
        Some(host) => Some((host, measure_way(server, host)?)),
        None => None,
    };
    Ok(Report::new(&name, &findings, lifetime, way))
}

/// Returns the endpoints of a server that a client accepts.
fn look_up(server: &ServerName, secondary: Option<Ipv4Addr>) -> Result<ServerEndpoints, Failure> {
    let accept = |name: Option<&str>, address: Ipv4Addr| {
        let is_accepted = Ipv4Scope::Strict.accepts(address.octets());
        is_accepted
            .then_some(address)
            .ok_or_else(|| Failure::of_address(name, address))
    };
    let primary = match &server.host {
        ServerHost::Address(address) => accept(None, *address)?,
        ServerHost::Name(name) => accept(Some(name), ipv4_of(name)?)?,
    };
    let mut endpoints = ServerEndpoints::new(primary);
    endpoints.port = server.port;
    if let Some(secondary) = secondary {
        endpoints.secondary = accept(None, secondary)?;
    }
    Ok(endpoints)
}

fn ipv4_of(name: &str) -> Result<Ipv4Addr, Failure> {
    const NO_PORT: u16 = 0;
    let addresses = (name, NO_PORT).to_socket_addrs();
    let mut addresses = addresses.map_err(|source| Failure::LookUp {
        name: name.to_owned(),
        source,
    })?;
    addresses
        .find_map(|address| match address {
            SocketAddr::V4(address) => Some(*address.ip()),
            SocketAddr::V6(_) => None,
        })
        .ok_or_else(|| Failure::NoServerAddress(name.to_owned()))
}

fn find(server: ServerEndpoints, port: u16) -> Result<Findings, Failure> {
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

fn measure_lifetime(server: ServerEndpoints) -> Result<Lifetime, Failure> {
    const ANY_PORT: u16 = 0;
    let sockets = Sockets::open(LifetimeProbe::SOCKETS, ANY_PORT)?;
    let mut probe = LifetimeProbe::new(server, seed()?, Instant::ZERO);
    explain("measuring how long the NAT keeps an unused mapping");
    sockets.run(&mut probe, server, |probe| {
        while let Some(progress) = probe.poll_event() {
            let kept = if progress.kept { "kept" } else { "lost" };
            explain(&format!("after {} s: {kept}", progress.idle.as_secs_f64()));
        }
    })?;
    Ok(probe.lifetime())
}

fn measure_way(server: ServerEndpoints, host: Ipv6Addr) -> Result<Way, Failure> {
    const ANY_PORT: u16 = 0;
    let octets = host.octets();
    if !is_global_unicast(&octets) || ServicePrefix::STANDARD.contains(&octets) {
        return Err(Failure::NotNative(host));
    }
    let sockets = Sockets::open(RelayProbe::SOCKETS, ANY_PORT)?;
    let mut probe = RelayProbe::new(server, octets, seed()?, Instant::ZERO);
    sockets.run(&mut probe, server, |_| {})?;
    Ok(probe.way())
}

fn seed() -> Result<[u8; 32], Failure> {
    let mut seed = [0; 32];
    SysRng.try_fill_bytes(&mut seed).map_err(|error| {
        Failure::of_system("the system has no random numbers", io::Error::other(error))
    })?;
    Ok(seed)
}
