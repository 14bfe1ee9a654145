//! The subjects of `teredo explain`: texts, hexadecimal digits, and capture files.

use teredo::explain::{
    CaptureError, Packet, PacketError, Subject, parse_hexadecimal, read_capture,
};

/// Reads the octets as each of them. The first octet is the number of the packet in a capture file.
pub fn run(octets: &[u8]) {
    packet(octets);
    if let Ok(text) = str::from_utf8(octets) {
        subject(text);
        digits(text);
    }
    if let Some((&number, file)) = octets.split_first() {
        capture(file, number.into());
    }
}

/// A packet that is complete ends within the octets, and can be shown.
fn packet(octets: &[u8]) {
    let Ok(packet) = Packet::parse(octets) else {
        return;
    };
    let inner = match &packet {
        Packet::Ipv6(inner) => inner,
        Packet::Datagram { payload, .. } => payload,
    };
    assert!(octets.windows(inner.len().max(1)).any(|part| part == inner) || inner.is_empty());
    assert!(!packet.to_string().is_empty());
    if let Packet::Ipv6(_) = packet {
        assert!(packet.addresses().is_some());
    }
}

/// A subject that is shown is read as the same.
fn subject(text: &str) {
    match Subject::parse(text) {
        Ok(subject) => assert_eq!(Subject::parse(&subject.to_string()), Ok(subject)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Digits stand for the octets that they are written for.
fn digits(text: &str) {
    if let Ok(octets) = parse_hexadecimal(text) {
        let digits: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        assert_eq!(parse_hexadecimal(&digits).as_ref(), Ok(&octets));
        packet(&octets);
    }
}

/// Whatever the file has at this number is an IP packet, and a file without it has fewer packets.
fn capture(file: &[u8], number: usize) {
    match read_capture(file, number) {
        Ok(octets) => assert!(!matches!(
            Packet::parse(&octets),
            Err(PacketError::NoPacket(_))
        )),
        Err(CaptureError::TooFew(count)) => assert!(number == 0 || count < number),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
