//! The state of a client that outlives the process, so that the next one goes on where it ended.

use serde::{Deserialize, Serialize};
use teredo_common::{address::Endpoint, time::Instant};
use thiserror::Error;

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

/// The reason why a client cannot go on from a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Misfit {
    /// The client had another service port.
    #[error("it had port {0}")]
    Port(u16),
    /// The client used a server that is not one of the configuration.
    #[error("it used the server {0}, which is not configured")]
    Server(Endpoint),
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

    /// Checks whether a client of this configuration can go on from the state: it has the same port, and
    /// still uses the server.
    ///
    /// # Errors
    ///
    /// The reason why it cannot.
    pub fn check(&self, config: &Config) -> Result<(), Misfit> {
        if self.port != config.port {
            return Err(Misfit::Port(self.port));
        }
        match self.qualification.chosen_server() {
            Some(server) if !config.servers.contains(&server) => {
                Err(Misfit::Server(server.primary()))
            }
            _ => Ok(()),
        }
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

    /// Creates a client that goes on from a state that [fits](SavedClient::check). It asks for the ports that
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
