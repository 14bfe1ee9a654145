//! The commands of the `bpf` system call for programs that are not from an object file.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, ensure};
use aya_obj::generated::{
    bpf_attach_type, bpf_attr, bpf_cmd, bpf_insn, bpf_map_type, bpf_prog_info, bpf_prog_type,
};
use teredo::datapath::verifier::undisturbed;

/// Octets for the kernel's statistics about a load, or its reason against it.
const LOG: usize = 1 << 16;
/// The level of the log with statistics only.
const STATISTICS: u32 = 4;

/// A program in the kernel.
#[derive(Debug)]
pub struct Program {
    fd: OwnedFd,
    /// The facts about it.
    pub size: Size,
}

/// Sizes of a program.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Size {
    /// Slots of instructions after the verifier has removed dead ones and inlined helpers.
    pub translated: u32,
    /// Octets of machine code; 0 without a compiler in the kernel.
    pub compiled: u32,
    /// Instructions that the verifier has followed.
    pub verified: u32,
    /// Octets of the stack of each function, the main one first.
    pub stack: Vec<u16>,
}

/// The outcome of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The value that the program returned.
    pub action: u32,
    /// The frame as the program has left it.
    pub frame: Vec<u8>,
}

fn zeroed() -> bpf_attr {
    // SAFETY: zeros are valid for every member of the union.
    unsafe { std::mem::zeroed() }
}

/// Calls the kernel.
///
/// # Safety
///
/// Every pointer in `attributes` is valid for the reads and writes of the command.
unsafe fn bpf(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: the attributes are as long as that; the caller guarantees the pointers in them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_int,
            std::ptr::from_mut(attributes),
            size_of::<bpf_attr>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as i32)
}

/// Calls the kernel with a command that returns a descriptor.
///
/// # Safety
///
/// As [`bpf`].
unsafe fn open(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: the caller guarantees the pointers.
    let fd = unsafe { bpf(command, attributes)? };
    // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

impl Program {
    /// Loads an XDP program.
    ///
    /// # Errors
    ///
    /// Fails with the verifier's reason when the kernel refuses the program.
    pub fn load(instructions: &[bpf_insn]) -> Result<Self> {
        let license = CString::new("Dual MIT/GPL")?;
        let mut log = vec![0_u8; LOG];
        let mut attributes = zeroed();
        // SAFETY: this is the member of the command below.
        let load = unsafe { &mut attributes.__bindgen_anon_3 };
        load.prog_type = bpf_prog_type::BPF_PROG_TYPE_XDP as u32;
        load.expected_attach_type = bpf_attach_type::BPF_XDP as u32;
        load.insns = instructions.as_ptr() as u64;
        load.insn_cnt = instructions.len().try_into()?;
        load.license = license.as_ptr() as u64;
        load.log_level = STATISTICS;
        load.log_buf = log.as_mut_ptr() as u64;
        load.log_size = LOG as u32;
        let fd = undisturbed(|| {
            // SAFETY: instructions, licence and log outlive the call, and are as long as it says.
            unsafe { open(bpf_cmd::BPF_PROG_LOAD, &mut attributes) }
        });
        let length = log.iter().position(|octet| *octet == 0);
        log.truncate(length.unwrap_or(LOG));
        let log = String::from_utf8_lossy(&log);
        let fd = fd.with_context(|| format!("load the program: {log}"))?;
        let size = size(&fd, &log)?;
        Ok(Self { fd, size })
    }

    /// Runs the program once on a frame that comes from this interface of the caller's namespace.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses it.
    pub fn run(&self, interface: u32, frame: &[u8]) -> Result<Run> {
        /// Octets by which a program may lengthen a frame.
        const ROOM: usize = 256;
        let mut out = vec![0_u8; frame.len() + ROOM];
        // The kernel's `xdp_md`: data, end, metadata, ingress interface, queue, egress interface.
        let context = [0, u32::try_from(frame.len())?, 0, interface, 0, 0];
        let mut attributes = zeroed();
        attributes.test.prog_fd = self.fd.as_raw_fd() as u32;
        attributes.test.repeat = 1;
        attributes.test.data_in = frame.as_ptr() as u64;
        attributes.test.data_size_in = frame.len() as u32;
        attributes.test.data_out = out.as_mut_ptr() as u64;
        attributes.test.data_size_out = out.len() as u32;
        attributes.test.ctx_in = context.as_ptr() as u64;
        attributes.test.ctx_size_in = size_of_val(&context) as u32;
        // SAFETY: frame, context and room outlive the call, and are as long as it says.
        unsafe { bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attributes) }.context("run the program")?;
        // SAFETY: the kernel has written this member.
        let test = unsafe { attributes.test };
        out.truncate(test.data_size_out as usize);
        Ok(Run {
            action: test.retval,
            frame: out,
        })
    }
}

