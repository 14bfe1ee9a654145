//! The record of the port mapping that has to be removed after a crash.

use std::{env, fs, io, net::Ipv4Addr, path::PathBuf};

use serde::{Deserialize, Serialize};

/// The variable in which systemd passes the directory of the record.
const VARIABLE: &str = "STATE_DIRECTORY";
/// The directory without systemd.
const DIRECTORY: &str = "/var/lib/teredo";

/// The file that records the mapping of one instance.
#[derive(Clone, Debug)]
pub struct Record(PathBuf);

/// Returns the directory of the records.
#[must_use]
pub fn directory() -> PathBuf {
    env::var_os(VARIABLE).map_or_else(|| PathBuf::from(DIRECTORY), PathBuf::from)
}

/// The kernel's table of IPv4 neighbours.
const NEIGHBOURS: &str = "/proc/net/arp";
/// The hardware address of an incomplete entry.
const UNKNOWN: &str = "00:00:00:00:00:00";

/// A mapping that was requested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// The address of the gateway.
    pub gateway: Ipv4Addr,
    /// The gateway itself, since the gateways of many networks have the same address. Empty if it is
    /// not known.
    #[serde(default)]
    pub device: String,
    /// The port, the same inside and outside.
    pub port: u16,
}

impl Recorded {
    /// Returns whether the mapping was requested of this device.
    pub fn is_of(&self, gateway: Ipv4Addr, device: &str) -> bool {
        self.gateway == gateway && self.device == device && !device.is_empty()
    }
}

/// Returns the hardware address of a neighbour; `None` if the kernel does not know it.
pub fn hardware_address(neighbour: Ipv4Addr) -> Option<String> {
    hardware_address_in(&fs::read_to_string(NEIGHBOURS).ok()?, neighbour)
}

fn hardware_address_in(table: &str, neighbour: Ipv4Addr) -> Option<String> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let is_it = fields.next()?.parse() == Ok(neighbour);
        // Type and flags come between.
        let hardware = fields.nth(2).filter(|&hardware| hardware != UNKNOWN)?;
        is_it.then(|| hardware.to_owned())
    })
}

impl Record {
    /// Returns the record of the instance of this name.
    pub fn of(instance: &str) -> Self {
        Self(directory().join(format!("{instance}.port-mapping")))
    }

    /// Returns the recorded mapping; `None` if there is none, or it cannot be read.
    pub fn read(&self) -> Option<Recorded> {
        serde_json::from_slice(&fs::read(&self.0).ok()?).ok()
    }

    /// Records a mapping before it is requested. If that fails, the mapping outlives a crash, which is
    /// acceptable.
    pub fn write(&self, recorded: &Recorded) {
        let written = self.0.parent().map_or(Ok(()), fs::create_dir_all);
        let written = written.and_then(|()| {
            let text = serde_json::to_vec(recorded).map_err(io::Error::other)?;
            fs::write(&self.0, text)
        });
        if let Err(error) = written {
            tracing::debug!("cannot write {}: {error}", self.0.display());
        }
    }

    /// Removes the record, when there is no mapping to remove any more.
    pub fn clear(&self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x22_a_mapping_is_recorded_until_it_is_gone() {
        let directory = tempfile::TempDir::new().unwrap();
        let record = Record(directory.path().join("new/teredo.port-mapping"));
        assert_eq!(record.read(), None);
        let recorded = Recorded {
            gateway: Ipv4Addr::new(192, 168, 1, 1),
            device: "02:00:00:00:00:01".to_owned(),
            port: 4096,
        };
        record.write(&recorded);
        assert_eq!(record.read(), Some(recorded));
        fs::write(&record.0, "{\"gateway\": 5}").unwrap();
        assert_eq!(record.read(), None);
        record.clear();
        assert!(!record.0.exists());
        record.clear();
    }

    #[test]
    fn x22_the_gateway_of_another_network_is_not_asked() {
        let gateway = Ipv4Addr::new(192, 168, 1, 1);
        let recorded = Recorded {
            gateway,
            device: "02:00:00:00:00:01".to_owned(),
            port: 4096,
        };
        assert!(recorded.is_of(gateway, "02:00:00:00:00:01"));
        assert!(!recorded.is_of(gateway, "02:00:00:00:00:02"));
        assert!(!recorded.is_of(Ipv4Addr::new(192, 168, 1, 2), "02:00:00:00:00:01"));
        // A record without the device could be any gateway's.
        let text = "{\"gateway\": \"192.168.1.1\", \"port\": 4096}";
        let old: Recorded = serde_json::from_str(text).unwrap();
        assert!(!old.is_of(gateway, "") && !old.is_of(gateway, "02:00:00:00:00:01"));
    }

    #[test]
    fn neighbours_are_found_in_the_kernels_table() {
        let table = "IP address  HW type  Flags  HW address  Mask  Device\n\
                     192.168.1.7  0x1  0x0  00:00:00:00:00:00  *  eth0\n\
                     192.168.1.1  0x1  0x2  02:00:00:00:00:01  *  eth0\n";
        let of = |last| hardware_address_in(table, Ipv4Addr::new(192, 168, 1, last));
        assert_eq!(of(1).as_deref(), Some("02:00:00:00:00:01"));
        assert_eq!(of(7), None);
        assert_eq!(of(2), None);
    }
}
