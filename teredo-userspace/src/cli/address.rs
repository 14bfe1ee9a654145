//! `teredo address`: the address calculator.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4},
};

use anyhow::{Result, bail, ensure};
use clap::{ArgGroup, Args, Subcommand};
use ipnet::Ipv6Net;
use serde::Serialize;
use teredo_common::{
    address::{CONE_FLAG, Endpoint, RANDOM_FLAGS, ServicePrefix, TeredoAddress},
    scope::Ipv4Scope,
};

use super::output::{print, print_json};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Encodes the fields of a Teredo address
    Encode(Encode),
    /// Decodes a Teredo address
    Decode(Decode),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("bits").args(["flags", "cone"]))]
pub struct Encode {
    /// IPv4 address of the client's server
    #[arg(long, value_name = "IPV4")]
    server: Ipv4Addr,
    /// The client's endpoint as its server sees it
    #[arg(long, value_name = "IPV4:PORT")]
    mapped: SocketAddrV4,
    /// The flags field, such as 0x1027
    #[arg(long, value_name = "NUMBER", value_parser = parse_flags)]
    flags: Option<u16>,
    /// Set only the cone flag
    #[arg(long)]
    cone: bool,
    /// The service prefix
    #[arg(long, value_name = "PREFIX/32", value_parser = parse_prefix, default_value = "2001::/32")]
    prefix: ServicePrefix,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct Decode {
    /// The address
    address: Ipv6Addr,
    /// The service prefix [default: 2001::/32, or 3ffe:831f::/32 of the draft]
    #[arg(long, value_name = "PREFIX/32", value_parser = parse_prefix)]
    prefix: Option<ServicePrefix>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(command: Command) -> Result<()> {
    match command {
        Command::Encode(arguments) => {
            let address = encode(&arguments)?;
            if arguments.json {
                print_json(&Fields::new(address))
            } else {
                print(&format!("{}\n", address.encode()))
            }
        }
        Command::Decode(arguments) => {
            let fields = Fields::new(decode(&arguments)?);
            if arguments.json {
                print_json(&fields)
            } else {
                print(&fields.to_text())
            }
        }
    }
}

fn encode(arguments: &Encode) -> Result<TeredoAddress> {
    ensure!(
        arguments.mapped.port() != 0,
        "--mapped {} has port 0, which no client uses; give the client's port",
        arguments.mapped
    );
    let flags = match arguments.flags {
        Some(flags) => flags,
        None if arguments.cone => CONE_FLAG,
        None => 0,
    };
    Ok(TeredoAddress {
        prefix: arguments.prefix,
        server: arguments.server,
        flags,
        mapped: arguments.mapped.into(),
    })
}

fn decode(arguments: &Decode) -> Result<TeredoAddress> {
    let address = arguments.address;
    let prefixes = match arguments.prefix {
        Some(prefix) => vec![prefix],
        None => vec![ServicePrefix::STANDARD, ServicePrefix::DRAFT],
    };
    let octets = address.octets();
    let Some(&prefix) = prefixes.iter().find(|prefix| prefix.contains(&octets)) else {
        let names: Vec<_> = prefixes.iter().map(ToString::to_string).collect();
        bail!(
            "{address} is not a Teredo address: it is not in {}; another service's prefix can be \
             given with --prefix",
            names.join(" nor in ")
        );
    };
    match TeredoAddress::decode(address, prefix) {
        Some(fields) => Ok(fields),
        None => bail!("{address} is not a Teredo address: its mapped port is 0"),
    }
}

/// The fields of an address.
#[derive(Debug, Serialize)]
struct Fields {
    address: Ipv6Addr,
    prefix: String,
    server: Ipv4Addr,
    flags: Flags,
    mapped: SocketAddrV4,
    accepted: Accepted,
}

#[derive(Debug, Serialize)]
struct Flags {
    /// The whole field, hexadecimal.
    value: String,
    cone: bool,
    /// The twelve bits of RFC 5991, in place.
    random: String,
    /// Bits that no specification defines, in place.
    reserved: String,
}

/// Whether a relay accepts the address, for each `ipv4-scope`.
#[derive(Debug, Serialize)]
struct Accepted {
    server: Scopes,
    mapped: Scopes,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Scopes {
    strict: bool,
    rfc4380: bool,
    lab: bool,
}

impl Scopes {
    fn of(address: Ipv4Addr) -> Self {
        let accepts = |scope: Ipv4Scope| scope.accepts(address.octets());
        Self {
            strict: accepts(Ipv4Scope::Strict),
            rfc4380: accepts(Ipv4Scope::Rfc4380),
            lab: accepts(Ipv4Scope::Lab),
        }
    }

    fn verdict(self) -> &'static str {
        match self {
            Self { strict: true, .. } => "global unicast",
            Self { rfc4380: true, .. } => {
                "special purpose: accepted with ipv4-scope rfc4380 or lab"
            }
            Self { lab: true, .. } => "not global: accepted with ipv4-scope lab only",
            _ => "never accepted",
        }
    }
}

impl Fields {
    fn new(fields: TeredoAddress) -> Self {
        let Endpoint { address, .. } = fields.mapped;
        let reserved = fields.flags & !(CONE_FLAG | RANDOM_FLAGS);
        Self {
            address: fields.encode(),
            prefix: fields.prefix.to_string(),
            server: fields.server,
            flags: Flags {
                value: format!("{:#06x}", fields.flags),
                cone: fields.is_cone(),
                random: format!("{:#06x}", fields.flags & RANDOM_FLAGS),
                reserved: format!("{reserved:#06x}"),
            },
            mapped: fields.mapped.into(),
            accepted: Accepted {
                server: Scopes::of(fields.server),
                mapped: Scopes::of(address.into()),
            },
        }
    }

    fn to_text(&self) -> String {
        let cone = if self.flags.cone { "set" } else { "clear" };
        let mut text = String::new();
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name:8} {value}");
        };
        line("address", &self.address);
        line("prefix", &self.prefix);
        line(
            "server",
            &format_args!("{}  ({})", self.server, self.accepted.server.verdict()),
        );
        line(
            "flags",
            &format_args!(
                "{}  (cone {cone}, random bits {}, reserved bits {})",
                self.flags.value, self.flags.random, self.flags.reserved
            ),
        );
        line(
            "mapped",
            &format_args!("{}  ({})", self.mapped, self.accepted.mapped.verdict()),
        );
        text
    }
}

