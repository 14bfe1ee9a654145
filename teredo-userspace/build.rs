//! Builds the eBPF program, which the daemon embeds.

use anyhow::Result;

#[path = "../teredo-ebpf/compile.rs"]
mod compile;

fn main() -> Result<()> {
    compile::compile(
        "teredo-ebpf",
        concat!(env!("CARGO_MANIFEST_DIR"), "/../teredo-ebpf"),
    )
}
