//! Every packet is accounted for.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use teredo_faults::{ledger::Ledger, load::Rates, site::Site, soak::settle};

/// The time under load.
const LOAD: Duration = Duration::from_secs(4);

/// Runs `work` under load, after which all accounts have to balance.
fn balances(rates: Rates, work: impl FnOnce(&mut Site) -> Result<()>) -> Result<(Site, Ledger)> {
    let mut site = Site::new(rates)?;
    let mut ledger = Ledger::default();
    settle(&mut site, &mut ledger)?;
    let before = ledger.accounts(&site);
    site.load.pause(false);
    work(&mut site)?;
    settle(&mut site, &mut ledger)?;
    for (before, after) in before.iter().zip(ledger.accounts(&site)) {
        let account = after.since(before);
        ensure!(
            account.missing() == 0,
            "{}: {account:#?}",
            account.missing()
        );
    }
    Ok((site, ledger))
}

#[test]
fn every_packet_arrives_or_has_a_counter() -> Result<()> {
    balances(Rates::default(), |_| {
        thread::sleep(LOAD);
        Ok(())
    })
    .map(drop)
}

/// Datagrams and packets come for so long that neither the socket nor the TUN interface holds them.
#[test]
fn what_a_starved_relay_does_not_receive_is_counted() -> Result<()> {
    let rates = Rates {
        refused: 3000.0,
        ..Rates::default()
    };
    let (_site, ledger) = balances(rates, |site| {
        // As long as it is by default, it would hold everything.
        site.scene.relay.ip("link set dev teredo txqueuelen 500")?;
        site.relay.daemon.signal(Signal::SIGSTOP)?;
        thread::sleep(LOAD);
        site.relay.daemon.signal(Signal::SIGCONT)
    })?;
    for reason in ["decap-overrun", "encap-overrun"] {
        ensure!(ledger.sum(&["relay: ", reason]) > 0, "no {reason}");
    }
    Ok(())
}
