//! Whether a program on this host speaks BGP, so that routers elsewhere judge how often a route comes and goes.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
};

/// The kernel's tables of TCP sockets, of which those that listen come first.
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
/// The port of BGP (RFC 4271), as the tables have it.
const PORT: &str = ":00B3";
/// The state of a socket that listens, as the tables have it.
const LISTENS: &str = "0A";

/// Returns whether a program listens at the port of BGP.
pub fn is_spoken() -> bool {
    TABLES.iter().any(|table| {
        let file = File::open(table).map(BufReader::new);
        file.is_ok_and(|file| listens(file.lines().map_while(Result::ok)))
    })
}

/// Looks at the lines of a table as far as the sockets listen: there may be very many others.
fn listens(lines: impl Iterator<Item = String>) -> bool {
    let mut lines = lines.skip(1);
    let is_found = lines.find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let local = fields.next().unwrap_or_default();
        match fields.nth(1) {
            Some(LISTENS) => local.ends_with(PORT).then_some(true),
            _ => Some(false),
        }
    });
    is_found.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid";
    const SSH: &str =
        "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0";
    const BGP: &str =
        "   1: 0500000A:00B3 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0";
    const SESSION: &str =
        "   2: 0500000A:00B3 0600000A:9C40 01 00000000:00000000 00:00000000 00000000     0";
    const IPV6: &str = "   0: 00000000000000000000000000000000:00B3 00000000000000000000000000000000:0000 0A \
                        00000000:00000000 00:00000000 00000000     0";

    fn is_spoken_in(table: &[&str]) -> bool {
        listens(table.iter().copied().map(str::to_owned))
    }

    #[test]
    fn a_program_that_listens_is_found() {
        assert!(is_spoken_in(&[HEAD, SSH, BGP, SESSION]));
        assert!(is_spoken_in(&[HEAD, IPV6]));
    }

    #[test]
    fn other_sockets_do_not_count() {
        assert!(!is_spoken_in(&[]));
        assert!(!is_spoken_in(&[HEAD, SSH]));
        assert!(!is_spoken_in(&[HEAD, SSH, SESSION]));
        assert!(!is_spoken_in(&[HEAD, "nonsense", BGP]));
    }
}
