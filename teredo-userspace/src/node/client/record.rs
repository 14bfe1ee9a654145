//! What has to be taken back after a crash: the mapping that a gateway was asked for.

use std::{env, fs, io, net::Ipv4Addr, path::PathBuf};

use serde::{Deserialize, Serialize};

/// Where systemd says that the record is to be.
const VARIABLE: &str = "STATE_DIRECTORY";
/// Where it is without systemd.
const DIRECTORY: &str = "/var/lib/teredo";

/// The file in which the mapping of one instance is written down.
#[derive(Clone, Debug)]
pub struct Record(PathBuf);

/// A mapping that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Who was asked.
    pub gateway: Ipv4Addr,
    /// The port, the same inside and outside.
    pub port: u16,
}

impl Record {
    /// The record of the instance of this name.
    pub fn of(instance: &str) -> Self {
        let directory =
            env::var_os(VARIABLE).map_or_else(|| PathBuf::from(DIRECTORY), PathBuf::from);
        Self(directory.join(format!("{instance}.port-mapping")))
    }

    /// What is written down; none if that cannot be read.
    pub fn read(&self) -> Option<Recorded> {
        serde_json::from_slice(&fs::read(&self.0).ok()?).ok()
    }

    /// Writes down what will be asked for. Without it the mapping outlives a crash, which is no
    /// reason not to have one.
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

    /// There is nothing to take back.
    pub fn clear(&self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x22_a_mapping_is_remembered_until_it_is_gone() {
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
