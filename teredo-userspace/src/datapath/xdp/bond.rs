//! Bonds: interfaces whose frames arrive by others.

use std::fs;

use nix::net::if_::if_nametoindex;

/// Returns the indices of the ports of a bond, and nothing for other interfaces.
pub fn ports(name: &str) -> Vec<u32> {
    // Names with a slash cannot occur.
    let status = fs::read_to_string(format!("/proc/self/net/bonding/{name}")).unwrap_or_default();
    names(&status)
        .filter_map(|name| if_nametoindex(name).ok())
        .collect()
}

/// Returns the names of the ports in the status that the bonding driver shows.
fn names(status: &str) -> impl Iterator<Item = &str> {
    status
        .lines()
        .filter_map(|line| line.strip_prefix("Slave Interface: "))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_from_the_status() {
        let status = "Ethernet Channel Bonding Driver: v6.1.0\n\n\
                      Bonding Mode: fault-tolerance (active-backup)\n\
                      Currently Active Slave: s1\nMII Status: up\n\n\
                      Slave Interface: s1\nMII Status: up\nSpeed: 10000 Mbps\n\n\
                      Slave Interface: s2\nMII Status: up\n";
        assert_eq!(names(status).collect::<Vec<_>>(), ["s1", "s2"]);
        assert_eq!(names("").next(), None);
        assert_eq!(ports("lo"), [0; 0]);
    }
}
