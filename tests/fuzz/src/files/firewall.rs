//! The rules of the firewall, as other programs print them.

use std::{path::Path, sync::LazyLock};

use teredo::{config::Config, testing};

/// All roles, so that there are packets of each kind.
static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let text = "[relay]\n[server]\nipv4 = [\"192.0.2.1\", \"192.0.2.2\"]\n";
    Config::parse(text, Path::new("teredo.toml")).expect("a configuration")
});

/// Judges the text as the output of either program.
pub fn run(octets: &[u8]) {
    let text = String::from_utf8_lossy(octets);
    for sentence in testing::firewall(&CONFIG, &text, &text) {
        assert!(sentence.contains("in its chain"), "{sentence}");
    }
}
