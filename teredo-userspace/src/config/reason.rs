//! The reasons for which values are refused, where the permitted values alone do not explain it.

use toml::de::DeValue;

use super::{Member, ServerName, log_filter};

/// Returns the reason for which a value of this key is refused; empty if there is none to add.
pub fn of(section: &str, key: &str, value: &DeValue<'_>) -> String {
    let refuse: fn(&str) -> Option<String> = match (section, key) {
        ("node", "log") => |filter| {
            log_filter::check(filter)
                .err()
                .map(|error| error.to_string())
        },
        ("client", "server") => |server| {
            let error = server.parse::<ServerName>().err();
            error.map(|error| error.to_string())
        },
        ("relay.fleet", "members") => |member| {
            let error = member.parse::<Member>().err();
            error.map(|error| error.to_string())
        },
        _ => return String::new(),
    };
    let reason = match value {
        DeValue::String(text) => refuse(text),
        DeValue::Array(values) => {
            let mut texts = values.iter().filter_map(|value| value.get_ref().as_str());
            texts.find_map(refuse)
        }
        _ => None,
    };
    reason.unwrap_or_default()
}
