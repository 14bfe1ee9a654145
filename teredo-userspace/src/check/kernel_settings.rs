//! Values of the kernel's files, as the examinations read them.

use std::fs;

/// Returns a number from a file below /proc/sys; `None` if there is none.
pub fn number(name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Returns a setting of an interface: `family` is ipv4 or ipv6.
pub fn of_interface(family: &str, interface: &str, name: &str) -> Option<u64> {
    number(&format!("net/{family}/conf/{interface}/{name}"))
}
