//! Builds the benchmark's XDP programs.

use anyhow::Result;

#[path = "../../teredo-ebpf/compile.rs"]
mod compile;

fn main() -> Result<()> {
    compile::compile(
        "teredo-lab-ebpf",
        concat!(env!("CARGO_MANIFEST_DIR"), "/../ebpf"),
    )
}
