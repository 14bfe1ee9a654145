//! Replays the corpora, and inputs that are like theirs.

use std::{fs, io, path::Path};

use proptest::prelude::*;
use teredo_fuzz::{TARGETS, Target};

/// The inputs of a target, by name of the file.
fn corpus(target: Target) -> io::Result<Vec<(String, Vec<u8>)>> {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut inputs = Vec::new();
    for entry in fs::read_dir(corpora.join(target.name))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        inputs.push((name, fs::read(entry.path())?));
    }
    inputs.sort();
    Ok(inputs)
}

/// Names the input that breaks a rule.
struct Running<'a>(&'a str, &'a str);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the input is corpus/{}/{}", self.0, self.1);
        }
    }
}

#[test]
fn every_input_of_the_corpora_passes() {
    for &target in TARGETS {
        let inputs = corpus(target).unwrap();
        assert!(!inputs.is_empty(), "{} has no corpus", target.name);
        for (name, input) in inputs {
            let _running = Running(target.name, &name);
            (target.run)(&input);
        }
    }
}

/// One octet more, less, or another.
#[derive(Clone, Debug)]
enum Change {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    let place = any::<prop::sample::Index>;
    prop_oneof![
        (place(), any::<u8>()).prop_map(|(place, octet)| Change::Set(place, octet)),
        (place(), any::<u8>()).prop_map(|(place, octet)| Change::Insert(place, octet)),
        place().prop_map(Change::Remove),
    ]
}

fn changed(mut input: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        match change {
            Change::Insert(place, octet) => input.insert(place.index(input.len() + 1), *octet),
            _ if input.is_empty() => {}
            Change::Set(place, octet) => {
                let at = place.index(input.len());
                input[at] = *octet;
            }
            Change::Remove(place) => drop(input.remove(place.index(input.len()))),
        }
    }
    input
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4_000, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn inputs_like_them_pass(
        choice: prop::sample::Index,
        changes in prop::collection::vec(change(), 1..8),
    ) {
        for &target in TARGETS {
            let inputs = corpus(target).unwrap();
            let (_, input) = choice.get(&inputs);
            (target.run)(&changed(input.clone(), &changes));
        }
    }
}
