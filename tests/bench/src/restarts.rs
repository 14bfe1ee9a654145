//! The packets that are lost while our relay's process is replaced under load.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use teredo_lab::{service::Service, wait_until};

use super::{
    cases::{Case, Direction, Variant},
    relay::Relay,
    throughput::Subject as _,
};

/// The time before the first replacement.
const LEAD: Duration = Duration::from_millis(300);
/// The time from one to the next, and the least pause between them.
const EACH: Duration = Duration::from_millis(1_500);
const PAUSE: Duration = Duration::from_millis(300);
/// Longest time for a replacement.
const PATIENCE: Duration = Duration::from_secs(30);
/// Frames that the generator sends before it lets the network work.
const BATCH: u32 = 4;

/// How a process ends and the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    /// It goes on.
    None,
    /// It is terminated, and another one is started, as `systemctl restart` does.
    Restart,
    /// It hands over to another one, as after `teredo upgrade`.
    Upgrade,
    /// It is killed, and another one is started.
    Kill,
}

impl Way {
    /// All ways.
    pub const ALL: [Self; 4] = [Self::None, Self::Restart, Self::Upgrade, Self::Kill];

    /// The name in the table.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Restart => "restart",
            Self::Upgrade => "upgrade",
            Self::Kill => "kill -9",
        }
    }
}

/// What happened to the packets of one direction.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// Replacements of the process.
    pub replaced: u32,
    /// The longest time that one took, until the next process was ready.
    pub longest: Duration,
    /// Packets that were sent.
    pub sent: u64,
    /// Packets that did not arrive.
    pub lost: u64,
    /// Packets that arrived again.
    pub repeated: u64,
    /// Packets that arrived after one that was sent later, or again.
    pub overtaken: u64,
}

/// Returns how many packets are sent during `times` replacements at this rate, in packets a second.
#[must_use]
pub fn packets(rate: f64, times: u32) -> u32 {
    (rate * (LEAD + EACH * times).as_secs_f64()) as u32
}

/// Offers packets of `clients` clients at this rate, and meanwhile replaces the process `times` times.
///
/// # Errors
///
/// Fails when the relay does not work, or a process does not come up.
pub fn measure(
    relay: &mut Relay,
    way: Way,
    direction: Direction,
    clients: u32,
    rate: f64,
    times: u32,
) -> Result<Loss> {
    let case = Case::of(direction, clients);
    relay.get_ready(case)?;
    let mut generator = relay.numbered(case)?;
    relay.sink.settle()?;
    relay.sink.reset()?;
    relay.sink.read_numbers()?;
    // The relay asks clients that only receive for a sign of life.
    relay.sink.answer_bubbles()?;
    let (service, near, far) = relay.service().context("the relay is no service")?;
    let interval = Duration::from_nanos((1e9 / rate) as u64);
    let sent = packets(rate, times);
    let (replaced, longest) = thread::scope(|scope| {
        let sender = scope.spawn(move || generator.send_paced(far, sent, interval, BATCH));
        thread::sleep(LEAD);
        let mut longest = Duration::ZERO;
        let mut outcome = Ok(());
        let mut replaced = 0;
        // The last ones may take longer than the packets do.
        while replaced < times && outcome.is_ok() && !sender.is_finished() {
            let start = Instant::now();
            outcome = replace(service, near, way);
            longest = longest.max(start.elapsed());
            replaced += 1;
            thread::sleep(EACH.saturating_sub(start.elapsed()).max(PAUSE));
        }
        sender.join().expect("the sender does not panic")?;
        outcome.with_context(|| service.log())?;
        Ok::<_, anyhow::Error>((replaced, longest))
    })?;
    let arrived = relay.sink.settle()?.packets;
    let (different, overtaken) = relay.sink.numbers()?;
    Ok(Loss {
        replaced,
        longest,
        sent: sent.into(),
        lost: u64::from(sent) - different,
        repeated: arrived - different,
        overtaken,
    })
}

fn replace(service: &mut Service, near: &teredo_lab::Namespace, way: Way) -> Result<()> {
    match way {
        Way::None => Ok(()),
        Way::Restart => service.restart(near),
        Way::Kill => {
            service.kill()?;
            service.begin(near)
        }
        Way::Upgrade => {
            let before = service.pid();
            service.signal(Signal::SIGUSR2)?;
            wait_until("another process runs", PATIENCE, || {
                Ok(service.pid() != before)
            })
        }
    }
}

/// The line of the table.
#[must_use]
pub fn line(variant: Variant, direction: Direction, way: Way, loss: &Loss) -> String {
    format!(
        "| {} | {} | {} | {} | {:.2} s | {} | {} | {} | {} |",
        variant.title(),
        direction.word(),
        way.title(),
        loss.replaced,
        loss.longest.as_secs_f64(),
        loss.sent,
        loss.lost,
        loss.repeated,
        loss.overtaken
    )
}
