//! The configuration file.

use std::path::Path;

use teredo::config::Config;

/// The longest line of an error.
const LONGEST: usize = 2_000;

/// Reads a configuration; writes one that is valid, and reads it again.
pub fn run(octets: &[u8]) {
    let Ok(text) = str::from_utf8(octets) else {
        return;
    };
    let path = Path::new("teredo.toml");
    match Config::parse(text, path) {
        Ok(config) => {
            let written = config.to_toml();
            let again = Config::parse(&written, path).expect("what was written is valid");
            assert_eq!(again, config);
            assert_eq!(again.to_toml(), written);
        }
        Err(error) => {
            let sentence = error.to_string();
            assert!(sentence.starts_with("teredo.toml"), "{sentence}");
            assert!(sentence.len() <= LONGEST + text.len(), "{sentence}");
        }
    }
}
