//! The table of connections, which every datagram of a client needs room in where the kernel tracks.

use std::fs;

use super::Report;

/// Examines whether the table is nearly full.
pub fn examine(report: &mut Report) {
    let count = number("nf_conntrack_count");
    let max = number("nf_conntrack_max");
    // Without them the kernel does not track.
    let (Some(count), Some(max)) = (count, max) else {
        return;
    };
    match judge(count, max) {
        Some(text) => report.degraded("conntrack", text),
        None => report.fine("conntrack", format!("{count} of {max} connections")),
    }
}

fn number(name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/sys/net/netfilter/{name}")).ok()?;
    text.trim().parse().ok()
}

/// From nine tenths on a burst fills the table.
fn judge(count: u64, max: u64) -> Option<String> {
    let is_full = max > 0 && count.saturating_mul(10) >= max.saturating_mul(9);
    is_full.then(|| {
        format!(
            "the kernel tracks {count} of at most {max} connections, and drops packets of others when \
             it is full: `sysctl -w net.netfilter.nf_conntrack_max={}`, or let nft not track the \
             ports of the daemon (`notrack`)",
            max.saturating_mul(4)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_tenths_are_nearly_full() {
        for (count, max, is_full) in [
            (0, 100, false),
            (89, 100, false),
            (90, 100, true),
            (5, 0, false),
        ] {
            assert_eq!(judge(count, max).is_some(), is_full, "{count} of {max}");
        }
        assert!(judge(100, 100).unwrap().contains("nf_conntrack_max=400"));
    }
}
