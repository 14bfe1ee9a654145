//! Client, server and relay, each ours or Miredo's, in every combination. Failures of the
//! combination that is Miredo's alone are due to the laboratory.

use std::fmt;

use anyhow::{Context as _, Result};
use teredo_lab::{
    Scene, Topology,
    scene::{Client, Maker},
    together,
    traffic::{Ping, Tcp},
};

/// The implementations of client, server and relay.
#[derive(Clone, Copy, Debug)]
struct Combination([Maker; 3]);

impl Combination {
    fn all() -> impl Iterator<Item = Self> {
        let maker = |number: u8, bit: u8| match number >> bit & 1 {
            0 => Maker::Miredo,
            _ => Maker::Teredo,
        };
        (0..8).map(move |number| Self([2, 1, 0].map(|bit| maker(number, bit))))
    }

    /// Sends all traffic that must pass.
    fn passes(self) -> Result<()> {
        // The first packet of either side needs a scene without earlier traffic.
        self.play(|scene, _| {
            Ping::to(scene.host().address)
                .all_from(&scene.site().client)
                .context("the client's first packet")
        })?;
        self.play(|scene, client| {
            Ping::to(client.address())
                .all_from(&scene.host().namespace)
                .context("the host's first packet")?;
            self.talk(scene, client)
        })
    }

    fn play(self, check: impl FnOnce(&Scene, &Client) -> Result<()>) -> Result<()> {
        let Self([client, server, relay]) = self;
        let scene = Scene::new(Topology {
            server: Some(server),
            ..Topology::default()
        })?;
        let _relay = scene.start_relay_of(relay)?;
        let client = scene.start_client_of(client, scene.site())?;
        check(&scene, &client)
    }

    /// Checks ping and TCP, both ways.
    fn talk(self, scene: &Scene, client: &Client) -> Result<()> {
        let (site, host) = (&scene.site().client, &scene.host().namespace);
        let ways = [
            (site, host, scene.host().address),
            (host, site, client.address()),
        ];
        for (from, to, address) in ways {
            let who = from.name();
            Ping::to(address)
                .count(10)
                .all_from(from)
                .with_context(|| format!("ping from {who}"))?;
            Tcp::to(address)
                .upload(2_000_000)
                .download(3_000_000)
                .between(from, to)
                .with_context(|| format!("TCP from {who}"))?;
        }
        Ok(())
    }
}

/// Formats a line of the table.
impl fmt::Display for Combination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for maker in self.0 {
            let name = match maker {
                Maker::Teredo => "ours",
                Maker::Miredo => "Miredo",
            };
            write!(formatter, "{name:<8}")?;
        }
        Ok(())
    }
}

#[test]
fn ping_and_tcp_pass_both_ways_in_every_combination() -> Result<()> {
    println!("{:<8}{:<8}{:<8}", "client", "server", "relay");
    together(Combination::all(), Combination::passes)
}
