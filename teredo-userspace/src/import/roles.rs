//! The counterparts of Miredo's directives.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    Error,
    directive::{Directive, File, Keyword, printable},
    draft::{Draft, Section},
};

/// Directives that only a server has.
const OF_SERVERS: &[Keyword] = &[Keyword::ServerBindAddress, Keyword::ServerBindAddress2];
/// Directives that only relays and clients have.
const OF_NODES: &[Keyword] = &[
    Keyword::RelayType,
    Keyword::ServerAddress,
    Keyword::ServerAddress2,
    Keyword::InterfaceName,
    Keyword::BindAddress,
    Keyword::BindPort,
];

/// Adds the roles of a file to the draft.
pub fn import(file: &File<'_>, draft: &mut Draft) -> Result<(), Error> {
    let has_server = file.has_any(OF_SERVERS);
    let mut role = Section::Server;
    if file.has_any(OF_NODES) {
        role = node(file, draft)?;
    } else if !has_server {
        return Err(Error::Missing {
            file: file.path.to_owned(),
            needed: "there is neither a ServerAddress for a client, nor RelayType cone for a relay, \
                     nor a ServerBindAddress for a server; add the one of them that is meant",
        });
    }
    if has_server {
        server(file, draft)?;
    }
    syslog(file, role, draft);
    for directive in file.unused() {
        let reason = reason(file, directive);
        draft.comment(role, &format!("{}: {reason}", directive.describe()));
    }
    Ok(())
}

/// Adds the role of a `miredo.conf`.
fn node(file: &File<'_>, draft: &mut Draft) -> Result<Section, Error> {
    let Some(relay_type) = file.find(Keyword::RelayType) else {
        return client(file, draft).map(|()| Section::Client);
    };
    match &*relay_type.value.to_ascii_lowercase() {
        "client" | "autoclient" => client(file, draft).map(|()| Section::Client),
        "cone" | "relay" => relay(file, draft).map(|()| Section::Relay),
        "restricted" => {
            relay(file, draft)?;
            draft.set(Section::Relay, "direct-bubbles", "true", relay_type);
            Ok(Section::Relay)
        }
        _ => Err(wrong(
            relay_type,
            "client, autoclient, cone, relay or restricted",
        )),
    }
}

fn client(file: &File<'_>, draft: &mut Draft) -> Result<(), Error> {
    const ROLE: Section = Section::Client;
    draft.add_role(ROLE, file.path, &prefix_text(None))?;
    let Some(server) = file.find(Keyword::ServerAddress) else {
        return Err(Error::Missing {
            file: file.path.to_owned(),
            needed: "a client needs a ServerAddress, and without RelayType this is a client; add the \
                     line ServerAddress and the server's name, or RelayType cone for a relay",
        });
    };
    draft.set(ROLE, "server", &text(server), server);
    match file.find(Keyword::ServerAddress2) {
        Some(secondary) if secondary.value.parse::<Ipv4Addr>().is_ok() => {
            draft.set(ROLE, "secondary", &text(secondary), secondary);
        }
        Some(secondary) => draft.comment(
            ROLE,
            &format!(
                "{}: secondary takes an address, not a name: look the name up, and add secondary = \
                 \"ADDRESS\", unless it is the address after the server's.",
                secondary.describe()
            ),
        ),
        None => {}
    }
    interface(file, ROLE, draft);
    if let Some(port) = file.find(Keyword::BindPort) {
        draft.set(ROLE, "port", &number(port), port);
    }
    if let Some(address) = file.find(Keyword::BindAddress) {
        draft.comment(
            ROLE,
            &format!(
                "{}: no counterpart: a client sends from the address of the IPv4 default route.",
                address.describe()
            ),
        );
    }
    Ok(())
}

fn relay(file: &File<'_>, draft: &mut Draft) -> Result<(), Error> {
    const ROLE: Section = Section::Relay;
    prefix(file, ROLE, draft)?;
    match file.find(Keyword::BindAddress) {
        Some(address) if address.value == "0.0.0.0" => {
            draft.set(ROLE, "ipv4", "\"auto\"", address);
        }
        Some(address) => draft.set(ROLE, "ipv4", &text(address), address),
        None => {}
    }
    match file.find(Keyword::BindPort) {
        Some(port) if number(port) != "0" => draft.set(ROLE, "port", &number(port), port),
        _ => draft.comment(
            ROLE,
            "BindPort is not set: Miredo takes any free port, this relay 3545. The firewall has to let \
             it in.",
        ),
    }
    interface(file, ROLE, draft);
    if let Some(mtu) = file.find(Keyword::InterfaceMtu) {
        draft.set(ROLE, "mtu", &number(mtu), mtu);
    }
    draft.comment(
        ROLE,
        "If this host does not forward IPv6, the relay serves it alone: set host-specific = true.",
    );
    Ok(())
}

