//! The errors of the fast path, each with the remedy.

use std::{io, path::PathBuf};

use aya::{EbpfError, maps::MapError, programs::ProgramError};

use super::{delivery::Obstacle, mode::Mode, refusal::Refusal};
use crate::privileges::MORE_FILES;

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
    /// The kernel has no memory for a map or the program.
    #[error(
        "the kernel has no memory for {what}: lower relay.max-peers, or raise the memory limit of the service"
    )]
    Memory {
        /// The map or the program.
        what: String,
    },
    /// The process may not open more files.
    #[error("no file descriptor is left for {what}: {MORE_FILES}")]
    Descriptors {
        /// The map or the program.
        what: String,
    },
    /// Something stopped the process whenever the kernel checked the program.
    #[error(
        "the kernel could not finish its check of the XDP program, as something stops this process again and again \
         (a debugger, or a freezer of control groups): let it run for some seconds"
    )]
    Interrupted,
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
        /// The reason, with the remedy.
        reason: String,
    },
    /// Frames that the program would send in native mode would be lost.
    #[error("{0}; or set xdp.mode to \"generic\" or \"auto\"")]
    Undelivered(#[from] Obstacle),
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
    /// Another user made a part of the pin directory.
    #[error(
        "{} belongs to the user {owner}, whose pins are not used: remove it, or set xdp.pin = false to do without pins", path.display()
    )]
    Planted {
        /// The file or directory.
        path: PathBuf,
        /// The user.
        owner: String,
    },
    /// Other users could change a part of the pin directory.
    #[error(
        "other users may write in {}, so that pins are not safe there: `chmod go-w {}`, or set xdp.pin = false to do without pins", path.display(), path.display()
    )]
    Exposed {
        /// The directory.
        path: PathBuf,
    },
    /// The map of peers has no room. The peer is served by userspace.
    #[error("the map of peers is full: raise relay.max-peers")]
    Full,
    /// A map could not be read or written, for another reason than a lack of memory ([`Error::Memory`]) or of file
    /// descriptors ([`Error::Descriptors`]).
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
    pub(super) fn map(map: &'static str, error: impl Into<MapError>) -> Self {
        let source = io_error(error.into());
        let code = source.raw_os_error().unwrap_or(0);
        Self::shortage(code, &format!("the map {map}")).unwrap_or(Self::Map { map, source })
    }

    /// The kernel's abilities could not be examined.
    pub(super) fn examination(error: &io::Error) -> Self {
        match error.raw_os_error().unwrap_or(0) {
            libc::EAGAIN => Self::Interrupted,
            code => Self::shortage(code, "BPF").unwrap_or(Self::NoBpf),
        }
    }

    /// What is short, if that is what this number of an error means.
    fn shortage(code: i32, what: &str) -> Option<Self> {
        let what = what.to_owned();
        match code {
            libc::ENOMEM => Some(Self::Memory { what }),
            libc::EMFILE | libc::ENFILE => Some(Self::Descriptors { what }),
            _ => None,
        }
    }

    /// Why the object could not be turned into maps and a program.
    pub(super) fn load(error: EbpfError) -> Self {
        match error {
            EbpfError::MapError(MapError::CreateError { name, io_error }) => {
                let what = format!("the map {name}");
                let action = format!("creating {what}");
                let code = io_error.raw_os_error().unwrap_or(0);
                Self::shortage(code, &what).unwrap_or_else(|| match code {
                    libc::EPERM | libc::EACCES => Self::Permission { action },
                    libc::E2BIG => Self::Memory { what },
                    libc::ENOSYS => Self::NoBpf,
                    _ => Self::Unsupported {
                        action,
                        reason: io_error.to_string(),
                    },
                })
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
                let code = io_error.raw_os_error().unwrap_or(0);
                Self::shortage(code, "the XDP program").unwrap_or_else(|| match code {
                    // Without the capability the kernel refuses before its verifier runs.
                    libc::EPERM if log.trim().is_empty() => Self::Permission {
                        action: "loading the XDP program".to_owned(),
                    },
                    libc::ENOSYS => Self::NoBpf,
                    libc::EAGAIN => Self::Interrupted,
                    _ => Self::Refused(Refusal::new(&io_error, log)),
                })
            }
            other => Self::Object {
                reason: other.to_string(),
            },
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
