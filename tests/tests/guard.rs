//! The work of the XDP program for a fixed set of packets, against the record.

use anyhow::Result;
use teredo_bench::guard::{self, HostReport, record};

fn instructions(reports: &[HostReport], host: &str, packet: &str) -> u64 {
    let report = reports.iter().find(|report| report.host == host);
    let packets = report.map(|report| report.packets.as_slice());
    let found = packets.unwrap_or_default().iter();
    let mut found = found.filter(|report| report.packet == packet);
    found.next().expect("such a packet").work.instructions
}

#[test]
fn the_program_does_no_more_for_a_packet_than_recorded() -> Result<()> {
    let reports = guard::measure()?;
    let faults = record::check(&reports)?;
    assert!(
        faults.is_empty(),
        "if this is meant, `cargo xtask bench --guard --record` records it: {faults:#?}"
    );
    // The counters count what is executed: less for a packet that the program passes at once, and more for
    // one whose next hop it looks up.
    let of = |packet| instructions(&reports, "relay", packet);
    assert!(of("foreign-arp") < of("decap-stranger"));
    assert!(of("decap-stranger") < of("decap"));
    assert!(of("decap") < of("decap-first"));
    Ok(())
}
