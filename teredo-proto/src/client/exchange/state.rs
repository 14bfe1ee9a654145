//! The state of the half that talks with peers, as it outlives the process.

use serde::{Deserialize, Serialize};
use teredo_common::time::Instant;

use super::{
    Exchange, contact::Contact, discovery::Discovery, extensions::ports::Ports,
    limits::SavedLimits, relays::Relays,
};
use crate::{
    client::{Config, Identity, shared::Shared},
    shared::{
        keyed::Keyed,
        peers::{History, Queue, SavedPeer, SavedQueue},
        turns::SavedTurns,
    },
};

/// The state of an [`Exchange`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedExchange {
    tables: Keyed,
    identity: Option<Identity>,
    peers: Vec<SavedPeer<SavedContact>>,
    ports: Ports,
    #[serde(default)]
    departed: Vec<([u8; 16], History)>,
    #[serde(default)]
    relays: Relays,
    #[serde(default)]
    discovery: Discovery,
    #[serde(default)]
    limits: SavedLimits,
    #[serde(default)]
    turns: SavedTurns,
}

/// The part of a peer's entry that only the client needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct SavedContact {
    contact: Contact,
    held: SavedQueue,
}

impl Exchange {
    /// Returns the state.
    pub fn state(&self, now: Instant) -> SavedExchange {
        SavedExchange {
            tables: self.keyed,
            identity: self.identity,
            peers: self.peers.save(|contact| SavedContact {
                held: SavedQueue::of(&contact.held),
                contact: Contact {
                    held: Queue::default(),
                    ..contact.clone()
                },
            }),
            ports: self.ports.clone(),
            departed: self.departed.save(),
            relays: self.relays.clone(),
            discovery: self.discovery.clone(),
            limits: self.limits.save(now),
            turns: self.turns.save(now),
        }
    }

    /// Goes on from a state: opens the ports that were open, and takes the peers.
    pub fn restore(
        shared: &mut Shared,
        config: &Config,
        now: Instant,
        saved: SavedExchange,
    ) -> Self {
        let mut exchange = Self::with_tables(config, saved.tables);
        exchange.identity = saved.identity;
        let address = saved.identity.map(|identity| identity.address.octets());
        exchange.own = address.unwrap_or_default();
        exchange.ports = saved.ports;
        for port in exchange.ports.numbers() {
            shared.open_again(port);
        }
        for (address, history) in saved.departed {
            exchange.departed.keep(address, history);
        }
        exchange.relays = saved.relays;
        exchange.discovery = saved.discovery;
        exchange.limits.restore(&saved.limits);
        exchange.turns.restore(&saved.turns);
        for peer in saved.peers {
            let held = &mut exchange.held;
            let contact = |saved: SavedContact| Contact {
                held: saved.held.restore(held),
                ..saved.contact
            };
            (exchange.peers).restore(now, peer, &mut exchange.queues, contact);
        }
        exchange
    }
}
