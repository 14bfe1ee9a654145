//! The traffic of each peer, and how much of it was reported.
//!
//! It is apart from the entries of peers, so that one of those stays within two cache lines.

use std::net::Ipv6Addr;

use teredo_common::{address::Endpoint, traffic::Traffic};

/// The most peers with traffic that may be removed between two reports.
const REMOVED_MAX: usize = 1 << 20;

/// Traffic of one peer since the last report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerTraffic {
    /// The peer's address.
    pub address: Ipv6Addr,
    /// Its endpoint, or the last one.
    pub mapped: Endpoint,
    /// The packets in both directions that were not bubbles.
    pub traffic: Traffic,
}

/// The account of one peer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    /// The packets in both directions that were not bubbles.
    pub total: Traffic,
    /// The part of them that was reported.
    pub reported: Traffic,
}

/// The accounts of all peers, by their slots.
#[derive(Debug, Default)]
pub struct Accounts {
    accounts: Vec<Account>,
    /// What was not reported of the peers that were removed; `None` if nobody asks for reports.
    removed: Option<Vec<PeerTraffic>>,
}

impl Accounts {
    /// Begins the account of a peer.
    pub fn open(&mut self, slot: usize) {
        if slot >= self.accounts.len() {
            self.accounts.resize(slot + 1, Account::default());
        }
        self.accounts[slot] = Account::default();
    }

    /// Ends the account of a peer.
    pub fn close(&mut self, slot: usize, address: [u8; 16], mapped: Endpoint) {
        let traffic = self.unreported(slot);
        if let Some(removed) = &mut self.removed
            && !traffic.is_none()
            && removed.len() < REMOVED_MAX
        {
            removed.push(PeerTraffic {
                address: address.into(),
                mapped,
                traffic,
            });
        }
    }

    /// Returns the account in a slot.
    pub fn get(&self, slot: usize) -> Account {
        self.accounts.get(slot).copied().unwrap_or_default()
    }

    /// Returns the account in a slot as it outlives the process. Without reports there is nothing to report later.
    pub fn saved(&self, slot: usize) -> Account {
        let account = self.get(slot);
        Account {
            reported: match self.removed {
                Some(_) => account.reported,
                None => account.total,
            },
            ..account
        }
    }

    /// Returns the account of a peer.
    pub fn get_mut(&mut self, slot: usize) -> &mut Account {
        &mut self.accounts[slot]
    }

    /// Makes what is counted from now on be reported.
    pub fn begin_reports(&mut self) {
        self.removed.get_or_insert_default();
    }

    /// Returns the traffic of a peer since its last report.
    pub fn unreported(&self, slot: usize) -> Traffic {
        let Account { total, reported } = self.get(slot);
        total.since(reported)
    }

    /// Notes that all traffic of a peer so far was reported.
    pub fn note_reported(&mut self, slot: usize) {
        let account = &mut self.accounts[slot];
        account.reported = account.total;
    }

    /// Returns the unreported traffic of the peers that were removed since the last call.
    pub fn take_removed(&mut self) -> Vec<PeerTraffic> {
        self.removed
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use teredo_common::traffic::Count;

    use super::*;

    const ADDRESS: [u8; 16] = [7; 16];

    fn traffic(packets: u64) -> Traffic {
        let count = Count {
            packets,
            octets: 100 * packets,
        };
        Traffic {
            encap: count,
            decap: Count::default(),
        }
    }

    #[test]
    fn every_packet_is_reported_once() {
        let mut accounts = Accounts::default();
        accounts.begin_reports();
        accounts.open(2);
        accounts.get_mut(2).total += traffic(3);
        assert_eq!(accounts.unreported(2), traffic(3));
        // The report did not arrive.
        accounts.get_mut(2).total += traffic(1);
        assert_eq!(accounts.unreported(2), traffic(4));
        accounts.note_reported(2);
        assert!(accounts.unreported(2).is_none());
        accounts.get_mut(2).total += traffic(5);
        accounts.close(2, ADDRESS, Endpoint::default());
        let removed = accounts.take_removed();
        assert_eq!(removed.len(), 1);
        assert_eq!(removed[0].traffic, traffic(5));
        assert!(accounts.take_removed().is_empty());
        // The next peer in the slot.
        accounts.open(2);
        accounts.close(2, ADDRESS, Endpoint::default());
        assert!(accounts.take_removed().is_empty());
    }

    #[test]
    fn nothing_is_kept_for_nobody() {
        let mut accounts = Accounts::default();
        accounts.open(0);
        accounts.get_mut(0).total += traffic(3);
        let Account { total, reported } = accounts.saved(0);
        assert_eq!((total, reported), (traffic(3), traffic(3)));
        accounts.close(0, ADDRESS, Endpoint::default());
        assert!(accounts.take_removed().is_empty());
    }
}
