//! The configurations of Miredo, and their import.

use std::path::Path;

use teredo::{
    config::Config,
    import::{Source, miredo},
};

/// The longest sentence, without what it quotes, in which a character may take three octets.
const LONGEST: usize = 1_000;

/// Imports one file, and two where a line of dashes divides it. The result is valid, and an error one
/// line with the name of a file.
pub fn run(octets: &[u8]) {
    let text = String::from_utf8_lossy(octets);
    let files: Vec<_> = text.splitn(2, "\n---\n").collect();
    let names = ["one.conf", "two.conf"].map(Path::new);
    let sources: Vec<_> = names
        .into_iter()
        .zip(files)
        .map(|(file, text)| Source { file, text })
        .collect();
    match miredo(&sources) {
        Ok(configuration) => {
            let parsed = Config::parse(&configuration, Path::new("teredo.toml"));
            parsed.expect("what was imported is valid");
        }
        Err(error) => {
            let sentence = error.to_string();
            assert!(
                sentence.starts_with("one.conf") || sentence.starts_with("two.conf"),
                "{sentence}"
            );
            assert!(!sentence.contains(char::is_control), "{sentence:?}");
            assert!(sentence.len() <= LONGEST + 3 * text.len(), "{sentence}");
        }
    }
}
