//! Short texts: names of servers, filters of the log, and files with keys.

use teredo::{
    config::{ApiAddress, ClientId, ServerHost, ServerName},
    testing,
};
use teredo_proto::wire::authentication::{Algorithm, MIN_SECRET};

/// Reads the text as each of them.
pub fn run(octets: &[u8]) {
    secret(octets);
    let Ok(text) = str::from_utf8(octets) else {
        return;
    };
    server(text);
    if let Err(sentence) = testing::log_filter(text) {
        assert!(!sentence.is_empty());
    }
    if let Ok(address) = text.parse::<ApiAddress>() {
        assert_eq!(
            address.to_string().parse::<ApiAddress>().ok(),
            Some(address)
        );
    }
    if let Ok(id) = text.parse::<ClientId>() {
        assert!(id.octets().len() <= 255, "A-06");
        assert_eq!(id.to_string().parse::<ClientId>().ok(), Some(id));
    }
}

fn server(text: &str) {
    let Ok(name) = text.parse::<ServerName>() else {
        return;
    };
    assert_ne!(name.port, 0);
    if let ServerHost::Name(host) = &name.host {
        assert!((1..=253).contains(&host.len()));
    }
    assert_eq!(name.to_string().parse::<ServerName>().as_ref(), Ok(&name));
}

/// A key has the octets that its digits say, and no sentence has them.
fn secret(octets: &[u8]) {
    match testing::secret(Algorithm::HmacSha1, octets) {
        Ok(_) => assert!(octets.len() >= 2 * MIN_SECRET),
        Err(sentence) => {
            let text = String::from_utf8_lossy(octets);
            let text = text.trim();
            assert!(text.len() < MIN_SECRET || !sentence.contains(text));
        }
    }
}
