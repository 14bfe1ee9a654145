//! The forms of the texts in requests, for the OpenAPI document. They are those in which the texts are mostly
//! written; the daemon reads a few others, too.

use std::{borrow::Cow, collections::BTreeSet};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use teredo_common::capture::SNAPLEN_MAX;

use crate::{capture::Reason, metrics::Role};

/// An octet of an IPv4 address, in decimal digits.
const OCTET: &str = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
/// A port.
const PORT: &str =
    "(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9]?[0-9]{1,3})";
/// The length of an IPv4 prefix.
const IPV4_LENGTH: &str = "(3[0-2]|[12]?[0-9])";
/// The length of an IPv6 prefix.
const IPV6_LENGTH: &str = "(12[0-8]|1[01][0-9]|[1-9]?[0-9])";
/// The text of an octet in hexadecimal digits, with spaces or colons before it.
const DIGITS: &str = "[ :]*[0-9a-fA-F]{2}";
/// A word for points of a capture.
const POINT: &str =
    "xdp|daemon|(xdp:|daemon:)?(received|dropped|forwarded)|(xdp:)?passed|(daemon:)?sent";
/// The most packets a second in a capture.
const RATE_MAX: u64 = 100_000;

fn ipv4() -> String {
    format!("({OCTET}\\.){{3}}{OCTET}")
}

/// Returns the pattern of IPv6 addresses in groups of hexadecimal digits.
fn ipv6() -> String {
    let group = "[0-9a-fA-F]{1,4}";
    // Zeros may be left out after any number of groups.
    let shortened = (1..7).map(|before| {
        let after = 7 - before;
        format!("({group}:){{{before}}}(:{group}){{1,{after}}}")
    });
    let mut forms: Vec<_> = shortened.collect();
    forms.push(format!("({group}:){{7}}{group}"));
    forms.push(format!("({group}:){{1,7}}:"));
    forms.push(format!(":(:{group}){{1,7}}"));
    forms.push("::".to_owned());
    format!("({})", forms.join("|"))
}

fn endpoint() -> String {
    format!("{}:{PORT}", ipv4())
}

/// Returns the schema of texts that match one of these patterns as a whole.
fn matching(patterns: &[String]) -> Schema {
    json_schema!({"type": "string", "pattern": format!("^({})$", patterns.join("|"))})
}

/// Returns the schema of a list of words with this pattern, with commas.
fn list_of(word: &str) -> Schema {
    matching(&[format!("({word})(,({word}))*")])
}

/// Returns the pattern of the reasons of a capture.
fn reason() -> String {
    let names: BTreeSet<_> = Reason::all().map(|one| one.name()).collect();
    names.into_iter().collect::<Vec<_>>().join("|")
}

