//! The rate of solicitations.

use std::{collections::BTreeMap, time::Duration};

use teredo_common::{address::Endpoint, time::Instant};
use teredo_proto::wire::{encapsulation::Encapsulation, ipv6::Header, router};

use super::Violation;
use crate::node::Node;

/// The least time between two solicitations from the service port to a primary address. Those to
/// the secondary address follow the answers, and may be closer to each other.
const GAP: Duration = Duration::from_secs(2);
/// The period of [`MANY`].
const WINDOW: Duration = Duration::from_secs(60);
/// The most solicitations in a [`WINDOW`], including those that measure a NAT's behaviour.
const MANY: usize = 60;

/// The solicitations of a client.
#[derive(Debug, Default)]
pub(super) struct Solicitations {
    last: BTreeMap<Endpoint, Instant>,
    all: Vec<Instant>,
}

impl Solicitations {
    pub fn sent(
        &mut self,
        now: Instant,
        node: &Node,
        from: Endpoint,
        to: Endpoint,
        parts: &Encapsulation<'_>,
    ) -> Result<(), Violation> {
        let (Node::Client(client), Ok(header)) = (node, Header::parse(parts.packet)) else {
            return Ok(());
        };
        if !router::is_solicitation(header, parts.packet) {
            return Ok(());
        }
        self.all.retain(|&at| now.saturating_since(at) < WINDOW);
        self.all.push(now);
        if self.all.len() > MANY {
            return Err(format!("{} solicitations in {WINDOW:?}", self.all.len()));
        }
        let server = client.client.server();
        let is_primary = server.is_some_and(|server| server.primary() == to);
        if from != client.endpoint() || !is_primary {
            return Ok(());
        }
        let gap = self
            .last
            .insert(to, now)
            .map(|last| now.saturating_since(last));
        match gap {
            Some(gap) if gap < GAP => Err(format!("a client asks {to} again after {gap:?} (C-46)")),
            _ => Ok(()),
        }
    }
}
