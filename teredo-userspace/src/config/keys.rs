//! Every key there is and what it may be. Messages and the documentation's test go by this table.

/// A key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its section, with dots.
    pub section: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What its value may be, to follow "it must be".
    pub permitted: &'static str,
}

const fn key(section: &'static str, name: &'static str, permitted: &'static str) -> Key {
    Key {
        section,
        name,
        permitted,
    }
}

const SWITCH: &str = "true or false";

/// Every key, in the order of the documentation.
pub const KEYS: &[Key] = &[
    key(
        "node",
        "name",
        "1 to 64 letters, digits, dots, dashes or underscores, first a letter or digit",
    ),
    key(
        "node",
        "prefix",
        "an IPv6 prefix of 32 bits of global scope, such as \"2001::/32\"",
    ),
    key(
        "node",
        "log",
        "a filter such as \"info\" or \"warn,teredo=debug\"",
    ),
    key(
        "node",
        "api",
        "\"unix:\" and an absolute path of at most 107 octets, \"tcp:\" and an address with port \
         such as \"tcp:127.0.0.1:9580\", or a list of such",
    ),
    key("node", "user", "the name of a user, or \"\""),
    key(
        "relay",
        "ipv4",
        "\"auto\" or a unicast IPv4 address of this host, such as \"198.51.100.1\"",
    ),
    key("relay", "port", "a UDP port, 1 to 65535"),
    key(
        "relay",
        "tun",
        "an interface name: 1 to 15 letters, digits, dots, dashes or underscores",
    ),
    key("relay", "mtu", "a number of octets, 1280 to 65507"),
    key(
        "relay",
        "serve",
        "a list of 1 to 1024 IPv6 networks without host bits, such as [\"2001:db8::/32\"], not \
         Teredo itself nor within a range that is not global unicast",
    ),
    key("relay", "host-specific", SWITCH),
    key("relay", "ipv4-scope", "\"strict\", \"rfc4380\" or \"lab\""),
    key("relay", "max-peers", "a number of peers, 16 to 4194304"),
    key("relay", "queue-per-peer", "a number of packets, 1 to 256"),
    key(
        "relay",
        "queue-total-bytes",
        "a number of octets, 65536 to 1073741824",
    ),
    key("relay", "route", SWITCH),
    key(
        "relay.xdp",
        "mode",
        "\"auto\", \"native\", \"generic\" or \"off\"",
    ),
    key(
        "relay.xdp",
        "interfaces",
        "a list of at most 64 different interface names, such as [\"eth0\"], or []",
    ),
    key("relay.xdp", "outer-checksum", "\"auto\" or \"zero\""),
    key("relay.xdp", "pin", SWITCH),
];

/// The sections that there are.
pub const SECTIONS: &[&str] = &["node", "relay", "relay.xdp"];

/// Sections of roles that this version does not run.
pub const LATER_ROLES: &[&str] = &["server", "client"];
