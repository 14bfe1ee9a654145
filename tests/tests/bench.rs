//! The benchmark itself: measurements short enough for a test, of which only the counts matter.

use std::time::Duration;

use anyhow::Result;
use teredo_bench::{
    cases::{Case, Direction, Selection, Variant},
    relay::Relay,
    run::{Extent, run},
    throughput::Measurement,
};
use teredo_lab::{Namespace, Teredo, links::cable, teredo::Config};

const TIME: Duration = Duration::from_millis(10);

/// The interfaces of the machine with the benchmark, and the other ends.
const CABLES: [[&str; 2]; 2] = [["tester4", "device4"], ["tester6", "device6"]];

#[test]
fn both_directions_at_once_are_measured_with_every_packet_in_xdp() -> Result<()> {
    let selection: Selection = "both-ways,1,none,bare,xdp".parse()?;
    let report = run(
        &selection,
        Extent {
            time: TIME,
            rounds: 1,
        },
    )?;
    let [case] = &report.cases[..] else {
        panic!("{} cases", report.cases.len());
    };
    let xdp = case.series.iter().find(|one| one.variant == Variant::Xdp);
    let sample = xdp.expect("the variant was selected").samples[0];
    assert_eq!(sample.fast_share, Some(1.0));
    assert_eq!(sample.delivered, sample.offered);
    // What was saved can be read again.
    let directory = tempfile::tempdir()?;
    let path = report.save(directory.path())?;
    let again = teredo_bench::report::Report::read(&path)?;
    assert_eq!(again.cases[0].name, case.name);
    Ok(())
}

#[test]
fn a_relay_on_another_machine_is_measured_and_the_interfaces_are_back() -> Result<()> {
    let (tester, device) = (Namespace::new("tester")?, Namespace::new("device")?);
    for [near, far] in CABLES {
        cable((&tester, near), (&device, far))?;
        // As in hardware, frames that a program redirects into the cable have to arrive.
        device.offload(far, "gro on")?;
    }
    let [[tester4, device4], [tester6, device6]] = CABLES;
    device.ip_batch(&format!(
        "addr add 20.0.0.1/24 dev {device4}
        route add default via 20.0.0.2
        addr add 2001:db8:6::1/64 dev {device6} nodad
        route add 2001:db8:7::/48 via 2001:db8:6::10 dev {device6}"
    ))?;
    device.forward()?;
    let config = Config::new()
        .set("relay.ipv4", "20.0.0.1")
        .set("relay.xdp.mode", "off");
    let _relay = Teredo::start(&device, &config)?;
    tester.run(|| {
        let names = [tester4, tester6].map(str::to_owned);
        let mut relay = Relay::elsewhere(&names)?;
        for direction in Direction::ALL {
            let mut measurement = Measurement::prepare(&mut relay, Case::of(direction, 10))?;
            assert!(measurement.measure(TIME)?.delivered > 0, "{direction:?}");
        }
        anyhow::Ok(())
    })??;
    for interface in [tester4, tester6] {
        tester.ip(&format!("link show dev {interface} up"))?;
    }
    Ok(())
}
