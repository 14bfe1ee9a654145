//! The traffic of peers that the program has counted, on its way to the relay.

use aya::maps::MapData;
use teredo_common::{time::Instant, traffic::Traffic};
use teredo_datapath::table::Cursor;
use teredo_proto::relay::Relay;

use super::FastPath;
use crate::datapath::xdp::uncollected_traffic;

impl FastPath {
    /// Hands all traffic that the program has counted to the relay, at once.
    pub fn collect_traffic(&mut self, relay: &mut Relay, now: Instant) {
        self.collect_left(relay);
        if let Some(xdp) = &self.xdp {
            let mut cursor = Cursor::default();
            let strays = &mut self.strays;
            xdp.program
                .visit_peers(&mut cursor, usize::MAX, now, |address, _, traffic| {
                    record(relay, strays, address, traffic);
                });
        }
    }

    /// Hands the traffic that was counted at places which peers have left, and by programs which are gone, to the relay.
    pub(super) fn collect_left(&mut self, relay: &mut Relay) {
        let left = self.xdp.as_mut().map(|xdp| xdp.program.take_left());
        let left = match left.transpose() {
            Ok(left) => left.unwrap_or_default(),
            Err(error) => {
                self.failure = Some(error.to_string());
                Vec::new()
            }
        };
        for (address, traffic) in self.uncollected.drain(..).chain(left) {
            record(relay, &mut self.strays, &address, traffic);
        }
    }

    /// Keeps what was counted in the map of a program that is gone.
    pub(super) fn collect_last(&mut self, map: Option<&MapData>) {
        let Some(map) = map else {
            return;
        };
        match uncollected_traffic(map) {
            Ok(traffic) => self.uncollected.extend(traffic),
            Err(error) => tracing::debug!("the last packets of peers are not counted: {error}"),
        }
    }

    /// Returns the traffic of peers that the relay has forgotten, since the last call.
    pub fn take_strays(&mut self) -> Vec<([u8; 16], Traffic)> {
        std::mem::take(&mut self.strays)
    }
}

/// Hands traffic of a peer to the relay.
pub(super) fn record(
    relay: &mut Relay,
    strays: &mut Vec<([u8; 16], Traffic)>,
    address: &[u8; 16],
    traffic: Traffic,
) {
    if !traffic.is_none() && !relay.record_traffic(address, traffic) {
        strays.push((*address, traffic));
    }
}
