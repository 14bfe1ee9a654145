//! The traffic of peers on its way from the fast path to the roles, and from there to a collector.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{Node, clock};
use crate::{
    condition::{Condition, Kind},
    metrics::Role,
};

impl Node {
    /// Reports the traffic of the peers that are due. To be called once a second.
    pub(super) fn account(&mut self) {
        let strays = self.fast_path.take_strays();
        let Some(exporter) = &mut self.exporter else {
            return;
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        for (address, traffic) in strays {
            exporter.add_stray(address, traffic, now);
        }
        if let Some(role) = &mut self.roles.relay {
            exporter.report(&mut *role.relay(), now);
        } else if let Some(role) = &mut self.client {
            exporter.report(&mut role.client, now);
        }
    }

    /// Takes everything that the fast path has counted, and reports all of it, before another process does the work, or
    /// nobody.
    pub(super) fn finish_accounts(&mut self) {
        if let Some(role) = &mut self.roles.relay {
            self.fast_path
                .collect_traffic(&mut role.relay(), clock::now());
        }
        let strays = self.fast_path.take_strays();
        let Some(exporter) = &mut self.exporter else {
            return;
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        for (address, traffic) in strays {
            exporter.add_stray(address, traffic, now);
        }
        if let Some(role) = &mut self.roles.relay {
            exporter.finish(&mut *role.relay(), now);
        } else if let Some(role) = &mut self.client {
            exporter.finish(&mut role.client, now);
        }
    }

    /// Returns the condition for a collector that takes nothing.
    pub(super) fn accounting_condition(&self, role: Role) -> Option<Condition> {
        let (collector, reason) = self.exporter.as_ref()?.failure()?;
        Some(Condition {
            kind: Kind::CollectorUnreachable,
            role,
            subject: collector.to_string(),
            text: format!(
                "the traffic of peers cannot be reported to {collector}: {reason}; start the collector, or correct \
                 node.ipfix.collector"
            ),
        })
    }
}
