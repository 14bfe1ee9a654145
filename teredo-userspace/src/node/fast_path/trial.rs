//! Loading the program without attaching it.

use std::net::SocketAddrV4;

use anyhow::Result;
use teredo_proto::{relay, server::RegisteredClient};

use super::{ProgramPlan, Roles};
use crate::{
    config::Config,
    datapath::xdp::{Error, Interface, Parameters, Program, VlanOptions},
    host::Snapshot,
    node::parameters::{budget, server_config, settings},
    plan::{FastPathItem, Item, Plan},
};

/// Loads the program with the maps and constants of a plan, and removes it. `relay` is the relay's
/// endpoint, `clients` the clients of the server with their keys. Without a planned program it does
/// nothing.
///
/// # Errors
///
/// The kernel's refusal, [`Error`], or trouble with the question itself.
pub fn load(
    config: &Config,
    host: &Snapshot,
    plan: &Plan,
    relay: Option<SocketAddrV4>,
    clients: Vec<RegisteredClient>,
) -> Result<()> {
    let Some(item) = plan.items.iter().find_map(program) else {
        return Ok(());
    };
    let own = host.own_addresses();
    let server = match &config.server {
        Some(section) => Some(server_config(config, section, relay, &own, clients, None)?),
        None => None,
    };
    let relay = config.relay.as_ref().zip(relay).map(|(section, endpoint)| {
        let lifetime = relay::Config::new(endpoint.into()).peer_lifetime;
        // The index of the tunnel takes no part in any decision of the verifier.
        (section, settings(config, section, endpoint, lifetime, 0))
    });
    let roles = Roles {
        relay,
        server: server.as_ref(),
    };
    let plan = ProgramPlan::of(item, host, &roles);
    let interfaces = plan
        .interfaces
        .iter()
        .map(|name| Interface::named(name))
        .collect::<Result<Vec<_>, Error>>()?;
    let vlans = plan
        .vlans
        .iter()
        .map(VlanOptions::find)
        .collect::<Result<Vec<_>, Error>>()?;
    let parameters = Parameters {
        settings: plan.settings,
        budget: budget(config),
        max_peers: plan.max_peers,
        accounting: plan.accounting,
        served: &plan.served,
        own_ipv4: &own.ipv4,
        interfaces: &interfaces,
        vlans: &vlans,
        server: plan.server.as_ref(),
        now: crate::node::clock::now(),
    };
    Program::load(&parameters, None)?;
    Ok(())
}

fn program(item: &Item) -> Option<&FastPathItem> {
    match item {
        Item::FastPath(item) => Some(item),
        _ => None,
    }
}
