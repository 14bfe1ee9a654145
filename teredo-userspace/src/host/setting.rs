//! Settings of the kernel's network, `net.*` of sysctl.

use std::{fmt, fs, io, path::PathBuf};

use nix::errno::Errno;

/// A setting of an interface, or of `all` or `default`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Setting {
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    /// The name of the interface, `all` or `default`.
    pub interface: String,
    /// The name of the setting.
    pub name: &'static str,
}

impl Setting {
    /// Returns the setting of whether the interface forwards packets of IPv4.
    pub fn ipv4_forwarding(interface: &str) -> Self {
        Self::new("ipv4", interface, "forwarding")
    }

    /// Returns the setting of whether the interface forwards packets of IPv6.
    pub fn ipv6_forwarding(interface: &str) -> Self {
        Self::new("ipv6", interface, "forwarding")
    }

    /// Returns the setting of IPv4 with this name.
    pub fn ipv4(interface: &str, name: &'static str) -> Self {
        Self::new("ipv4", interface, name)
    }

    /// Returns the setting of IPv6 with this name.
    pub fn ipv6(interface: &str, name: &'static str) -> Self {
        Self::new("ipv6", interface, name)
    }

    fn new(family: &'static str, interface: &str, name: &'static str) -> Self {
        Self {
            family,
            interface: interface.to_owned(),
            name,
        }
    }

    /// Reads the value in the network namespace of the calling thread; `None` if there is none.
    ///
    /// # Errors
    ///
    /// When the process has no file descriptors or memory left.
    pub fn read(&self) -> io::Result<Option<String>> {
        match fs::read_to_string(self.path()) {
            Ok(value) => Ok(Some(value.trim().to_owned())),
            Err(error) if is_shortage(&error) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Reads a number; `None` if there is none.
    pub fn number(&self) -> Option<u64> {
        self.read().ok()??.parse().ok()
    }

    /// Writes a value.
    ///
    /// # Errors
    ///
    /// Without permission, or when the setting does not exist.
    pub fn write(&self, value: &str) -> io::Result<()> {
        fs::write(self.path(), value)
    }

    fn path(&self) -> PathBuf {
        let (family, interface) = (self.family, &*self.interface);
        ["/proc/sys/net", family, "conf", interface, self.name]
            .iter()
            .collect()
    }
}

/// Returns whether an error tells of this process, not of the file.
fn is_shortage(error: &io::Error) -> bool {
    let error = error.raw_os_error().map(Errno::from_raw);
    let shortages = [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOBUFS];
    error.is_some_and(|error| shortages.contains(&error))
}

/// Formats the key as sysctl prints it.
impl fmt::Display for Setting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            family,
            interface,
            name,
        } = self;
        // A dot in the name of an interface is a slash to sysctl.
        let interface = interface.replace('.', "/");
        write!(formatter, "net.{family}.conf.{interface}.{name}")
    }
}