/// Defines types that stand for the forms of texts.
macro_rules! forms {
    ($($(#[$documentation:meta])* $name:ident = $schema:expr;)*) => {
        $(
            $(#[$documentation])*
            pub struct $name;

            impl JsonSchema for $name {
                fn inline_schema() -> bool {
                    true
                }

                fn schema_name() -> Cow<'static, str> {
                    stringify!($name).into()
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    $schema
                }
            }
        )*
    };
}

forms! {
    /// An IPv6 prefix, or an address.
    PrefixText = matching(&[ipv6(), format!("{}/{IPV6_LENGTH}", ipv6())]);
    /// An IPv4 address with a port or without.
    EndpointText = matching(&[ipv4(), endpoint()]);
    /// An IPv6 address, or an IPv4 address with a port or without.
    PeerText = matching(&[ipv6(), ipv4(), endpoint()]);
    /// A network.
    NetworkText = matching(&[
        format!("{}/{IPV4_LENGTH}", ipv4()),
        format!("{}/{IPV6_LENGTH}", ipv6()),
    ]);
    /// The subject of an explanation: an IPv6 address, an IPv4 endpoint, or a flow.
    SubjectText = matching(&[ipv6(), endpoint(), format!("{} (-> )?{}", ipv6(), ipv6())]);
    /// A packet in hexadecimal digits.
    PacketText = matching(&[format!("(0x)?({DIGITS})+[ :]*")]);
    /// The name of a role.
    RoleText = json_schema!({"type": "string", "enum": Role::ALL.map(Role::name)});
    /// The points of a capture, with commas.
    PointsText = list_of(POINT);
    /// The reasons of a capture, with commas.
    ReasonsText = list_of(&reason());
}

/// A number from `LEAST` to `MOST`.
pub struct NumberText<const LEAST: u64, const MOST: u64 = { u64::MAX }>;

/// Packets a second.
pub type RateNumber = NumberText<1, RATE_MAX>;
/// Octets of each packet in a capture.
pub type SnaplenNumber = NumberText<1, { SNAPLEN_MAX as u64 }>;

impl<const LEAST: u64, const MOST: u64> JsonSchema for NumberText<LEAST, MOST> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Number".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": LEAST, "maximum": MOST})
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use boon::{Compiler, Schemas};
    use proptest::{prelude::*, string::string_regex};
    use serde_json::Value;

    use super::*;
    use crate::{
        api::filter::{parse_endpoint, parse_prefix},
        capture::Query,
        explain::{Subject, parse_hexadecimal},
    };

    /// Returns whether a value has the form of a text.
    fn has_form<T: JsonSchema>(value: impl Into<Value>) -> bool {
        let schema = T::json_schema(&mut SchemaGenerator::default());
        let (mut compiler, mut schemas) = (Compiler::new(), Schemas::new());
        let here = "memory:///form.json";
        compiler.add_resource(here, schema.into()).unwrap();
        let schema = compiler.compile(here, &mut schemas).unwrap();
        schemas.validate(&value.into(), schema).is_ok()
    }

    /// Returns texts of a form.
    fn texts<T: JsonSchema>() -> impl Strategy<Value = String> {
        let schema = T::json_schema(&mut SchemaGenerator::default());
        let pattern = schema.get("pattern").unwrap().as_str().unwrap();
        let pattern = pattern
            .strip_prefix('^')
            .unwrap()
            .strip_suffix('$')
            .unwrap();
        string_regex(pattern).unwrap()
    }

    fn captures(set: impl FnOnce(&mut Query)) -> bool {
        let mut query = Query::default();
        set(&mut query);
        query.selection().is_ok()
    }

    proptest! {
        /// Whatever has the documented form is read.
        #[test]
        fn forms_are_read(
            prefix in texts::<PrefixText>(),
            endpoint in texts::<EndpointText>(),
            subject in texts::<SubjectText>(),
            packet in texts::<PacketText>(),
            peer in texts::<PeerText>(),
            network in texts::<NetworkText>(),
            points in texts::<PointsText>(),
            reasons in texts::<ReasonsText>(),
        ) {
            prop_assert!(parse_prefix(&prefix).is_some(), "{prefix}");
            prop_assert!(parse_endpoint(&endpoint).is_some(), "{endpoint}");
            prop_assert!(Subject::parse(&subject).is_ok(), "{subject}");
            prop_assert!(parse_hexadecimal(&packet).is_ok(), "{packet}");
            prop_assert!(captures(|query| query.peer = Some(peer.clone())), "{peer}");
            prop_assert!(captures(|query| query.prefix = Some(network.clone())), "{network}");
            prop_assert!(captures(|query| query.points = Some(points.clone())), "{points}");
            prop_assert!(captures(|query| query.reason = Some(reasons.clone())), "{reasons}");
        }

        /// Addresses are written in the documented forms.
        #[test]
        fn written_addresses_have_their_forms(ipv6: u128, zeros: u128, ipv4: u32, port: u16, length in 0..=128_u8) {
            // Without groups in the form of an IPv4 address.
            let ipv6 = Ipv6Addr::from(ipv6 & zeros | 1 << 112);
            let ipv4 = Ipv4Addr::from(ipv4);
            prop_assert!(has_form::<PrefixText>(ipv6.to_string()), "{ipv6}");
            let prefix = format!("{ipv6}/{length}");
            prop_assert!(has_form::<PrefixText>(&*prefix), "{prefix}");
            prop_assert!(has_form::<EndpointText>(ipv4.to_string()));
            let endpoint = format!("{ipv4}:{port}");
            prop_assert!(has_form::<EndpointText>(&*endpoint), "{endpoint}");
            let flow = format!("{ipv6} -> {ipv6}");
            prop_assert!(has_form::<SubjectText>(&*flow), "{flow}");
        }
    }

    #[test]
    fn others_are_refused() {
        assert!(!has_form::<PrefixText>("2001::/129") && !has_form::<PrefixText>(""));
        assert!(!has_form::<EndpointText>("192.0.2.1:65536"));
        assert!(!has_form::<SubjectText>("192.0.2.1") && has_form::<SubjectText>("192.0.2.1:1"));
        assert!(!has_form::<PacketText>("6") && has_form::<PacketText>("0x60 00:00"));
        assert!(!has_form::<PointsText>("daemon:passed") && has_form::<PointsText>("xdp,sent"));
        assert!(!has_form::<ReasonsText>("unheard-of"));
        for role in Role::ALL {
            assert!(has_form::<RoleText>(role.name()));
        }
    }

    #[test]
    fn numbers_have_the_documented_bounds() {
        for value in [
            0,
            1,
            RATE_MAX,
            RATE_MAX + 1,
            SNAPLEN_MAX.into(),
            u64::from(SNAPLEN_MAX) + 1,
        ] {
            let number = u32::try_from(value).ok();
            let is_read = captures(|query| query.rate = number);
            assert_eq!(is_read, has_form::<RateNumber>(value), "rate {value}");
            let is_read = captures(|query| query.snaplen = number);
            assert_eq!(is_read, has_form::<SnaplenNumber>(value), "snaplen {value}");
        }
    }
}
