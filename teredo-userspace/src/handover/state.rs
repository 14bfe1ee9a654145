//! The state of the daemon and its roles for the next process.
//!
//! Each part has its own version and is encoded by itself, with the names of its fields. A process takes
//! the parts that it understands, whether an older or a newer one has written them: fields that it does not
//! know are skipped, those that are missing have defaults. The version of a part changes only when that is
//! not enough.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;
use teredo_proto::{client::SavedClient, fleet, relay, server::SavedServer};
use thiserror::Error;

use crate::plan::SavedAnnouncement;

/// The version of the parts that are written now.
const VERSION: u32 = 1;

/// The reason why a part of a state is not understood.
#[derive(Debug, Error)]
pub enum Incomprehensible {
    /// The part has another version.
    #[error("it has version {0}, and this release understands {VERSION}")]
    Version(u32),
    /// The part is not what its name says.
    #[error("{0}")]
    Contents(#[from] rmp_serde::decode::Error),
}

/// The parts of a state, encoded.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Parts {
    /// The release that wrote them, for the log.
    release: String,
    parts: Vec<Part>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Part {
    name: String,
    version: u32,
    contents: ByteBuf,
}

/// The relay at its endpoint.
#[derive(Debug, Serialize, Deserialize)]
pub struct RelayState {
    /// The local endpoint.
    pub endpoint: SocketAddrV4,
    /// The protocol.
    pub relay: relay::State,
}

/// The state of the daemon as a whole.
#[derive(Debug, Serialize, Deserialize)]
pub struct DaemonState {
    /// The names of the roles that drain.
    pub draining: Vec<String>,
    /// The announcement of the relay.
    pub announcement: SavedAnnouncement,
}

/// The addresses of the servers that a client knows by name, under their names.
pub type ServerNames = BTreeMap<String, Vec<Ipv4Addr>>;

/// The state of the daemon and its roles.
#[derive(Debug, Default)]
pub struct State {
    /// The daemon as a whole.
    pub daemon: Option<DaemonState>,
    /// The relay.
    pub relay: Option<RelayState>,
    /// The relay's part in its fleet.
    pub fleet: Option<fleet::State>,
    /// The server.
    pub server: Option<SavedServer>,
    /// The client.
    pub client: Option<SavedClient>,
    /// The names of the client's servers.
    pub server_names: Option<ServerNames>,
}

const DAEMON: &str = "daemon";
const RELAY: &str = "relay";
const FLEET: &str = "fleet";
const SERVER: &str = "server";
const CLIENT: &str = "client";
const SERVER_NAMES: &str = "server-names";

impl State {
    /// Returns the state as octets.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let parts = [
            part(DAEMON, self.daemon.as_ref()),
            part(RELAY, self.relay.as_ref()),
            part(FLEET, self.fleet.as_ref()),
            part(SERVER, self.server.as_ref()),
            part(CLIENT, self.client.as_ref()),
            part(SERVER_NAMES, self.server_names.as_ref()),
        ];
        let parts = Parts {
            release: env!("CARGO_PKG_VERSION").to_owned(),
            parts: parts.into_iter().flatten().collect(),
        };
        rmp_serde::to_vec_named(&parts).unwrap_or_default()
    }

    /// Reads a state, as far as it is understood. Each part that is not is logged once.
    #[must_use]
    pub fn decode(octets: &[u8]) -> Self {
        let parts: Parts = match rmp_serde::from_slice(octets) {
            Ok(parts) => parts,
            Err(error) => {
                tracing::warn!(
                    "the state of the last run is not understood, and begins anew: {error}"
                );
                return Self::default();
            }
        };
        let mut state = Self::default();
        for part in parts.parts {
            let read = match &*part.name {
                DAEMON => part.read().map(|daemon| state.daemon = Some(daemon)),
                RELAY => part.read().map(|relay| state.relay = Some(relay)),
                FLEET => part.read().map(|fleet| state.fleet = Some(fleet)),
                SERVER => part.read().map(|server| state.server = Some(server)),
                CLIENT => part.read().map(|client| state.client = Some(client)),
                SERVER_NAMES => part.read().map(|names| state.server_names = Some(names)),
                // A newer release has it.
                _ => Ok(()),
            };
            if let Err(error) = read {
                tracing::warn!(
                    "the state of the {} of the last run, release {}, is not understood, and begins anew: \
                     {error}",
                    part.name,
                    parts.release
                );
            }
        }
        state
    }
}

fn part(name: &str, contents: Option<&impl Serialize>) -> Option<Part> {
    let contents = rmp_serde::to_vec_named(contents?);
    match contents {
        Ok(contents) => Some(Part {
            name: name.to_owned(),
            version: VERSION,
            contents: contents.into(),
        }),
        Err(error) => {
            tracing::warn!("the state of the {name} cannot be stored: {error}");
            None
        }
    }
}

impl Part {
    fn read<T: DeserializeOwned>(&self) -> Result<T, Incomprehensible> {
        if self.version != VERSION {
            return Err(Incomprehensible::Version(self.version));
        }
        Ok(rmp_serde::from_slice(&self.contents)?)
    }
}

#[cfg(test)]
mod tests {
    use teredo_proto::Relay;

    use super::*;

    const ENDPOINT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 3545);

    fn relay() -> RelayState {
        let config = relay::Config::new(ENDPOINT.into());
        let relay = Relay::new(config, [1; 32]);
        RelayState {
            endpoint: ENDPOINT,
            relay: relay.state(teredo_common::time::Instant::from_nanos(1)),
        }
    }

    /// A relay as a release writes it that knows more, or less.
    #[derive(Serialize)]
    struct Other {
        endpoint: SocketAddrV4,
        relay: relay::State,
        #[serde(skip_serializing_if = "Option::is_none")]
        a_field_of_later: Option<[u8; 3]>,
    }

    fn encoded(parts: Vec<Part>) -> Vec<u8> {
        let release = "another".to_owned();
        rmp_serde::to_vec_named(&Parts { release, parts }).unwrap()
    }

    #[test]
    fn a_field_of_another_release_is_skipped() {
        for a_field_of_later in [Some([1, 2, 3]), None] {
            let RelayState { endpoint, relay } = relay();
            let other = Other {
                endpoint,
                relay,
                a_field_of_later,
            };
            let octets = encoded(vec![part(RELAY, Some(&other)).unwrap()]);
            let state = State::decode(&octets);
            assert_eq!(state.relay.unwrap().endpoint, ENDPOINT);
        }
    }

    #[test]
    fn a_part_that_is_not_understood_leaves_the_others() {
        let good = || part(RELAY, Some(&relay())).unwrap();
        let later = Part {
            version: VERSION + 1,
            ..good()
        };
        let unknown = Part {
            name: "fleet".to_owned(),
            ..good()
        };
        let wrong = Part {
            name: CLIENT.to_owned(),
            ..good()
        };
        let state = State::decode(&encoded(vec![unknown, wrong, good()]));
        assert!(state.relay.is_some() && state.client.is_none());
        let state = State::decode(&encoded(vec![later]));
        assert!(state.relay.is_none());
    }

    #[test]
    fn octets_that_are_no_state_are_none() {
        for octets in [&b""[..], b"\xff", &[0x93; 100], b"teredo"] {
            let state = State::decode(octets);
            assert!(state.relay.is_none() && state.server.is_none() && state.client.is_none());
        }
    }
}
