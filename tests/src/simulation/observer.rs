//! stub
use teredo_common::{address::Endpoint, time::Instant};
use super::{node::{Node, Output}, world::NodeId};
/// Watches.
#[derive(Debug, Default)]
pub struct Observer {}
impl Observer {
    pub(super) fn acted(&mut self, _now: Instant, _id: NodeId, _node: &Node, _depth: u16, _output: &[Output]) {}
    pub(super) fn arrived(&mut self, _now: Instant, _id: NodeId, _from: Endpoint, _to: Endpoint, _payload: &[u8]) {}
    pub(super) fn discovered(&mut self, _now: Instant, _id: NodeId, _from: Endpoint, _payload: &[u8]) {}
}
