//! The state of a client that outlives the process, so that the next one goes on where it ended.

use serde::{Deserialize, Serialize};
use teredo_common::time::Instant;

use super::{
    Client, Config, Event, Network, State,
    exchange::{Exchange, SavedExchange},
    qualification::Qualification,
};

/// The state of a client. Its moments are those of one boot of the host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedClient {
    /// The service port, host byte order.
    port: u16,
    network: Network,
    qualification: Qualification,
    exchange: SavedExchange,
}

impl SavedClient {
    /// Returns the service port, host byte order.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns whether the client was started.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.qualification.state() != State::Stopped
    }

    /// Returns whether a client of this configuration can go on from the state: it has the same port, and
    /// still uses the server.
    #[must_use]
    pub fn fits(&self, config: &Config) -> bool {
        let server = self.qualification.chosen_server();
        self.port == config.port && server.is_none_or(|server| config.servers.contains(&server))
    }
}

impl Client {
    /// Returns the state, without what [`Client::poll_transmit`] and [`Client::poll_event`] have not
    /// returned yet.
    #[must_use]
    pub fn save(&self, now: Instant) -> SavedClient {
        SavedClient {
            port: self.shared.config.port,
            network: self.shared.network.clone(),
            qualification: self.qualification.clone(),
            exchange: self.exchange.state(now),
        }
    }

    /// Returns a client that decides about packets as this one would now. What it does changes nothing
    /// here. `seed` is as for [`Client::new`].
    #[must_use]
    pub fn copy(&self, now: Instant, seed: [u8; 32]) -> Self {
        let config = self.shared.config.clone();
        let mut copy = Self::restore(config, seed, now, self.save(now));
        copy.shared.transmits.clear();
        copy.shared.events.clear();
        copy
    }

    /// Creates a client that goes on from a state that [fits](SavedClient::fits). It asks for the ports that
    /// were open, and reports its address again. `seed` is as for [`Client::new`].
    #[must_use]
    pub fn restore(config: Config, seed: [u8; 32], now: Instant, saved: SavedClient) -> Self {
        let mut client = Self::new(config, seed);
        let shared = &mut client.shared;
        let attached = saved.network.attached.iter();
        let addresses: Vec<_> = attached.map(|network| network.address).collect();
        shared.own_ipv4.set(&addresses, []);
        shared.network = saved.network;
        client.qualification = saved.qualification;
        client.qualification.resume(shared);
        let config = shared.config.clone();
        client.exchange = Exchange::restore(shared, &config, now, saved.exchange);
        client.identity = client.qualification.identity().copied();
        if let Some(identity) = client.identity {
            client.shared.emit(Event::Qualified(identity));
        }
        client.qualification.report_refresh(&mut client.shared);
        // They may differ after a state that nobody has written.
        (client.exchange).set_identity(&mut client.shared, now, client.identity);
        client
    }
}
