//! The picture in the documentation.

use teredo_simulation::matrix::picture;

#[test]
fn the_picture_shows_the_measurements() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/nat-matrix.svg");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == picture::draw(),
        "draw docs/nat-matrix.svg again: cargo run -p teredo-simulation --bin nat_matrix"
    );
}
