//! Loading the program without attaching it.

use std::net::SocketAddrV4;

use anyhow::Result;
use ipnet::Ipv6Net;
use teredo_proto::{relay, server::RegisteredClient};

use super::{ProgramPlan, Roles};
use crate::{
    config::Config,
    datapath::{
        route::Routes,
        xdp::{Error, Interface, Parameters, Program},
    },
    node::parameters::{server_config, settings},
};

/// Loads the program with the maps and constants of a start with this configuration, and removes it.
/// `relay` is the relay's endpoint, `clients` the clients of the server with their keys.
///
/// # Errors
///
/// The kernel's refusal, [`Error`], or trouble with the question itself.
pub async fn load(
    config: &Config,
    relay: Option<SocketAddrV4>,
    clients: Vec<RegisteredClient>,
) -> Result<()> {
    let Some(wanted) = config.fast_path() else {
        return Ok(());
    };
    let routes = Routes::open()?;
    let own = routes.addresses().await?;
    let server = match &config.server {
        Some(section) => Some(server_config(config, section, relay, &own, clients)?),
        None => None,
    };
    let relay = config.relay.as_ref().zip(relay).map(|(section, endpoint)| {
        let lifetime = relay::Config::new(endpoint.into()).peer_lifetime;
        // The tunnel does not exist yet. Its index takes no part in any decision of the verifier.
        (section, settings(config, section, endpoint, lifetime, 0))
    });
    let served = relay.as_ref().map(|(section, _)| section.serve.clone());
    let roles = Roles {
        relay,
        server: server.as_ref(),
    };
    let plan = ProgramPlan::make(&wanted, &roles, &routes).await?;
    let interfaces = plan
        .interfaces
        .iter()
        .map(|name| Interface::named(name))
        .collect::<Result<Vec<_>, Error>>()?;
    let parameters = Parameters {
        settings: plan.settings,
        max_peers: plan.max_peers,
        served: &served.unwrap_or_else(|| vec![Ipv6Net::default()]),
        own_ipv4: &own.ipv4,
        interfaces: &interfaces,
        server: plan.server.as_ref(),
        log: false,
    };
    Program::load(&parameters, None)?;
    Ok(())
}