fn size(fd: &OwnedFd, log: &str) -> Result<Size> {
    // SAFETY: zeros are valid for a structure of integers.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    let mut attributes = zeroed();
    attributes.info.bpf_fd = fd.as_raw_fd() as u32;
    attributes.info.info_len = size_of_val(&info) as u32;
    attributes.info.info = std::ptr::from_mut(&mut info) as u64;
    // SAFETY: the structure outlives the call, and is as long as it says.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }.context("read its sizes")?;
    let depths = log
        .lines()
        .find_map(|line| line.strip_prefix("stack depth "));
    let depths = depths.context("the kernel's log has no depth of the stack")?;
    // Without a space there would be what newer kernels say behind it.
    let depths = depths.split(' ').next().unwrap_or_default().split('+');
    let stack = depths.map(str::parse).collect::<Result<_, _>>()?;
    Ok(Size {
        translated: info.xlated_prog_len / size_of::<bpf_insn>() as u32,
        compiled: info.jited_prog_len,
        verified: info.verified_insns,
        stack,
    })
}

/// Counters in the kernel.
#[derive(Debug)]
pub struct Counters {
    fd: OwnedFd,
    count: usize,
}

impl Counters {
    /// Makes this number of counters, which are the value of one entry of an array.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses it.
    pub fn new(count: usize) -> Result<Self> {
        ensure!(count > 0, "there is nothing to count");
        let mut attributes = zeroed();
        // SAFETY: this is the member of the command below.
        let map = unsafe { &mut attributes.__bindgen_anon_1 };
        map.map_type = bpf_map_type::BPF_MAP_TYPE_ARRAY as u32;
        map.key_size = 4;
        map.value_size = u32::try_from(count * size_of::<u64>())?;
        map.max_entries = 1;
        // SAFETY: the attributes contain no pointers.
        let fd = unsafe { open(bpf_cmd::BPF_MAP_CREATE, &mut attributes) };
        Ok(Self {
            fd: fd.context("make the counters")?,
            count,
        })
    }

    /// The descriptor of the map.
    #[must_use]
    pub fn descriptor(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Reads all counters.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses it.
    pub fn read(&self) -> Result<Vec<u64>> {
        let mut counts = vec![0_u64; self.count];
        self.element(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut counts)?;
        Ok(counts)
    }

    /// Sets all counters to zero.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses it.
    pub fn reset(&self) -> Result<()> {
        self.element(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut vec![0; self.count])
    }

    fn element(&self, command: bpf_cmd, counts: &mut [u64]) -> Result<()> {
        let key = 0_u32;
        let mut attributes = zeroed();
        // SAFETY: this is the member of both commands.
        let element = unsafe { &mut attributes.__bindgen_anon_2 };
        element.map_fd = self.fd.as_raw_fd() as u32;
        element.key = std::ptr::from_ref(&key) as u64;
        element.__bindgen_anon_1.value = counts.as_mut_ptr() as u64;
        // SAFETY: the key outlives the call, and the counters are as many as the entry has.
        unsafe { bpf(command, &mut attributes) }.context("the counters")?;
        Ok(())
    }
}
