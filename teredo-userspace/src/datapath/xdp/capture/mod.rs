//! The capture of frames at the XDP program: a build of it that copies frames, which has its place while somebody
//! captures. It works with the maps of the usual one, so that to the data path nothing changes.
//!
//! Off, there is nothing of it in the kernel.

mod attachment;
pub mod guard;
mod shared;

use std::{
    collections::{HashMap, HashSet},
    io,
    os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, RingBuf};
use aya_obj::Object;
use teredo_common::{
    capture::{FILTER, Filter, Head, RECORDER, RECORDS, STATES, State, TEREDO},
    maps::THOROUGH,
};

use super::{refusal, sys};
use crate::datapath::verifier::undisturbed;
pub use attachment::Attachment;
pub use shared::Shared;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/capture"));

/// The program that gets the frames first.
const ENTRANCE: &str = "entrance";
/// The other programs, in their order in the array of programs.
const OTHERS: [&str; 3] = ["thorough", "teredo", "recorder"];
const _: () = assert!(TEREDO == 1 && RECORDER == 2);

/// The reason why frames are not captured at the XDP program.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The kernel refuses the programs.
    #[error(
        "the kernel refuses the build of the XDP program that captures ({}): {}; capture at the daemon alone, with \
         --points daemon", reason(.0), advice(.0, refusal::is_tested_with())
    )]
    Program(#[source] io::Error),
    /// A map cannot be used.
    #[error("the memory for captured frames cannot be used: {0}")]
    Map(#[from] MapError),
    /// The constants of the program cannot be written.
    #[error("the constants of the build that captures cannot be written: {0}")]
    Constants(#[source] io::Error),
    /// The object that is part of the daemon is broken.
    #[error("the build of the XDP program that captures is broken: {0}")]
    Object(String),
}

/// The loaded build, and what it has captured.
pub struct Capture {
    entrance: OwnedFd,
    /// The kernel empties it when nobody has it open.
    _others: MapData,
    records: RingBuf<MapData>,
    descriptor: RawFd,
    states: PerCpuArray<MapData, State>,
}

/// Frames that are missing from a capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Records for which there was no room.
    pub lost: u64,
    /// Frames that were not looked at, as the rate was reached.
    pub limited: u64,
}

impl Capture {
    /// Loads the build. It captures when it is attached in the place of the program whose parts these are.
    ///
    /// # Errors
    ///
    /// A sentence with the reason and the remedy.
    pub fn load(shared: &Shared, filter: &Filter) -> Result<Self, CaptureError> {
        let mut object = Object::parse(OBJECT).map_err(broken)?;
        let globals = shared.globals.iter();
        let globals = globals.map(|(name, octets)| (*name, (octets.as_slice(), true)));
        object.patch_map_data(globals.collect()).map_err(broken)?;
        let mut maps = create_maps(&object, shared)?;
        relocate(&mut object, &maps, shared)?;
        let mut map: Array<_, Filter> = Array::try_from(take(&mut maps, FILTER)?)?;
        map.set(0, filter, 0)?;
        let others = maps.remove(THOROUGH).ok_or_else(|| missing(THOROUGH))?;
        for (place, name) in (0..).zip(OTHERS) {
            let program = load(&object, name)?;
            sys::set_program(others.fd().as_fd(), place, program.as_fd())
                .map_err(CaptureError::Program)?;
        }
        let records = RingBuf::try_from(take(&mut maps, RECORDS)?)?;
        Ok(Self {
            entrance: load(&object, ENTRANCE)?,
            _others: others,
            descriptor: records.as_raw_fd(),
            records,
            states: PerCpuArray::try_from(take(&mut maps, STATES)?)?,
        })
    }

    /// Returns the program to attach.
    #[must_use]
    pub fn program(&self) -> BorrowedFd<'_> {
        self.entrance.as_fd()
    }

    /// Calls `visit` with the next record, and returns whether there was one.
    pub fn next(&mut self, visit: impl FnOnce(Head, &[u8])) -> bool {
        let Some(record) = self.records.next() else {
            return false;
        };
        if let Some((head, octets)) = record.split_at_checked(size_of::<Head>()) {
            visit(bytemuck::pod_read_unaligned(head), octets);
        }
        true
    }

    /// Returns how many frames are missing until now.
    #[must_use]
    pub fn missing(&self) -> Missing {
        let states = self.states.get(&0, 0);
        let states = states.iter().flat_map(|states| states.iter());
        states.fold(Missing::default(), |sum, state| Missing {
            lost: sum.lost + state.lost,
            limited: sum.limited + state.limited,
        })
    }
}

