//! The owners of ports and programs that the daemon needs.

use std::{fs, net::Ipv4Addr, path::PathBuf};

use aya::programs::loaded_programs;

/// A name for the XDP program with this number.
#[must_use]
pub fn program(number: u32) -> String {
    let name = program_name(number).unwrap_or_default();
    if name.is_empty() {
        format!("the XDP program {number}")
    } else {
        format!("the XDP program {number} ({name})")
    }
}

/// The name in the kernel of the program with this number, if we may know it.
#[must_use]
pub fn program_name(number: u32) -> Option<String> {
    loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == number)
        .map(|program| String::from_utf8_lossy(program.name()).into_owned())
}

/// A name for the process that has the UDP port of an address, if we may know it.
#[must_use]
pub fn udp_port(address: Ipv4Addr, port: u16) -> Option<String> {
    let table = fs::read_to_string("/proc/net/udp").ok()?;
    let inode = table
        .lines()
        .skip(1)
        .find_map(|line| inode_if_bound(line, address, port))?;
    process_with(&format!("socket:[{inode}]"))
}

/// The inode in a line of /proc/net/udp, if its socket has the port.
fn inode_if_bound(line: &str, address: Ipv4Addr, port: u16) -> Option<&str> {
    let mut fields = line.split_whitespace();
    let (bound, bound_port) = fields.nth(1)?.split_once(':')?;
    // The octets of the address as a number of this host.
    let bound = u32::from_str_radix(bound, 16).ok()?.to_ne_bytes();
    let has_port = u16::from_str_radix(bound_port, 16) == Ok(port);
    let is_bound = has_port && (bound == address.octets() || bound == [0; 4]);
    is_bound.then(|| fields.nth(7)).flatten()
}

/// The process that has a file open which /proc shows like this.
fn process_with(file: &str) -> Option<String> {
    let is_number = |process: &PathBuf| {
        let name = process.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.parse::<u32>().is_ok())
    };
    let holds = |process: &PathBuf| {
        fs::read_dir(process.join("fd")).is_ok_and(|files| {
            files
                .filter_map(Result::ok)
                .filter_map(|entry| fs::read_link(entry.path()).ok())
                .any(|target| target.as_os_str() == file)
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
