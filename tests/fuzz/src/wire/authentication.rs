//! Keys and the values that they make.

use teredo_proto::wire::{
    authentication::{Algorithm, Key, MIN_SECRET},
    encapsulation::Authentication,
};

use crate::bytes::Bytes;

/// Signs something, and verifies it with and without a change.
pub fn run(octets: &[u8]) {
    let mut bytes = Bytes::new(octets);
    let algorithm = bytes.pick(&[Algorithm::HmacMd5, Algorithm::HmacSha1]);
    let secret = bytes.string();
    let Ok(key) = Key::new(algorithm, secret) else {
        assert!(secret.len() < MIN_SECRET, "A-09");
        return;
    };
    assert!(secret.len() >= MIN_SECRET);
    let (nonce, confirmation) = (bytes.array(), bytes.octet());
    let (change, place) = (bytes.octet(), usize::from(bytes.octet()));
    let foreign = bytes.string();
    let mut covered = bytes.rest().to_vec();
    let mut value = vec![0; algorithm.value_length()];
    key.sign(nonce, confirmation, &covered, &mut value);
    let header = |value| Authentication {
        client: b"alice",
        value,
        nonce,
        confirmation,
    };
    assert!(key.verify(&header(&value), &covered), "A-04");
    assert_eq!(
        key.verify(&header(foreign), &covered),
        foreign == value,
        "A-05"
    );
    let mut forged = value.clone();
    let length = forged.len();
    forged[place % length] ^= change;
    assert_eq!(key.verify(&header(&forged), &covered), change == 0, "A-05");
    if let Some(octet) = covered.get_mut(place) {
        *octet ^= change;
        assert_eq!(key.verify(&header(&value), &covered), change == 0, "A-04");
    }
    let shorter = &value[..value.len() - 1];
    assert!(!key.verify(&header(shorter), &covered), "A-05");
}