impl AsRawFd for Capture {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor
    }
}

/// Creates the maps that the build does not share.
fn create_maps(object: &Object, shared: &Shared) -> Result<HashMap<String, MapData>, CaptureError> {
    let mut maps = HashMap::new();
    for (name, described) in &object.maps {
        if shared.map(name).is_some() {
            continue;
        }
        let mut described = described.clone();
        if name == THOROUGH {
            described.set_max_entries(OTHERS.len() as u32);
        }
        let map = MapData::create(described.clone(), name, None)?;
        if !described.data().is_empty() {
            sys::fill(map.fd().as_fd(), described.data()).map_err(CaptureError::Constants)?;
        }
        maps.insert(name.clone(), map);
    }
    Ok(maps)
}

/// Puts the descriptors of the maps into the programs.
fn relocate(
    object: &mut Object,
    own: &HashMap<String, MapData>,
    shared: &Shared,
) -> Result<(), CaptureError> {
    let sections: HashSet<usize> = object
        .functions
        .keys()
        .map(|&(section, _)| section)
        .collect();
    let described = object.maps.clone();
    let maps = described.iter().filter_map(|(name, map)| {
        let own = own.get(name).map(|map| map.fd().as_fd());
        let descriptor = shared.map(name).or(own)?;
        Some((name.as_str(), descriptor.as_raw_fd(), map))
    });
    object.relocate_maps(maps, &sections).map_err(broken)?;
    object.relocate_calls(&sections).map_err(broken)
}

/// Loads one of the programs.
fn load(object: &Object, name: &str) -> Result<OwnedFd, CaptureError> {
    let program = object.programs.get(name);
    let function = program.and_then(|program| object.functions.get(&program.function_key()));
    let function = function.ok_or_else(|| missing(name))?;
    let words: Vec<u64> = function
        .instructions
        .iter()
        .map(|instruction| {
            // SAFETY: an instruction is 8 octets, all of which are initialised.
            unsafe { std::mem::transmute::<aya_obj::generated::bpf_insn, u64>(*instruction) }
        })
        .collect();
    undisturbed(|| sys::load_xdp(name, &words)).map_err(CaptureError::Program)
}

fn take(maps: &mut HashMap<String, MapData>, name: &str) -> Result<Map, CaptureError> {
    let map = maps.remove(name).ok_or_else(|| missing(name))?;
    Ok(Map::from_map_data(map)?)
}

/// Returns the kernel's reason for a refusal.
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::E2BIG) => "its verifier gives up after a million instructions".to_owned(),
        _ => error.to_string(),
    }
}

/// Returns what helps against a refusal by a kernel that the program is tested with, or by an older one.
fn advice(error: &io::Error, is_tested_with: bool) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOMEM) => "raise the memory limit of the service",
        Some(libc::EMFILE | libc::ENFILE) => "raise the limit of open files",
        Some(libc::EAGAIN) => {
            "something stops the daemon again and again, so let it run for some seconds"
        }
        _ if !is_tested_with => "it needs Linux 6.1 or later",
        _ => "this is a defect of teredo, so please report it with the release of the kernel",
    }
}

fn missing(name: &str) -> CaptureError {
    CaptureError::Object(format!("it has no {name}"))
}

fn broken(error: impl std::error::Error) -> CaptureError {
    CaptureError::Object(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_what_helps() {
        let sentence = |number| {
            let error = io::Error::from_raw_os_error(number);
            format!("{}: {}", reason(&error), advice(&error, true))
        };
        assert!(sentence(libc::E2BIG).starts_with("its verifier gives up"));
        assert!(sentence(libc::E2BIG).contains("defect of teredo"));
        assert!(sentence(libc::ENOMEM).contains("memory limit"));
        assert!(sentence(libc::EMFILE).contains("open files"));
        let unknown_helper = io::Error::from_raw_os_error(libc::EINVAL);
        assert!(advice(&unknown_helper, false).contains("Linux 6.1"));
    }
}
