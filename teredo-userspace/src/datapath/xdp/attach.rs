//! Why an interface does not take the program: a diagnosis from the kernel's error and what else is
//! attached there.

use std::{fs, io, path::PathBuf};

use super::{error::Error, foreign, interface::Interface, mode::Mode};

/// Explains the kernel's refusal to attach the program, with the remedy. Asks the kernel for the program
/// that occupies the interface.
pub fn refusal(interface: &Interface, mode: Mode, error: &io::Error) -> Error {
    let name = &interface.name;
    let reason = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            return Error::Permission {
                action: format!("attaching to `{name}`"),
            };
        }
        Some(libc::ENODEV) => return Error::NoInterface { name: name.clone() },
        Some(libc::EBUSY | libc::EEXIST) => match interface.refreshed().program {
            Some(attachment) => format!(
                "the interface has {} already in {} mode; detach it ({})",
                describe_program(attachment.program),
                attachment.mode,
                detach_remedy(name, attachment.program),
            ),
            None => format!("another XDP program is attached; `bpftool net show dev {name}` names it"),
        },
        Some(libc::EOPNOTSUPP) => match mode {
            Mode::Native => "the driver has no native XDP, or an offload is in its way (`ethtool -K <interface> lro off gro-hw off`); set xdp.mode to \"generic\" or \"auto\"".to_owned(),
            Mode::Generic => "the interface has no generic XDP".to_owned(),
        },
        Some(libc::ERANGE) => "the MTU of the interface, or of a veth's peer, is too large for native XDP; lower it to 1500 (3498 at most on veth)".to_owned(),
        Some(libc::EINVAL) if mode == Mode::Native => format!(
            "the driver refuses ({}); too large an MTU is the usual cause: lower it to 1500, or set xdp.mode to \"generic\"",
            error
        ),
        Some(libc::ENOSPC) => format!(
            "the interface has fewer receive queues than its peer has transmit queues; `ethtool -L {name} rx N` with the peer's number"
        ),
        Some(libc::ENOMEM) => "the driver has no memory or too few transmit rings for XDP; lower the number of its queues with `ethtool -L`".to_owned(),
        _ => error.to_string(),
    };
    Error::Attach {
        interface: name.clone(),
        mode,
        reason,
    }
}

/// Returns how an operator detaches another program from the interface, as a clause.
#[must_use]
pub fn detach_remedy(interface: &str, program: u32) -> String {
    match foreign::links_of(program) {
        Some(links) => remedy_for(interface, &links),
        None => format!("stop its owner, which `bpftool net show dev {interface}` helps to find"),
    }
}

/// `links` are those of the program. `ip` cannot detach what a link attaches.
fn remedy_for(interface: &str, links: &[u32]) -> String {
    match links {
        [] => format!("`ip link set dev {interface} xdp off`, or stop its owner"),
        [link] => format!("stop its owner, or `bpftool link detach id {link}`"),
        _ => {
            "stop its owner, or detach the link to this interface among those that `bpftool link` \
              lists"
                .to_owned()
        }
    }
}

/// Number, name and, if it can be found out, owner of a loaded program.
fn describe_program(id: u32) -> String {
    let name = foreign::program_name(id).unwrap_or_default();
    let owner = owner_of_program(id).map_or(String::new(), |owner| format!(" of {owner}"));
    format!("program {id} `{name}`{owner}")
}

/// A process that holds the program or a link of it open.
fn owner_of_program(id: u32) -> Option<String> {
    let line = format!("prog_id:\t{id}");
    let holds = |process: &PathBuf| {
        let files = fs::read_dir(process.join("fdinfo")).ok()?;
        files
            .filter_map(Result::ok)
            .filter_map(|file| fs::read_to_string(file.path()).ok())
            .any(|text| text.lines().any(|found| found == line))
            .then_some(())
    };
    let process = fs::read_dir("/proc")
        .ok()?
        .filter_map(Result::ok)
        // Not `self` and the like.
        .filter(|entry| {
            let name = entry.file_name();
            name.as_encoded_bytes()
                .first()
                .is_some_and(u8::is_ascii_digit)
        })
        .map(|entry| entry.path())
        .find(|process| holds(process).is_some())?;
    let command = fs::read_to_string(process.join("comm")).ok()?;
    let pid = process.file_name()?.to_string_lossy().into_owned();
    Some(format!("process {pid} ({})", command.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_fits_the_way_of_attaching() {
        assert!(remedy_for("eth0", &[]).contains("`ip link set dev eth0 xdp off`"));
        for links in [&[7][..], &[7, 8]] {
            assert!(!remedy_for("eth0", links).contains("xdp off"));
        }
        assert!(remedy_for("eth0", &[7]).contains("`bpftool link detach id 7`"));
    }
}
