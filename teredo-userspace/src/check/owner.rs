//! The owners of ports and programs that the daemon needs.

use std::{fs, net::Ipv4Addr, path::PathBuf, sync::OnceLock};

use crate::{config::Config, datapath::xdp};

/// The kernel's table of UDP sockets.
const UDP: &str = "/proc/net/udp";

/// Inodes of sockets with their processes at the start, when this process had all its privileges.
static REMEMBERED: OnceLock<Vec<(String, String)>> = OnceLock::new();

/// Remembers who has the ports and programs that the daemon needs, for the time when this process may not
/// find it out.
pub fn remember(config: &Config) {
    xdp::remember_programs();
    let relay = config.relay.iter().map(|relay| relay.port);
    let server = config.server.iter().map(|server| server.port);
    let client = config.client.iter().map(|client| client.port);
    let ports: Vec<_> = relay.chain(server).chain(client).collect();
    let table = fs::read_to_string(UDP).unwrap_or_default();
    let inodes = table.lines().skip(1).filter_map(|line| {
        let socket = Socket::parse(line)?;
        ports.contains(&socket.port).then_some(socket.inode)
    });
    let owners = inodes.filter_map(|inode| Some((inode.to_owned(), process_with(inode)?)));
    let _ = REMEMBERED.set(owners.collect());
}

/// A name for the XDP program with this number.
#[must_use]
pub fn program(number: u32) -> String {
    let name = xdp::program_name(number).unwrap_or_default();
    if name.is_empty() {
        format!("the XDP program {number}")
    } else {
        format!("the XDP program {number} ({name})")
    }
}

/// A name for the process that has the UDP port of an address, if we may know it.
#[must_use]
pub fn udp_port(address: Ipv4Addr, port: u16) -> Option<String> {
    let table = fs::read_to_string(UDP).ok()?;
    let mut sockets = table.lines().skip(1).filter_map(Socket::parse);
    let inode = sockets.find(|socket| socket.has(address, port))?.inode;
    process_with(inode).or_else(|| {
        let mut remembered = REMEMBERED.get()?.iter();
        let (_, process) = remembered.find(|(one, _)| one == inode)?;
        Some(process.clone())
    })
}

/// A line of the kernel's table of UDP sockets.
struct Socket<'a> {
    address: [u8; 4],
    port: u16,
    inode: &'a str,
}

impl<'a> Socket<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split_whitespace();
        let (address, port) = fields.nth(1)?.split_once(':')?;
        Some(Self {
            // The octets of the address as a number of this host.
            address: u32::from_str_radix(address, 16).ok()?.to_ne_bytes(),
            port: u16::from_str_radix(port, 16).ok()?,
            inode: fields.nth(7)?,
        })
    }

    fn has(&self, address: Ipv4Addr, port: u16) -> bool {
        self.port == port && (self.address == address.octets() || self.address == [0; 4])
    }
}

/// The process that has the socket with this inode.
fn process_with(inode: &str) -> Option<String> {
    let file = format!("socket:[{inode}]");
    let is_number = |process: &PathBuf| {
        let name = process.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.parse::<u32>().is_ok())
    };
    let holds = |process: &PathBuf| {
        fs::read_dir(process.join("fd")).is_ok_and(|files| {
            files
                .filter_map(Result::ok)
                .filter_map(|entry| fs::read_link(entry.path()).ok())
                .any(|target| target.as_os_str() == &*file)
        })
    };
    let process = fs::read_dir("/proc")
        .ok()?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|process| is_number(process) && holds(process))?;
    let name = fs::read_to_string(process.join("comm")).ok()?;
    let number = process.file_name()?.to_string_lossy();
    Some(format!("process {number} ({})", name.trim_end()))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn this_process_is_found_by_its_port() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        let owner = udp_port(Ipv4Addr::LOCALHOST, port).unwrap();
        let prefix = format!("process {} (", std::process::id());
        assert!(owner.starts_with(&prefix), "{owner}");
        assert_eq!(udp_port(Ipv4Addr::new(127, 0, 0, 2), port), None);
    }
}
