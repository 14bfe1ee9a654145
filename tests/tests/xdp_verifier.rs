//! The work of the kernel's verifier on each program, for every combination of roles. It refuses a program
//! that takes it a million instructions, so each combination has to stay far below. The build that captures has to be
//! accepted beside each.

use anyhow::Result;
use aya::programs::Xdp;
use bytemuck::Zeroable as _;
use teredo::datapath::xdp::capture::Capture;
use teredo_common::{
    budget::{Allowance, Budget, CLASSES},
    capture::Filter,
};
use teredo_lab::fixture::{Fixture, Setup, relay};
use teredo_proto::server::Config;

/// Instructions that the verifier may follow in a program. It refuses a million, and takes some microseconds for each
/// whenever the daemon starts or reads another configuration; other kernels may follow more.
const MOST: u32 = 70_000;

/// Returns a set-up in which nothing is left out: every part that the verifier sees to be unreachable
/// costs it nothing.
fn everything() -> Setup {
    Setup {
        budget: Budget {
            seed: 7,
            allowances: [Allowance::new(1000); CLASSES],
        },
        served: vec!["2000::/3".parse().expect("a prefix")],
        log: true,
        ..Setup::default()
    }
}

/// A server at 1.2.3.4, or at the relay's endpoint.
fn server(is_at_relay: bool) -> Config {
    if !is_at_relay {
        return Config::new([1, 2, 3, 4].into(), [1, 2, 3, 5].into());
    }
    let mut config = Config::new([5, 6, 7, 8].into(), [5, 6, 7, 9].into());
    config.port = 3545;
    config.relay = Some(relay());
    config
}

#[test]
fn every_combination_of_roles_is_far_from_the_limit() -> Result<()> {
    let combinations = [
        ("relay", true, None),
        ("server", false, Some(server(false))),
        ("both, on two ports", true, Some(server(false))),
        ("both, on one port", true, Some(server(true))),
    ];
    let mut failures = Vec::new();
    for (roles, relay, server) in combinations {
        let fixture = Fixture::new(&Setup {
            relay,
            server,
            ..everything()
        });
        let instructions = fixture.and_then(|mut fixture| {
            Capture::load(&fixture.program.shared()?, &Filter::zeroed())?;
            let of = |program: &Xdp| anyhow::Ok(program.info()?.verified_instruction_count());
            let usual = of(fixture.program.xdp()?)?;
            Ok([usual, of(fixture.program.thorough()?)?])
        });
        eprintln!("{roles}, on usual and on rare frames: {instructions:?}");
        let is_far = |count: &Option<u32>| count.is_some_and(|count| count <= MOST);
        if !instructions.is_ok_and(|counts| counts.iter().all(is_far)) {
            failures.push(roles);
        }
    }
    assert!(failures.is_empty(), "beyond {MOST}: {failures:?}");
    Ok(())
}
