//! The loader of BPF objects.

use aya::EbpfLoader;

/// Returns a loader for an object that does not use the kernel's own types.
///
/// aya reads these all the same, which takes some 80 MB for a moment unless the sandbox keeps them out of reach; memory that
/// they leave in the heap goes back to the kernel here.
#[must_use]
pub fn loader() -> EbpfLoader<'static> {
    let mut loader = EbpfLoader::new();
    loader.btf(None);
    return_free_memory();
    loader
}

/// Returns the heap's free pages to the kernel. Otherwise one used page behind them keeps them.
fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes an integer, and changes free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Returns the resident memory of this process that belongs to no file, in KiB.
    fn resident() -> u64 {
        let status = fs::read_to_string("/proc/self/status").expect("a status");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.expect("a number")
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn free_memory_between_used_pages_is_returned() {
        /// Blocks of a size that comes from the heap, one of sixteen of which is kept.
        const BLOCKS: usize = 16_384;
        let blocks = (0..BLOCKS).map(|_| Box::new([1_u64; 256]));
        let blocks: Vec<_> = blocks.collect();
        let (kept, free): (Vec<_>, Vec<_>) =
            (blocks.into_iter().enumerate()).partition(|(number, _)| number % 16 == 0);
        drop(free);
        let before = resident();
        drop(loader());
        let after = resident();
        assert!(before.saturating_sub(after) > 16_384, "{before}, {after}");
        drop(kept);
    }
}
