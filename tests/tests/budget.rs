//! The daemon under floods that it is too small for: the fast path lets as much through as fits, and
//! honest peers.

use std::sync::{Mutex, PoisonError};

use anyhow::{Result, ensure};
use teredo_bench::attack::{
    flood::{Attack, Packets, Sources},
    honest::Honest,
    measure,
    report::Point,
    target::Target,
};

/// Packets per second, which is little: also a busy machine sends as many.
const RATE: u32 = 40_000;
/// Least packets per second that are a flood for this daemon.
const FLOOD: f64 = 10_000.0;
/// A table in which 512 peers can wait: at [`FLOOD`], each of them for 50 milliseconds.
const KEYS: &[(&str, i64)] = &[
    ("relay.max-peers", 4096),
    ("relay.xdp.new-peer-rate", 400),
    ("relay.xdp.other-rate", 200),
    ("relay.xdp.claim-rate", 200),
    ("relay.xdp.fragment-rate", 200),
    ("server.xdp.daemon-rate", 200),
];
const NEWCOMERS: u32 = 20;
/// Attempts to measure while the machine has time for the generator.
const ATTEMPTS: usize = 4;

/// Floods run one at a time.
static TURN: Mutex<()> = Mutex::new(());

/// Measures a flood from everywhere.
fn flood(packets: Packets) -> Result<Point> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let target = Target::start(KEYS)?;
    let mut honest = Honest::new(&target.site)?;
    let attack = Attack {
        packets,
        sources: Sources::All,
    };
    let mut points = Vec::new();
    for _ in 0..ATTEMPTS {
        let point = measure(&target, &mut honest, attack, RATE, NEWCOMERS)?;
        println!("{point}");
        if point.rate >= FLOOD {
            return Ok(point);
        }
        points.push(point.rate);
    }
    anyhow::bail!("this machine has sent only {points:.0?} packets a second")
}

fn check(point: &Point, reasons: &[&str]) -> Result<()> {
    ensure!(point.trusted.percent() >= 95.0, "trusted peers: {point}");
    ensure!(point.new.percent() >= 90.0, "new peers: {point}");
    for reason in reasons {
        let name = format!("dropped {reason}");
        let rate = point.frames.get(&name).copied().unwrap_or_default();
        ensure!(rate > FLOOD / 20.0, "{rate} {reason}: {point}");
    }
    Ok(())
}

#[test]
fn l22_new_peers_get_through_a_flood_of_native_packets() -> Result<()> {
    check(&flood(Packets::Native)?, &["encap-new-peer-limit"])
}

#[test]
fn l20_new_peers_get_through_a_flood_of_everything() -> Result<()> {
    let limits = [
        "encap-new-peer-limit",
        "decap-other-limit",
        "decap-claim-limit",
        "decap-fragment-limit",
        "respond-daemon-limit",
    ];
    check(&flood(Packets::Everything)?, &limits)
}
