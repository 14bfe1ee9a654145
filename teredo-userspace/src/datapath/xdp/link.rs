//! The attachment of a program to one interface, as a link of the kernel: it lasts as long as a
//! descriptor of it, in whatever process, or its pin.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use super::{mode::Mode, sys};

/// A link.
#[derive(Debug)]
pub struct Link {
    descriptor: OwnedFd,
    /// The path of the pin, if there is one.
    pin: Option<PathBuf>,
}

impl Link {
    /// Attaches a program to the interface with this index.
    ///
    /// # Errors
    ///
    /// The error of the kernel.
    pub fn create(program: BorrowedFd<'_>, interface: u32, mode: Mode) -> io::Result<Self> {
        /// Of the kernel's `XDP_FLAGS_`.
        const SKB_MODE: u32 = 2;
        const DRIVER_MODE: u32 = 4;
        let flags = match mode {
            Mode::Native => DRIVER_MODE,
            Mode::Generic => SKB_MODE,
        };
        let descriptor = sys::create_link(program, interface, flags)?;
        Ok(Self {
            descriptor,
            pin: None,
        })
    }

    /// Opens a pinned link.
    ///
    /// # Errors
    ///
    /// The error of the kernel.
    pub fn open(pin: &Path) -> io::Result<Self> {
        Ok(Self {
            descriptor: sys::open_pin(pin)?,
            pin: Some(pin.to_owned()),
        })
    }

    /// Takes over a link that another process has left.
    #[must_use]
    pub fn inherited(descriptor: OwnedFd) -> Self {
        Self {
            descriptor,
            pin: None,
        }
    }

    /// Puts another program in the place of the present one, without a frame that misses both.
    ///
    /// # Errors
    ///
    /// The error of the kernel; `ENOLINK` if the interface has gone.
    pub fn replace(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        sys::update_link(self.descriptor.as_fd(), program)
    }

    /// Keeps the link when no process has it open.
    ///
    /// # Errors
    ///
    /// The error of the kernel.
    pub fn pin(&mut self, path: &Path) -> io::Result<()> {
        if self.pin.as_deref() != Some(path) {
            sys::pin(self.descriptor.as_fd(), path)?;
            self.pin = Some(path.to_owned());
        }
        Ok(())
    }

    /// Returns whether the link is pinned.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.pin.is_some()
    }

    /// Detaches the program at once, even if other processes have the link open.
    ///
    /// # Errors
    ///
    /// The error of the kernel.
    pub fn detach(&self) -> io::Result<()> {
        sys::detach_link(self.descriptor.as_fd())
    }

    /// Describes the link.
    ///
    /// # Errors
    ///
    /// The error of the kernel, or [`io::ErrorKind::InvalidInput`] if the descriptor is not that of an XDP
    /// link.
    pub fn info(&self) -> io::Result<LinkInfo> {
        /// `BPF_LINK_TYPE_XDP`.
        const XDP: u32 = 6;
        let info = sys::link_info(self.descriptor.as_fd())?;
        if info.kind != XDP {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(LinkInfo {
            number: info.id,
            program: info.program,
            interface: info.interface,
        })
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// The description of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// The number of the link in the kernel.
    pub number: u32,
    /// The number of the program.
    pub program: u32,
    /// The index of the interface; 0 if that has gone.
    pub interface: u32,
}
