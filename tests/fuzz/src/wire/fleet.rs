//! Datagrams between the relays of a fleet.

use teredo_proto::{
    Instant, ServicePrefix,
    fleet::wire::{DATAGRAM, HEADER, Header, Message, REPORTS, TAG, build_reports},
};

const NOW: Instant = Instant::from_nanos(1_000_000_000_000);

/// Parses a datagram, and builds it again.
pub fn run(octets: &[u8]) {
    let Ok((header, body)) = Header::parse(octets) else {
        return;
    };
    assert!(octets.len() <= DATAGRAM && octets.len() == HEADER + body.len() + TAG);
    let Ok(message) = Message::parse(header.kind, body) else {
        return;
    };
    let mut built = message.build(header);
    built.extend([0; TAG]);
    let (again, body) = Header::parse(&built).expect("what is built is parsed (F-06)");
    assert_eq!(again, header);
    assert_eq!(Message::parse(again.kind, body), Ok(message));
    if let Message::Reports(reports) | Message::Part(_, reports) = message {
        let reports: Vec<_> = reports.iter(NOW, ServicePrefix::STANDARD).collect();
        assert!(reports.len() <= REPORTS);
        let octets = build_reports(NOW, &reports);
        assert_eq!(octets.len(), reports.len() * 24);
        for report in reports {
            assert!(report.last_received <= NOW && report.proved <= NOW);
        }
    }
}
