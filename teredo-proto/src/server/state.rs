//! The state of a server that outlives the process, so that the next one goes on where it ended.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use teredo_common::time::Instant;

use super::{Buckets, Config, Server, tunnel::SavedLease};

/// The state of a server. Its moments are those of one boot of the host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedServer {
    /// [`Limits::seed`](teredo_common::limiter::Limits::seed), without which the buckets mean nothing.
    seed: u64,
    /// The buckets that are not full, each with its place.
    buckets: Vec<(u32, u64)>,
    /// What is known about clients of the tunnel service, by identification.
    leases: Vec<(ByteBuf, SavedLease)>,
}

impl SavedServer {
    /// Returns the seed that the next server has to have.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

impl Server {
    /// Returns the state.
    #[must_use]
    pub fn state(&self, now: Instant) -> SavedServer {
        let clients = self.clients.all().iter().enumerate();
        SavedServer {
            seed: self.limits.seed,
            buckets: self.buckets.save(now),
            leases: clients
                .filter_map(|(number, client)| {
                    let lease = self.tunnel.save(number)?;
                    Some((ByteBuf::from(client.id.clone()), lease))
                })
                .collect(),
        }
    }

    /// Returns a server that decides about packets as this one would now, with limits of its own: what it
    /// does changes nothing here.
    #[must_use]
    pub fn copy(&self, now: Instant) -> Self {
        let config = Config {
            clients: self.clients.all().to_vec(),
            own_ipv4: self.own_ipv4.iter().collect(),
            ..self.config.clone()
        };
        let mut copy = Self::new(config, Buckets::new());
        copy.native_reachable = self.native_reachable;
        copy.draining = self.draining;
        copy.restore(&self.state(now));
        copy
    }

    /// Returns the state without the levels of the limits.
    #[must_use]
    pub fn state_of_clients(&self) -> SavedServer {
        self.state(Instant::from_nanos(u64::MAX))
    }

    /// Goes on from a state, as far as the clients still exist and the seed is the same.
    pub fn restore(&mut self, saved: &SavedServer) {
        if saved.seed == self.limits.seed {
            self.buckets.restore(&saved.buckets);
        }
        for (id, lease) in &saved.leases {
            let mut clients = self.clients.all().iter();
            if let Some(number) = clients.position(|client| client.id == **id) {
                self.tunnel.restore(number, lease);
            }
        }
    }
}