fn parse_flags(text: &str) -> Result<u16, String> {
    let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u16::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| "a number from 0 to 0xffff is needed".to_owned())
}

fn parse_prefix(text: &str) -> Result<ServicePrefix, String> {
    match text.parse::<Ipv6Net>() {
        Ok(network) if network.prefix_len() == 32 && network.addr() == network.network() => {
            let [a, b, c, d, ..] = network.network().octets();
            Ok(ServicePrefix([a, b, c, d]))
        }
        _ => Err("a prefix of 32 bits such as 2001::/32 is needed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(address: &str) -> Decode {
        Decode {
            address: address.parse().unwrap(),
            prefix: None,
            json: false,
        }
    }

    #[test]
    fn decoding_shows_every_field() {
        let address = arguments("2001:0:4136:e378:8000:63bf:3fff:fdd2");
        let text = Fields::new(decode(&address).unwrap()).to_text();
        assert_eq!(
            text,
            "address  2001:0:4136:e378:8000:63bf:3fff:fdd2\n\
             prefix   2001::/32\n\
             server   65.54.227.120  (global unicast)\n\
             flags    0x8000  (cone set, random bits 0x0000, reserved bits 0x0000)\n\
             mapped   192.0.2.45:40000  (special purpose: accepted with ipv4-scope rfc4380 or lab)\n"
        );
    }

    #[test]
    fn encoding_is_the_inverse() {
        let encoded = encode(&Encode {
            server: "17.23.52.250".parse().unwrap(),
            mapped: "30.3.9.202:51380".parse().unwrap(),
            flags: Some(0x1027),
            cone: false,
            prefix: ServicePrefix::STANDARD,
            json: false,
        });
        let address = "2001:0:1117:34fa:1027:374b:e1fc:f635";
        assert_eq!(encoded.unwrap(), decode(&arguments(address)).unwrap());
    }

    #[test]
    fn other_addresses_are_refused_with_a_sentence() {
        for (address, part) in [
            ("2001:db8::1", "not in 2001::/32 nor in 3ffe:831f::/32"),
            ("2001:0:102:304:0:ffff:f6ff:fffe", "its mapped port is 0"),
        ] {
            let sentence = decode(&arguments(address)).unwrap_err().to_string();
            assert!(sentence.contains(part), "{sentence}");
        }
    }

    #[test]
    fn flags_are_hexadecimal_or_decimal() {
        assert_eq!(parse_flags("0x8000"), Ok(0x8000));
        assert_eq!(parse_flags("4135"), Ok(0x1027));
        assert!(parse_flags("0x10000").is_err() && parse_flags("cone").is_err());
    }
}