fn server(file: &File<'_>, draft: &mut Draft) -> Result<(), Error> {
    const ROLE: Section = Section::Server;
    prefix(file, ROLE, draft)?;
    let Some(primary) = file.find(Keyword::ServerBindAddress) else {
        return Err(Error::Missing {
            file: file.path.to_owned(),
            needed: "a server needs a ServerBindAddress; add the line with its primary address",
        });
    };
    let first = address(primary)?;
    let (second, last) = match file.find(Keyword::ServerBindAddress2) {
        Some(secondary) => (address(secondary)?, secondary),
        None => (Ipv4Addr::from(u32::from(first).wrapping_add(1)), primary),
    };
    let addresses = format!("[\"{first}\", \"{second}\"]");
    draft.set(ROLE, "ipv4", &addresses, last);
    if let Some(mtu) = file.find(Keyword::InterfaceMtu) {
        draft.set(ROLE, "mtu", &number(mtu), mtu);
    }
    Ok(())
}

/// Adds a role with its service prefix.
fn prefix(file: &File<'_>, role: Section, draft: &mut Draft) -> Result<(), Error> {
    let directive = file.find(Keyword::Prefix);
    let prefix = prefix_text(directive);
    draft.add_role(role, file.path, &prefix)?;
    if let Some(directive) = directive {
        draft.set(Section::Node, "prefix", &prefix, directive);
    }
    Ok(())
}

/// Returns a service prefix in TOML. Miredo writes it without its length.
fn prefix_text(directive: Option<&Directive<'_>>) -> String {
    let Some(directive) = directive else {
        return "\"2001::/32\"".to_owned();
    };
    let address = directive.value.strip_suffix("/32");
    match address.unwrap_or(directive.value).parse::<Ipv6Addr>() {
        Ok(address) => format!("\"{address}/32\""),
        Err(_) => text(directive),
    }
}

fn interface(file: &File<'_>, role: Section, draft: &mut Draft) {
    match file.find(Keyword::InterfaceName) {
        Some(name) => draft.set(role, "tun", &text(name), name),
        None => draft.comment(
            role,
            "InterfaceName is not set: Miredo names the interface miredo, this daemon teredo. If rules \
             or scripts name it, set tun = \"miredo\".",
        ),
    }
}

fn syslog(file: &File<'_>, role: Section, draft: &mut Draft) {
    if let Some(facility) = file.find(Keyword::SyslogFacility) {
        draft.comment(
            role,
            &format!(
                "{}: no counterpart: the log goes to standard error, and from there to the journal.",
                facility.describe()
            ),
        );
    }
}

/// Returns the reason for which a directive that Miredo ignores is not imported.
fn reason(file: &File<'_>, directive: &Directive<'_>) -> &'static str {
    match directive.keyword {
        _ if file.is_repeated(directive) => "not imported, since Miredo uses the first one only.",
        Keyword::IgnoreConeBit => {
            "no counterpart: the cone bit of other addresses is ignored, as by Miredo since 1.2; see \
             client.honor-cone."
        }
        Keyword::DefaultRoute => {
            "not imported, since Miredo ignores it since 1.0; see client.default-route."
        }
        Keyword::Prefix | Keyword::InterfaceMtu => {
            "not imported, since Miredo ignores it in a client, which learns both from its server."
        }
        _ => "not imported, since Miredo ignores it with this RelayType.",
    }
}

/// Returns an address of a server. Miredo takes names, too.
fn address(directive: &Directive<'_>) -> Result<Ipv4Addr, Error> {
    const PERMITTED: &str =
        "an IPv4 address of this host, such as 198.51.100.1; if it is a name, write its address";
    let address = directive.value.parse();
    address.map_err(|_| wrong(directive, PERMITTED))
}

/// Returns a value as a string in TOML.
fn text(directive: &Directive<'_>) -> String {
    toml::Value::String(directive.value.to_owned()).to_string()
}

/// Returns a value as a number in TOML, or as a string, which is then refused. Miredo takes numbers as
/// they are in C.
fn number(directive: &Directive<'_>) -> String {
    let value = directive.value;
    let lower = value.to_ascii_lowercase();
    let number = match lower.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None if value.len() > 1 && value.starts_with('0') => u32::from_str_radix(value, 8),
        None => value.parse(),
    };
    // The standard library takes a sign.
    match number {
        Ok(number) if !value.contains('+') => number.to_string(),
        _ => text(directive),
    }
}

fn wrong(directive: &Directive<'_>, permitted: &'static str) -> Error {
    Error::Value {
        place: directive.place.clone(),
        name: directive.keyword.name(),
        value: printable(directive.value),
        permitted,
    }
}
