//! The parts of the XDP program that the build that captures has in common with it.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use aya::{Ebpf, maps::Map};
use teredo_common::maps::THOROUGH;

/// The maps and the constants of a program.
#[derive(Debug)]
pub struct Shared {
    maps: Vec<(String, OwnedFd)>,
    /// The constants, by name.
    pub(super) globals: Vec<(&'static str, Vec<u8>)>,
}

impl Shared {
    /// Returns the maps of a program that was loaded with these constants.
    ///
    /// # Errors
    ///
    /// When there are no descriptors.
    pub(in super::super) fn of(ebpf: &Ebpf, globals: &[(&'static str, &[u8])]) -> io::Result<Self> {
        // The constants have another order in the other build. So have the programs.
        let is_shared = |name: &str| name != THOROUGH && !name.starts_with('.');
        let maps = ebpf.maps().filter(|(name, _)| is_shared(name));
        let maps = maps.filter_map(|(name, map)| {
            let map = match map {
                Map::Array(map)
                | Map::HashMap(map)
                | Map::LpmTrie(map)
                | Map::PerCpuArray(map)
                | Map::PerfEventArray(map)
                | Map::RingBuf(map) => map.fd().as_fd(),
                _ => return None,
            };
            let copy = map.try_clone_to_owned();
            Some(copy.map(|copy| (name.to_owned(), copy)))
        });
        Ok(Self {
            maps: maps.collect::<Result<_, _>>()?,
            globals: globals
                .iter()
                .map(|&(name, octets)| (name, octets.to_vec()))
                .collect(),
        })
    }

    /// Opens all maps once more.
    ///
    /// # Errors
    ///
    /// When there are no descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        let maps = self.maps.iter();
        let maps = maps.map(|(name, map)| Ok((name.clone(), map.try_clone()?)));
        Ok(Self {
            maps: maps.collect::<io::Result<_>>()?,
            globals: self.globals.clone(),
        })
    }

    /// Returns the map of this name.
    pub(super) fn map(&self, name: &str) -> Option<BorrowedFd<'_>> {
        let (_, map) = self.maps.iter().find(|(one, _)| one == name)?;
        Some(map.as_fd())
    }
}
