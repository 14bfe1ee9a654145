//! The time that a capture costs the fast path.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    time::Duration,
};

use anyhow::{Context as _, Result};
use teredo::{capture::Query, datapath::xdp::capture::Capture as XdpCapture};
use teredo_common::{capture::Filter, verdict::Verdict};
use teredo_lab::{
    cpu, fixture::Fixture, fixture::Port, fixture::ROUTER, fixture::Setup, fixture::WAN,
    fixture::relay, packet, uninterrupted,
};

/// Time after which runs that are always interrupted are not tried again.
const PATIENCE: Duration = Duration::from_secs(10);

/// The kernel's `bpf_attr` for running a program on a frame.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Run {
    program: u32,
    result: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
}

/// Returns the nanoseconds that a program takes for a frame. Calls `before` before every attempt, as one that is interrupted
/// has run the program, too.
fn nanoseconds(
    program: BorrowedFd<'_>,
    interface: u32,
    frame: &[u8],
    repeat: u32,
    mut before: impl FnMut(),
) -> Result<u32> {
    const TEST_RUN: libc::c_int = 10;
    let context: [u32; 6] = [0, frame.len() as u32, 0, interface, 0, 0];
    let mut run = Run {
        program: program.as_raw_fd() as u32,
        size_in: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        repeat,
        context_size_in: 24,
        context_in: context.as_ptr() as u64,
        ..bytemuck::Zeroable::zeroed()
    };
    uninterrupted(PATIENCE, || {
        before();
        // SAFETY: frame and context have the sizes that are given, and outlive the call.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, TEST_RUN, &raw mut run, size_of::<Run>()) };
        match result {
            0 => Ok(run.duration),
            _ => Err(io::Error::last_os_error()),
        }
    })
    .context("runs of a program")
}

/// Prints what a frame costs with and without a capture, as docs/performance.md has it.
#[test]
fn a_capture_costs_only_what_it_looks_at() -> Result<()> {
    /// Frames of one run, which have room in the ring buffer together.
    const FRAMES: u32 = 4_000;
    const ROUNDS: usize = 25;
    // Each CPU counts its own frames.
    cpu::stay()?;
    let mut fixture = Fixture::new(&Setup::default())?;
    let interface = fixture.interface(Port::Wan);
    let client = packet::address("2001:0:506:708:0:efff:f5f4:f3f2");
    let inner = packet::udp(client, packet::address("2000::b"), &[1; 16]);
    let datagram = packet::datagram(packet::endpoint("10.11.12.13:4096"), relay(), 7, &inner);
    let frame = packet::ethernet(WAN, ROUTER, 0x800, &datagram);
    let selection = |set: fn(&mut Query)| {
        let mut query = Query::default();
        set(&mut query);
        anyhow::Ok(query.selection()?.filter)
    };
    let all = Filter {
        interval: 0,
        ..selection(|_| {})?
    };
    let filters = [
        (
            "a filter of an address that matches nothing",
            selection(|query| query.peer = Some("192.0.2.1".to_owned()))?,
        ),
        (
            "a filter of a reason that matches nothing",
            selection(|query| query.reason = Some("encap-bubble".to_owned()))?,
        ),
        ("one frame of 100", Filter { sample: 100, ..all }),
        (
            "everything, beyond the rate of 1,000 a second",
            selection(|_| {})?,
        ),
        ("everything, 256 octets of each", all),
    ];
    let shared = fixture.program.shared()?;
    let captures = filters.map(|(name, filter)| (name, XdpCapture::load(&shared, &filter)));
    let usual = fixture.program.xdp()?.fd()?.try_clone()?;
    let mut times: Vec<(&str, Vec<u32>, usize)> = vec![("off", Vec::new(), 0)];
    let mut captures = captures
        .into_iter()
        .map(|(name, capture)| {
            times.push((name, Vec::new(), 0));
            Ok(capture?)
        })
        .collect::<Result<Vec<_>>>()?;
    for _ in 0..ROUNDS {
        let time = nanoseconds(usual.as_fd(), interface, &frame, FRAMES, || ())?;
        times[0].1.push(time);
        for (capture, (_, times, records)) in captures.iter_mut().zip(&mut times[1..]) {
            let program = capture.program().try_clone_to_owned()?;
            let forget = || while capture.next(|_, _| ()) {};
            times.push(nanoseconds(
                program.as_fd(),
                interface,
                &frame,
                FRAMES,
                forget,
            )?);
            while capture.next(|head, octets| {
                assert_eq!(
                    Verdict::ALL[usize::from(head.verdict)],
                    Verdict::DecapUnknownPeer
                );
                assert!(frame.starts_with(octets) && octets.len() == frame.len().min(256));
                *records += 1;
            }) {}
        }
    }
    for (name, times, records) in &mut times {
        times.sort_unstable();
        println!("| {name} | {} | {records} |", times[ROUNDS / 2]);
    }
    let frames = ROUNDS * FRAMES as usize;
    let records: Vec<_> = times.iter().map(|(_, _, records)| *records).collect();
    assert_eq!(records[..3], [0, 0, 0]);
    // Each is received and passed.
    assert_eq!(records[3], 2 * frames / 100);
    assert!(records[4] > 0 && records[4] < frames / 10, "{records:?}");
    assert_eq!(records[5], 2 * frames);
    Ok(())
}
