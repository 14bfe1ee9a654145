//! The programs that run in the scene.

use std::net::{Ipv6Addr, SocketAddrV4};

use anyhow::{Context as _, Result};

use super::{Maker, RELAY, SECONDARY, SERVER, Scene, Site};
use crate::{
    Namespace, miredo,
    teredo::{Config, Teredo},
};

/// A running program of one of the two implementations.
#[derive(Debug)]
pub enum Either<Theirs> {
    /// Our own.
    Teredo(Box<Teredo>),
    /// Miredo.
    Miredo(Theirs),
}

impl<Theirs> Either<Theirs> {
    /// Our program, if it is ours.
    #[must_use]
    pub fn teredo(&self) -> Option<&Teredo> {
        match self {
            Self::Teredo(teredo) => Some(teredo),
            Self::Miredo(_) => None,
        }
    }
}

/// A running server.
pub type Server = Either<miredo::Server>;
/// A running relay.
pub type Relay = Either<miredo::Relay>;

/// A running client that was qualified.
#[derive(Debug)]
pub enum Client {
    /// Our own.
    Teredo(Box<Teredo>, Ipv6Addr),
    /// Miredo.
    Miredo(miredo::Client),
}

impl Client {
    /// The Teredo address that the client qualified with.
    #[must_use]
    pub fn address(&self) -> Ipv6Addr {
        match self {
            Self::Teredo(_, address) => *address,
            Self::Miredo(client) => client.address(),
        }
    }

    /// Our client, if it is ours.
    #[must_use]
    pub fn teredo(&self) -> Option<&Teredo> {
        match self {
            Self::Teredo(teredo, _) => Some(teredo),
            Self::Miredo(_) => None,
        }
    }
}

impl Scene {
    /// The configuration of our server in this scene, with XDP if available.
    #[must_use]
    pub fn server_config(&self) -> Config {
        let addresses = [SERVER, SECONDARY].map(|address| address.to_string());
        Config::new().set("server.ipv4", addresses.to_vec())
    }

    /// Starts our server for relays with many peers, who are all one source of bubbles to it: without limits that they
    /// reach.
    ///
    /// # Errors
    ///
    /// Fails when the server does not come up.
    pub fn with_patient_server(mut self) -> Result<Self> {
        let limits = [
            ("server.rate", 100_000_000),
            ("server.burst", 1_000_000),
            ("server.network-rate", 100_000_000),
            ("server.network-burst", 1_000_000),
        ];
        let config = self.server_config().set("server.xdp.mode", "off");
        let config =
            (limits.into_iter()).fold(config, |config, (key, limit)| config.set(key, limit));
        let server = self.start_server(&config)?;
        self.server = Some(Server::Teredo(Box::new(server)));
        Ok(self)
    }

    /// Starts our server.
    ///
    /// # Errors
    ///
    /// Fails when the server does not come up.
    pub fn start_server(&self, config: &Config) -> Result<Teredo> {
        Teredo::start(self.server_namespace(), config)
    }

    /// Starts Miredo's server.
    ///
    /// # Errors
    ///
    /// Fails when the server does not come up.
    pub fn start_miredo_server(&self) -> Result<miredo::Server> {
        miredo::Server::start(self.server_namespace(), SERVER)
    }

    /// Starts Miredo's relay.
    ///
    /// # Errors
    ///
    /// Fails when the relay does not come up.
    pub fn start_miredo_relay(&self) -> Result<miredo::Relay> {
        miredo::Relay::start(&self.relay, *RELAY.ip(), RELAY.port())
    }

    /// The configuration of our relay in this scene, with XDP if available.
    #[must_use]
    pub fn relay_config(&self) -> Config {
        let mut interfaces = self.relay_interfaces().map(str::to_owned).to_vec();
        interfaces.dedup();
        Config::new()
            .set("relay.ipv4", RELAY.ip().to_string())
            .set("relay.port", i64::from(RELAY.port()))
            .set("relay.xdp.interfaces", interfaces)
    }

    /// The configuration of both roles in one process, in [`Place::Relay`]; the relay's endpoint
    /// may be that of the server's primary address.
    #[must_use]
    pub fn dual_config(&self, relay: SocketAddrV4) -> Config {
        self.relay_config()
            .merge(self.server_config())
            .set("relay.ipv4", relay.ip().to_string())
            .set("relay.port", i64::from(relay.port()))
    }

    /// Starts our relay.
    ///
    /// # Errors
    ///
    /// Fails when the relay does not come up.
    pub fn start_relay(&self, config: &Config) -> Result<Teredo> {
        Teredo::start(&self.relay, config)
    }

    /// Starts a relay.
    ///
    /// # Errors
    ///
    /// Fails when the relay does not come up.
    pub fn start_relay_of(&self, maker: Maker) -> Result<Relay> {
        Ok(match maker {
            Maker::Teredo => Relay::Teredo(Box::new(self.start_relay(&self.relay_config())?)),
            Maker::Miredo => Relay::Miredo(self.start_miredo_relay()?),
        })
    }

    /// The configuration of our client of the scene's server, with this service port.
    #[must_use]
    pub fn client_config(&self, port: u16) -> Config {
        Config::new()
            .set("client.server", vec![SERVER.to_string()])
            .set("client.port", i64::from(port))
    }

    /// Starts our client and waits until it is qualified.
    ///
    /// # Errors
    ///
    /// Fails when the client is not qualified in time.
    pub fn start_client(&self, namespace: &Namespace, config: &Config) -> Result<Client> {
        let mut teredo = Teredo::start(namespace, config)?;
        let address = teredo.qualified(namespace)?;
        Ok(Client::Teredo(Box::new(teredo), address))
    }

    /// Starts a client with this service port and waits until it is qualified.
    ///
    /// # Errors
    ///
    /// Fails when the client is not qualified in time.
    pub fn start_client_in(
        &self,
        maker: Maker,
        namespace: &Namespace,
        port: u16,
    ) -> Result<Client> {
        match maker {
            Maker::Teredo => self.start_client(namespace, &self.client_config(port)),
            Maker::Miredo => miredo::Client::start(namespace, SERVER, port).map(Client::Miredo),
        }
    }

    /// Starts a client at a site and waits until it is qualified.
    ///
    /// # Errors
    ///
    /// Fails when the client is not qualified in time.
    pub fn start_client_of(&self, maker: Maker, site: &Site) -> Result<Client> {
        self.start_client_in(maker, &site.client, site.port)
            .with_context(|| format!("the client behind {}", site.nat.address()))
    }

    /// Starts Miredo's client at the first site and waits until it is qualified.
    ///
    /// # Errors
    ///
    /// Fails when the client is not qualified in time.
    pub fn start_miredo_client(&self) -> Result<miredo::Client> {
        let site = self.site();
        miredo::Client::start(&site.client, SERVER, site.port)
    }
}
