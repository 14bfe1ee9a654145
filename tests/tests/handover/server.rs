//! A server that is restarted while clients ask it.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context as _, Result};
use teredo_lab::{
    caller::Caller,
    qualification::{CLIENT, solicitation},
    scene::{SERVER, Scene, Topology},
    service::Service,
};

/// A solicitation that arrives while no process runs is answered by the next one.
fn asked_meanwhile(mode: &str) -> Result<()> {
    let scene = Scene::new(Topology {
        server: None,
        ..Topology::default()
    })?;
    let config = scene.server_config().set("server.xdp.mode", mode);
    let mut service = Service::start(scene.server_namespace(), &config)?;
    let address = Ipv4Addr::new(20, 0, 77, 1);
    let host = scene.add_ipv4_host("caller", address)?;
    let caller = Caller::open(&host, SocketAddrV4::new(address, 4096))?;
    for _ in 0..3 {
        service.terminate()?;
        caller.say(SERVER, &solicitation(CLIENT))?;
        service.begin(scene.server_namespace())?;
        caller.hear().with_context(|| service.log())?;
    }
    Ok(())
}

#[test]
fn a_solicitation_during_a_restart_is_answered_on_the_fast_path() -> Result<()> {
    asked_meanwhile("native")
}

#[test]
fn a_solicitation_during_a_restart_is_answered_in_userspace() -> Result<()> {
    asked_meanwhile("off")
}
