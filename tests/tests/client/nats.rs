//! Clients behind every kind of NAT, to and from native hosts.

use std::fmt;

use anyhow::{Result, ensure};
use teredo_lab::{
    NatKind,
    scene::Maker,
    together,
    traffic::{Ping, Tcp},
};

use super::{scene, status};

/// A NAT, the implementations of server and relay, and the sender of the first packet.
#[derive(Clone, Copy, Debug)]
struct Case {
    nat: NatKind,
    others: Maker,
    from_the_host: bool,
}

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = if self.from_the_host { "host" } else { "client" };
        let (nat, others) = (self.nat, self.others);
        write!(formatter, "{nat:?}, others {others:?}, {who} first")
    }
}

impl Case {
    fn both_ways(nat: NatKind, others: Maker) -> [Self; 2] {
        [false, true].map(|from_the_host| Self {
            nat,
            others,
            from_the_host,
        })
    }

    fn passes(self) -> Result<()> {
        let scene = scene(self.others, &[self.nat])?;
        let _relay = scene.start_relay_of(self.others)?;
        let (site, host) = (scene.site(), scene.host());
        let client = scene.start_client_of(Maker::Teredo, site)?;
        let ways = [
            (&site.client, &host.namespace, host.address),
            (&host.namespace, &site.client, client.address()),
        ];
        let first = usize::from(self.from_the_host);
        for (from, to, address) in [ways[first], ways[1 - first]] {
            Ping::to(address).all_from(from)?;
            Ping::to(address).count(5).all_from(from)?;
            Tcp::to(address)
                .upload(300_000)
                .download(300_000)
                .between(from, to)?;
        }
        let found = client.teredo().map(status).transpose()?;
        let found = found.and_then(|status| status.nat);
        let expected = match self.nat {
            NatKind::Symmetric => "symmetric",
            // Clients do not probe for cones unless so configured.
            _ => "restricted",
        };
        ensure!(
            found.as_deref() == Some(expected),
            "it was taken for {found:?}"
        );
        Ok(())
    }
}

#[test]
fn every_nat_with_endpoint_independent_mapping_is_traversed() -> Result<()> {
    let nats = [
        NatKind::FullCone,
        NatKind::AddressRestricted,
        NatKind::PortRestricted,
    ];
    let cases = nats.into_iter().flat_map(|nat| {
        [Maker::Teredo, Maker::Miredo]
            .into_iter()
            .flat_map(move |others| Case::both_ways(nat, others))
    });
    together(cases, Case::passes)
}

#[test]
fn r13_x10_native_hosts_are_reached_from_behind_a_symmetric_nat() -> Result<()> {
    together(
        Case::both_ways(NatKind::Symmetric, Maker::Teredo),
        Case::passes,
    )
}

#[test]
fn c12_probing_finds_cones() -> Result<()> {
    for (nat, expected) in [
        (NatKind::FullCone, "cone"),
        (NatKind::PortRestricted, "restricted"),
    ] {
        let scene = scene(Maker::Teredo, &[nat])?;
        let site = scene.site();
        let config = scene
            .client_config(site.port)
            .set("client.cone-probe", true);
        let client = scene.start_client(&site.client, &config)?;
        let found = client.teredo().map(status).transpose()?;
        let found = found.and_then(|status| status.nat);
        ensure!(
            found.as_deref() == Some(expected),
            "{nat:?} was taken for {found:?}"
        );
    }
    Ok(())
}
