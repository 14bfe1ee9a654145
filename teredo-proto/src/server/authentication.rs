//! Who asks: solicitations that prove that their sender has a key (requirements ).

use std::time::Duration;

use teredo_common::{address::Endpoint, time::Instant};

use super::{Event, Server, config::RegisteredClient, statistics::DropReason};
use crate::wire::{
    authentication::Key,
    encapsulation::{Authentication, NONCE_LENGTH},
};

/// The number of the key that is valid among those of a client.
pub const VALID: usize = 0;
/// The operator is told again of a retired key after this time.
const RETIRED: Duration = Duration::from_secs(3600);

/// What the authentication header of a solicitation says about its sender.
#[derive(Clone, Copy, Debug)]
pub enum Identity<'p> {
    /// There is none.
    Anonymous,
    /// The nonce alone, or a client that this server does not know.
    Nonce([u8; NONCE_LENGTH]),
    /// A client that proved to have a key.
    Client {
        /// Its number in [`Clients`].
        number: usize,
        /// Number of the key: [`VALID`], or else it is retired.
        key: usize,
        /// The header.
        header: Authentication<'p>,
    },
}

/// The clients that have keys.
#[derive(Debug)]
pub struct Clients {
    /// Sorted by identification.
    clients: Vec<RegisteredClient>,
    /// When the operator was last told that a client uses a retired key, by number of the client.
    told: Vec<Option<Instant>>,
    is_required: bool,
}

impl Clients {
    pub fn new(mut clients: Vec<RegisteredClient>, is_required: bool) -> Self {
        // Stable: of two with the same identification the first stays.
        clients.sort_by(|one, other| one.id.cmp(&other.id));
        clients.dedup_by(|later, first| later.id == first.id);
        Self {
            told: vec![None; clients.len()],
            clients,
            is_required,
        }
    }

    /// Finds out who sent a solicitation. `packet` is the IPv6 packet, without trailers.
    pub fn identify<'p>(
        &self,
        header: Option<Authentication<'p>>,
        packet: &[u8],
    ) -> Result<Identity<'p>, DropReason> {
        let unknown = match header {
            None => Identity::Anonymous,
            Some(header) => Identity::Nonce(header.nonce),
        };
        let Some(header) = header.filter(|one| !one.client.is_empty() || !one.value.is_empty())
        else {
            return self.optional(unknown, DropReason::AuthenticationRequired);
        };
        let Some(number) = self.find(header.client) else {
            return self.optional(unknown, DropReason::UnknownClient);
        };
        let key = self
            .keys(number)
            .position(|key| key.verify(&header, packet))
            .ok_or(DropReason::AuthenticationFailed)?;
        Ok(Identity::Client {
            number,
            key,
            header,
        })
    }

    /// The keys of a client: the valid one and then those that are retired.
    pub fn keys(&self, number: usize) -> impl Iterator<Item = &Key> {
        let client = &self.clients[number];
        std::iter::once(&client.key).chain(&client.retired)
    }

    /// All clients, in the order of their numbers.
    pub fn all(&self) -> &[RegisteredClient] {
        &self.clients
    }

    fn find(&self, id: &[u8]) -> Option<usize> {
        self.clients
            .binary_search_by(|client| client.id.as_slice().cmp(id))
            .ok()
    }

    fn optional<'p>(
        &self,
        identity: Identity<'p>,
        reason: DropReason,
    ) -> Result<Identity<'p>, DropReason> {
        if self.is_required {
            return Err(reason);
        }
        Ok(identity)
    }
}

impl Server {
    /// Tells the operator of a client with a retired key, now and then.
    pub(super) fn note_key(&mut self, now: Instant, number: usize, key: usize, from: Endpoint) {
        let told = &mut self.clients.told[number];
        let is_new = told.is_none_or(|told| now.saturating_since(told) >= RETIRED);
        if key == VALID || !is_new {
            return;
        }
        *told = Some(now);
        let client = self.clients.clients[number].id.clone();
        self.emit(Event::RetiredKey {
            client,
            mapped: from,
        });
    }
}
