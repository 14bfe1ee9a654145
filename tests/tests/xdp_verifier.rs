//! The work of the kernel's verifier on each program, usual or of the build that captures, for every combination of roles.
//! It refuses a program that takes it a million instructions, so each has to stay far below.

use std::collections::HashSet;

use anyhow::{Context as _, Result};
use aya::programs::{ProgramInfo, loaded_programs};
use bytemuck::Zeroable as _;
use teredo::datapath::xdp::capture::Capture;
use teredo_common::{
    budget::{Allowance, Budget, ROOM},
    capture::Filter,
};
use teredo_lab::fixture::{Fixture, Setup, relay};
use teredo_proto::server::Config;

/// Instructions that the verifier may follow in a usual program. It refuses a million, and takes some microseconds for each
/// whenever the daemon starts or reads another configuration; other kernels may follow more.
const MOST: u32 = 70_000;
/// The same for a program of the build that captures.
const MOST_CAPTURING: u32 = 100_000;

/// The usual program and that for rare frames, which are loaded first.
const USUAL: usize = 2;
/// Those, and both once more in the build that captures, which has two of its own.
const PROGRAMS: usize = 6;

/// Returns a set-up in which nothing is left out: every part that the verifier sees to be unreachable
/// costs it nothing.
fn everything() -> Setup {
    Setup {
        budget: Budget {
            seed: 7,
            allowances: [Allowance::new(1000); ROOM],
        },
        served: vec!["2000::/3".parse().expect("a prefix")],
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

/// Returns the names of all programs that work with maps of this one, and the instructions that the verifier followed in each.
fn counts(program: &ProgramInfo) -> Result<Vec<(String, u32)>> {
    let maps = |program: &ProgramInfo| anyhow::Ok(program.map_ids()?.unwrap_or_default());
    let mut known: HashSet<u32> = maps(program)?.into_iter().collect();
    let mut found = Vec::new();
    // The second time those that share maps only with programs of the build that captures are found, too.
    for _ in 0..2 {
        found.clear();
        for program in loaded_programs().filter_map(Result::ok) {
            let maps = maps(&program)?;
            if maps.iter().any(|map| known.contains(map)) {
                known.extend(maps);
                found.push(program);
            }
        }
    }
    let counts = found.iter().map(|program| {
        let name = program.name_as_str().unwrap_or_default().to_owned();
        let count = program.verified_instruction_count();
        Ok((name, count.context("this kernel tells no number")?))
    });
    counts.collect()
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
        let counts = fixture.and_then(|mut fixture| {
            let _capture = Capture::load(&fixture.program.shared()?, &Filter::zeroed())?;
            counts(&fixture.program.xdp()?.info()?)
        });
        eprintln!("{roles}: {counts:?}");
        let are_far = |counts: Vec<(String, u32)>| {
            let (usual, capturing) = counts.split_at(USUAL.min(counts.len()));
            counts.len() == PROGRAMS
                && usual.iter().all(|(_, count)| *count <= MOST)
                && capturing.iter().all(|(_, count)| *count <= MOST_CAPTURING)
        };
        if !counts.is_ok_and(are_far) {
            failures.push(roles);
        }
    }
    assert!(
        failures.is_empty(),
        "too much for the verifier: {failures:?}"
    );
    Ok(())
}
