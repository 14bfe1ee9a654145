//! A relay and a server under attack (`cargo xtask attack`): the share of honest traffic that
//! gets through, by the rate of the attack.
//!
//! The daemon stands on a [`Site`](crate::site::Site) with both roles. A generator program floods it
//! from the far namespace, where honest machines live as well: trusted clients that exchange packets
//! with a native host on the fast path, and native hosts that contact clients whom the relay does
//! not know. The honest machines are packet sockets; a program in front of them takes all other
//! frames away, so that the attack's consequences cost them nothing.

pub mod flood;
pub mod honest;
pub mod people;
pub mod plot;
pub mod report;
pub mod target;

use std::time::{Duration, Instant};

use anyhow::Result;
use teredo_lab::{cpu, flood::Flood};
use teredo_lab_ebpf::sift::Fate;

use self::{
    flood::Attack,
    honest::Honest,
    report::{Count, Point},
    target::{State, Target},
};

/// Time that a flood has to become steady.
const RAMP: Duration = Duration::from_millis(500);
/// Least time over which the shares are measured.
const WINDOW: Duration = Duration::from_secs(3);

/// Measures one attack, of `rate` packets per second, with `newcomers` new peers.
///
/// # Errors
///
/// Fails when the daemon has ended, or the kernel refuses the generator.
pub fn measure(
    target: &Target,
    honest: &mut Honest,
    attack: Attack,
    rate: u32,
    newcomers: u32,
) -> Result<Point> {
    let flood = match rate {
        0 => None,
        rate => Some(flood::start(&target.site, attack, rate)?),
    };
    let start = Instant::now();
    honest.live_until(|_| start.elapsed() > RAMP)?;
    honest.settle()?;
    let before = state(target, honest, flood.as_ref())?;
    honest.meet(newcomers);
    honest.live_until(|honest| honest.have_met() && before.at.elapsed() > WINDOW)?;
    honest.settle()?;
    let after = state(target, honest, flood.as_ref())?;
    if let Some(flood) = flood {
        flood.stop()?;
    }
    let met = honest.newcomers();
    Ok(Point::between(attack, rate, &before, &after, met))
}

fn state(target: &Target, honest: &Honest, flood: Option<&Flood>) -> Result<State> {
    let attack = flood.map(Flood::sent).transpose()?.unwrap_or_default();
    let at = Instant::now();
    let arrived = target.sift.sifted(Fate::ToTrusted)? + target.sift.sifted(Fate::FromTrusted)?;
    Ok(State {
        at,
        attack,
        trusted: Count {
            of: honest.sent(),
            arrived,
        },
        side_effects: target.sift.sifted(Fate::Other)?,
        cpu: cpu::Threads::of(&target.processes()?)?,
        memory: target.memory()?,
        frames: target.frames()?,
    })
}
