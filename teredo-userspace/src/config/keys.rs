//! The table of all keys and their permitted values, which messages and the test of the documentation
//! use.

/// A key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The section, with dots.
    pub section: &'static str,
    /// The name.
    pub name: &'static str,
    /// The permitted values, to follow "it must be".
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
const PORT: &str = "a UDP port, 1 to 65535";
const INTERFACE: &str = "an interface name: 1 to 15 letters, digits, dots, dashes or underscores";
const SCOPE: &str = "\"strict\", \"rfc4380\" or \"lab\"";
const DATE: &str = "a date such as \"2030-12-31\", or \"\"";
const RATE: &str = "a number per second, 1 to 100000000";
const XDP_RATE: &str = "a number per second, 0 to 100000000";
const BURST: &str = "a number of packets, 1 to 1000000";
const XDP_MODE: &str = "\"auto\", \"native\", \"generic\" or \"off\"";
const ALGORITHM: &str = "\"hmac-md5\" or \"hmac-sha1\"";
const QUEUE_PER_PEER: &str = "a number of packets, 1 to 256";
const QUEUE_TOTAL_BYTES: &str = "a number of octets, 65536 to 1073741824";
const INTERFACES: &str =
    "a list of at most 64 different interface names, such as [\"eth0\"], or []";

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
    key("node", "log-format", "\"text\" or \"json\""),
    key(
        "node",
        "api",
        "\"unix:\" and an absolute path of at most 107 octets, \"tcp:\" and an address with port \
         such as \"tcp:127.0.0.1:9580\", or a list of such",
    ),
    key(
        "node",
        "api-token-file",
        "an absolute path, such as \"/etc/teredo/api.token\", or \"\"",
    ),
    key("node", "user", "the name of a user, or \"\""),
    key("node", "sandbox", SWITCH),
    key("node", "udp-segmentation", "\"auto\", \"on\" or \"off\""),
    key(
        "node.ipfix",
        "collector",
        "an address with a UDP port, such as \"192.0.2.9:4739\" or \"[2001:db8::9]:4739\", or \"\"",
    ),
    key("node.ipfix", "interval", "a number of seconds, 1 to 3600"),
    key(
        "node.ipfix",
        "observation-domain",
        "a number, 0 to 4294967295",
    ),
    key(
        "relay",
        "ipv4",
        "\"auto\" or a unicast IPv4 address of this host, such as \"198.51.100.1\"",
    ),
    key("relay", "port", PORT),
    key("relay", "tun", INTERFACE),
    key("relay", "mtu", "a number of octets, 1280 to 65507"),
    key(
        "relay",
        "serve",
        "a list of 1 to 1024 IPv6 networks without host bits, such as [\"2001:db8::/32\"], not \
         Teredo itself nor within a range that is not global unicast",
    ),
    key("relay", "host-specific", SWITCH),
    key("relay", "ipv4-scope", SCOPE),
    key("relay", "max-peers", "a number of peers, 16 to 4194304"),
    key("relay", "queue-per-peer", QUEUE_PER_PEER),
    key("relay", "queue-total-bytes", QUEUE_TOTAL_BYTES),
    key("relay", "accounting", SWITCH),
    key("relay", "direct-bubbles", SWITCH),
    key("relay", "bubble-rate", RATE),
    key("relay", "bubble-total-rate", RATE),
    key("relay", "new-peer-rate", RATE),
    key("relay", "new-peer-total-rate", RATE),
    key("relay", "unproved-rate", RATE),
    key("relay", "unreachable-rate", RATE),
    key(
        "relay",
        "threads",
        "\"auto\" or a number of threads, 1 to 64",
    ),
    key("relay", "route", SWITCH),
    key("relay", "grace", "a number of milliseconds, 0 to 60000"),
    key("relay", "sunset", DATE),
    key("relay.xdp", "mode", XDP_MODE),
    key("relay.xdp", "interfaces", INTERFACES),
    key("relay.xdp", "outer-checksum", "\"auto\" or \"zero\""),
    key("relay.xdp", "pin", SWITCH),
    key("relay.xdp", "new-peer-rate", XDP_RATE),
    key("relay.xdp", "answer-rate", XDP_RATE),
    key("relay.xdp", "peer-rate", XDP_RATE),
    key("relay.xdp", "claim-rate", XDP_RATE),
    key("relay.xdp", "fragment-rate", XDP_RATE),
    key("relay.xdp", "other-rate", XDP_RATE),
    key(
        "relay.fleet",
        "listen",
        "an address of this host with a UDP port, such as \"10.0.0.1:3546\", or \"\"",
    ),
    key(
        "relay.fleet",
        "members",
        "a list of at most 64 different addresses or host names with ports, such as \
         [\"10.0.0.1:3546\", \"10.0.0.2:3546\"] or \"relays.example.net:3546\", or []",
    ),
    key(
        "relay.fleet",
        "key-file",
        "an absolute path, such as \"/etc/teredo/fleet.key\", or \"\"",
    ),
    key(
        "server",
        "ipv4",
        "a list of two different unicast IPv4 addresses of this host, such as [\"198.51.100.1\", \
         \"198.51.100.2\"]",
    ),
    key("server", "port", PORT),
    key(
        "server",
        "extra-prefixes",
        "a list of at most 7 different IPv6 prefixes of 32 bits of global scope besides node.prefix, \
         such as [\"3ffe:831f::/32\"]",
    ),
    key("server", "mtu", "0, or a number of octets, 1280 to 65507"),
    key("server", "require-auth", SWITCH),
    key("server", "ipv4-scope", SCOPE),
    key(
        "server",
        "allow",
        "a list of at most 1024 IPv4 networks without host bits, such as [\"198.51.100.0/24\"]",
    ),
    key("server", "forward-echo", SWITCH),
    key("server", "forward-echo-replies", SWITCH),
    key("server", "forward-foreign", SWITCH),
    key("server", "icmpv6-payload", "a number of octets, 8 to 1240"),
    key("server", "rate", RATE),
    key("server", "burst", BURST),
    key("server", "network-rate", RATE),
    key("server", "network-burst", BURST),
    key("server", "total-rate", RATE),
    key("server", "sunset", DATE),
    key("server", "tun", INTERFACE),
    key("server.xdp", "mode", XDP_MODE),
    key("server.xdp", "interfaces", INTERFACES),
    key("server.xdp", "pin", SWITCH),
    key("server.xdp", "daemon-rate", XDP_RATE),
    key(
        "server.client",
        "id",
        "1 to 255 octets as text, or \"hex:\" and their hexadecimal digits",
    ),
    key("server.client", "algorithm", ALGORITHM),
    key(
        "server.client",
        "secret-file",
        "an absolute path, such as \"/etc/teredo/alice.key\"",
    ),
    key(
        "server.client",
        "retired-secret-files",
        "a list of at most 8 absolute paths",
    ),
    key(
        "server.client",
        "prefix",
        "a global unicast IPv6 prefix of 64 bits outside of Teredo that no other client has, such as \
         \"2001:db8:1:2::/64\", or \"\"",
    ),
    key(
        "client",
        "server",
        "a server's name or unicast IPv4 address, with a colon and a port unless that is 3544, such \
         as \"teredo.example.net\", or a list of at most 16 different such",
    ),
    key(
        "client",
        "secondary",
        "\"auto\" or a unicast IPv4 address, such as \"198.51.100.2\"",
    ),
    key("client", "port", "a UDP port, or 0 for any, 0 to 65535"),
    key("client", "tun", INTERFACE),
    key("client", "tun-offload", SWITCH),
    key("client", "only-without-ipv6", SWITCH),
    key("client", "default-route", SWITCH),
    key(
        "client",
        "refresh",
        "\"auto\" or a number of seconds, 5 to 900",
    ),
    key("client", "port-mapping", SWITCH),
    key("client", "local-discovery", SWITCH),
    key("client", "ipv4-scope", SCOPE),
    key(
        "client",
        "id",
        "1 to 255 octets as text, or \"hex:\" and their hexadecimal digits, or \"\"",
    ),
    key("client", "algorithm", ALGORITHM),
    key(
        "client",
        "secret-file",
        "an absolute path, such as \"/etc/teredo/alice.key\", or \"\"",
    ),
    key("client", "allow-tunnel", SWITCH),
    key("client", "symmetric", SWITCH),
    key("client", "port-preserving", SWITCH),
    key("client", "sequential", SWITCH),
    key("client", "hairpinning", SWITCH),
    key("client", "load-reduction", SWITCH),
    key("client", "cone-probe", SWITCH),
    key("client", "draft-flags", SWITCH),
    key("client", "random-link-local", SWITCH),
    key("client", "honor-cone", SWITCH),
    key("client", "legacy-server", SWITCH),
    key("client", "legacy-prefix", SWITCH),
    key("client", "accept-unsolicited", SWITCH),
    key("client", "max-peers", "a number of peers, 16 to 65536"),
    key("client", "queue-per-peer", QUEUE_PER_PEER),
    key("client", "queue-total-bytes", QUEUE_TOTAL_BYTES),
];

/// Keys without a default.
pub const REQUIRED: &[(&str, &str)] = &[
    ("server", "ipv4"),
    ("server.client", "id"),
    ("server.client", "secret-file"),
    ("client", "server"),
];

/// All sections.
pub const SECTIONS: &[&str] = &[
    "node",
    "node.ipfix",
    "relay",
    "relay.xdp",
    "relay.fleet",
    "server",
    "server.xdp",
    "server.client",
    "client",
];

/// The sections that may occur several times, written with two brackets.
pub const REPEATED: &[&str] = &["server.client"];

/// The sections that make a role run.
pub const ROLES: &[&str] = &["relay", "server", "client"];
