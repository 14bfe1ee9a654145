//! What can go wrong with the fast path, each with the mend.

use std::{fs, io, path::PathBuf};

use aya::{
    EbpfError,
    maps::MapError,
    programs::{ProgramError, ProgramInfo, XdpError, loaded_programs},
};

use super::{
    interface::{Interface, Mode},
    refusal::Refusal,
};

/// Why the fast path could not start, or a map not be written. The message is the whole sentence
/// for the user.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configured interface does not exist.
    #[error(
        "there is no interface `{name}`: name one that exists in xdp.interfaces (`ip link` lists them)"
    )]
    NoInterface {
        /// As configured.
        name: String,
    },
    /// The interface carries no Ethernet frames.
    #[error(
        "interface `{name}` is not an Ethernet interface: take it out of xdp.interfaces, or set xdp.mode = \"off\""
    )]
    NotEthernet {
        /// As configured.
        name: String,
    },
    /// The process lacks a capability.
    #[error(
        "{action} is not permitted: run as root, or with the capabilities CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, or set xdp.mode = \"off\""
    )]
    Permission {
        /// What was tried.
        action: String,
    },
    /// The kernel has no memory for the maps.
    #[error(
        "the kernel has no memory for the map {map}: lower relay.max-peers, or raise the memory limit of the service"
    )]
    Memory {
        /// Name of the map.
        map: String,
    },
    /// The process may not open more files.
    #[error(
        "no file descriptor is left for the map {map}: raise the limit of open files (LimitNOFILE= of the service, or `ulimit -n`)"
    )]
    Descriptors {
        /// Name of the map.
        map: String,
    },
    /// The kernel was built without BPF.
    #[error(
        "this kernel has no BPF: run one that is built with CONFIG_BPF_SYSCALL, or set xdp.mode = \"off\" to do without the fast path"
    )]
    NoBpf,
    /// The kernel does not have a kind of map or link.
    #[error(
        "this kernel refuses {action} ({reason}): the fast path is tested on Linux 6.1 and newer; set xdp.mode = \"off\" to do without it"
    )]
    Unsupported {
        /// The refused action.
        action: String,
        /// The kernel's answer.
        reason: String,
    },
    /// The kernel refused the program.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The program could not be attached to an interface.
    #[error("the {mode} XDP program cannot be attached to `{interface}`: {reason}")]
    Attach {
        /// Name of the interface.
        interface: String,
        /// The mode that was asked for.
        mode: Mode,
        /// Why, with the mend.
        reason: String,
    },
    /// Another daemon holds the same pin directory.
    #[error(
        "another teredo daemon called `{name}` is running: stop it, or give this one another node.name"
    )]
    Running {
        /// `node.name`.
        name: String,
    },
    /// The BPF file system refused something.
    #[error("cannot {action} {}: {source}; set xdp.pin = false to do without pins", path.display())]
    Pin {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The map of peers has no room. The peer is served by userspace.
    #[error("the map of peers is full: raise relay.max-peers")]
    Full,
    /// A map could not be read or written.
    #[error("the map {map} cannot be used: {source}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel did not answer a question about interfaces.
    #[error("the kernel does not tell about interface `{name}`: {source}")]
    Netlink {
        /// The interface asked about.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The object that this daemon embeds is not what it expects.
    #[error("the embedded XDP program is damaged ({reason}): rebuild with `cargo xtask build`")]
    Object {
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    /// A map call that failed.
    pub(super) fn map(map: &'static str, error: MapError) -> Self {
        Self::Map {
            map,
            source: io_error(error),
        }
    }

    /// Why the object could not be turned into maps and a program.
    pub(super) fn load(error: EbpfError) -> Self {
        match error {
            EbpfError::MapError(MapError::CreateError { name, io_error }) => {
                let action = format!("creating the map {name}");
                match io_error.raw_os_error() {
                    Some(libc::EPERM | libc::EACCES) => Self::Permission { action },
                    Some(libc::ENOMEM | libc::E2BIG) => Self::Memory { map: name },
                    Some(libc::EMFILE | libc::ENFILE) => Self::Descriptors { map: name },
                    Some(libc::ENOSYS) => Self::NoBpf,
                    _ => Self::Unsupported {
                        action,
                        reason: io_error.to_string(),
                    },
                }
            }
            EbpfError::ProgramError(error) => Self::program(error),
            EbpfError::ParseError(error) => Self::Object {
                reason: error.to_string(),
            },
            other => Self::Unsupported {
                action: "the program's object".to_owned(),
                reason: other.to_string(),
            },
        }
    }

    /// Why the kernel did not take the program.
    pub(super) fn program(error: ProgramError) -> Self {
        match error {
            ProgramError::LoadError {
                io_error,
                verifier_log,
            } => {
                let log = verifier_log.to_string();
                match io_error.raw_os_error() {
                    // Without the capability the kernel refuses before its verifier runs.
                    Some(libc::EPERM) if log.trim().is_empty() => Self::Permission {
                        action: "loading the XDP program".to_owned(),
                    },
                    Some(libc::ENOSYS) => Self::NoBpf,
                    _ => Self::Refused(Refusal::new(&io_error, log)),
                }
            }
            other => Self::Object {
                reason: other.to_string(),
            },
        }
    }

    /// Why the program could not be attached.
    pub(super) fn attach(interface: &Interface, mode: Mode, error: &ProgramError) -> Self {
        let name = &interface.name;
        let reason = match errno(error) {
            Some(libc::EPERM | libc::EACCES) => {
                return Self::Permission {
                    action: format!("attaching to `{name}`"),
                };
            }
            Some(libc::ENODEV) => return Self::NoInterface { name: name.clone() },
            Some(libc::EBUSY | libc::EEXIST) => match interface.refreshed().program {
                Some(attachment) => format!(
                    "the interface has {} already in {} mode; detach it (`ip link set dev {name} xdp off`, or stop its owner)",
                    describe_program(attachment.program),
                    attachment.mode,
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
                root_cause(error)
            ),
            Some(libc::ENOSPC) => format!(
                "the interface has fewer receive queues than its peer has transmit queues; `ethtool -L {name} rx N` with the peer's number"
            ),
            Some(libc::ENOMEM) => "the driver has no memory or too few transmit rings for XDP; lower the number of its queues with `ethtool -L`".to_owned(),
            _ => root_cause(error),
        };
        Self::Attach {
            interface: name.clone(),
            mode,
            reason,
        }
    }
}

/// The kernel's answer behind an error of a map.
pub(super) fn io_error(error: MapError) -> io::Error {
    match error {
        MapError::SyscallError(error) => error.io_error,
        MapError::IoError(error)
        | MapError::CreateError {
            io_error: error, ..
        } => error,
        other => io::Error::other(other),
    }
}

fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        ProgramError::XdpError(XdpError::NetlinkError(error)) => error.raw_os_error(),
        ProgramError::IOError(error) => error.raw_os_error(),
        _ => None,
    }
}

fn root_cause(error: &ProgramError) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Number, name and, if it can be found out, owner of a loaded program.
fn describe_program(id: u32) -> String {
    let info = loaded_programs()
        .filter_map(Result::ok)
        .find(|info| info.id() == id);
    let name = info
        .as_ref()
        .and_then(ProgramInfo::name_as_str)
        .unwrap_or("");
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
