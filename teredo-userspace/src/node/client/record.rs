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

/// A mapping that was requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// The address of the gateway.
    pub gateway: Ipv4Addr,
    /// The port, the same inside and outside.
    pub port: u16,
}

impl Record {
    /// Returns the record of the instance of this name.
    pub fn of(instance: &str) -> Self {
        let directory =
            env::var_os(VARIABLE).map_or_else(|| PathBuf::from(DIRECTORY), PathBuf::from);
        Self(directory.join(format!("{instance}.port-mapping")))
    }

    /// Returns the recorded mapping; `None` if there is none, or it cannot be read.
    pub fn read(&self) -> Option<Recorded> {
        serde_json::from_slice(&fs::read(&self.0).ok()?).ok()
    }

    /// Records a mapping before it is requested. If that fails, the mapping outlives a crash, which is
    /// acceptable.
    pub fn write(&self, recorded: Recorded) {
        let written = self.0.parent().map_or(Ok(()), fs::create_dir_all);
        let written = written.and_then(|()| {
            let text = serde_json::to_vec(&recorded).map_err(io::Error::other)?;
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
            port: 4096,
        };
        record.write(recorded);
        assert_eq!(record.read(), Some(recorded));
        fs::write(&record.0, "{\"gateway\": 5}").unwrap();
        assert_eq!(record.read(), None);
        record.clear();
        assert!(!record.0.exists());
        record.clear();
    }
}
