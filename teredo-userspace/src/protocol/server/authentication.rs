//! Who asks: solicitations that prove that their sender has a key (requirements ).

use crate::wire::{
    authentication::Key,
    encapsulation::{Authentication, NONCE_LENGTH},
};

use super::{config::Client, statistics::DropReason};

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
        /// Number of the key: zero is the valid one, others are retired.
        key: usize,
        /// The header.
        header: Authentication<'p>,
    },
}

/// The clients that have keys.
#[derive(Debug)]
pub struct Clients {
    /// Sorted by identification.
    clients: Vec<Client>,
    is_required: bool,
}

impl Clients {
    pub fn new(mut clients: Vec<Client>, is_required: bool) -> Self {
        // Stable: of two with the same identification the first stays.
        clients.sort_by(|one, other| one.id.cmp(&other.id));
        clients.dedup_by(|later, first| later.id == first.id);
        Self {
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
    pub fn all(&self) -> &[Client] {
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
