//! Searches for inputs with libFuzzer. The variable `TEREDO_FUZZ_TARGET` names the target.

#![no_main]

use std::{env, sync::LazyLock};

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<teredo_fuzz::Target> = LazyLock::new(|| {
    let name = env::var("TEREDO_FUZZ_TARGET").expect("TEREDO_FUZZ_TARGET names a target");
    teredo_fuzz::target(&name).unwrap_or_else(|| panic!("there is no target {name}"))
});

fuzz_target!(|data: &[u8]| (TARGET.run)(data));
