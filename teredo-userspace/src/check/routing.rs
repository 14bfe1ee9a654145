//! The kernel's neighbours and policy rules.

use std::net::IpAddr;

use ipnet::Ipv6Net;
use rtnetlink::packet_route::{
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    rule::{RuleAction, RuleAttribute, RuleMessage},
};
use teredo_common::generations::Family;

use crate::datapath::route::{RouteError, Routes};

/// A neighbour whose link-layer address was asked for in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SilentNeighbour {
    /// The index of its interface.
    pub interface: u32,
    /// Its address.
    pub address: IpAddr,
}

/// A policy rule of IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    /// The lower, the earlier.
    pub priority: u32,
    /// The destinations that it concerns; none for all.
    pub destination: Option<Ipv6Net>,
    /// Whether it concerns packets by anything else: their source, interface, mark or user.
    pub is_selective: bool,
    /// Its action.
    pub action: RuleAction,
    /// The table that it looks routes up in.
    pub table: u32,
}

/// The part of the kernel's routing at one moment that the daemon does not depend on.
#[derive(Clone, Debug, Default)]
pub struct Routing {
    /// The neighbours that do not answer.
    pub silent: Vec<SilentNeighbour>,
    /// The rules of IPv6.
    pub rules: Vec<PolicyRule>,
}

impl Routing {
    /// Asks the kernel.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub async fn read(routes: &Routes) -> Result<Self, RouteError> {
        let neighbours = routes.neighbours().await?;
        // A kernel without policy routing has no rules.
        let rules = routes.rules(Family::Ipv6).await.unwrap_or_default();
        Ok(Self {
            silent: neighbours.iter().filter_map(silent).collect(),
            rules: rules.iter().map(rule).collect(),
        })
    }
}

fn silent(neighbour: &NeighbourMessage) -> Option<SilentNeighbour> {
    if neighbour.header.state != NeighbourState::Failed {
        return None;
    }
    let address = neighbour
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                Some((*address).into())
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                Some((*address).into())
            }
            _ => None,
        })?;
    Some(SilentNeighbour {
        interface: neighbour.header.ifindex,
        address,
    })
}

fn rule(message: &RuleMessage) -> PolicyRule {
    let header = &message.header;
    let mut rule = PolicyRule {
        priority: 0,
        destination: None,
        is_selective: header.src_len > 0 || header.tos != 0,
        action: header.action,
        table: header.table.into(),
    };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Destination(IpAddr::V6(address)) => {
                rule.destination = Ipv6Net::new(*address, header.dst_len).ok();
            }
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(table) => rule.table = *table,
            RuleAttribute::Iifname(_)
            | RuleAttribute::Oifname(_)
            | RuleAttribute::FwMark(_)
            | RuleAttribute::UidRange(_)
            | RuleAttribute::IpProtocol(_)
            | RuleAttribute::SourcePortRange(_)
            | RuleAttribute::DestinationPortRange(_)
            | RuleAttribute::L3MDev(_) => rule.is_selective = true,
            _ => {}
        }
    }
    rule
}
