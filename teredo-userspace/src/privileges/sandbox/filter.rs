//! The filter of system calls.

use seccompiler::{BackendError, apply_filter};
use thiserror::Error;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::rules::build;

/// The reason why there is no filter.
#[derive(Debug, Error)]
pub enum Error {
    /// There is no filter for this processor.
    #[error("there is no filter for this processor: {0}")]
    Build(#[from] BackendError),
    /// The kernel refuses the filter.
    #[error("the kernel takes no filter: {0}")]
    Install(#[from] seccompiler::Error),
}

/// Restricts the system calls of the calling thread and of those that it starts from now on.
pub fn install() -> Result<(), Error> {
    let [absent, main] = build()?;
    apply_filter(&absent)?;
    apply_filter(&main)?;
    Ok(())
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn build() -> Result<[seccompiler::BpfProgram; 2], BackendError> {
    let name = std::env::consts::ARCH;
    Err(BackendError::InvalidTargetArch(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io,
        net::{TcpListener, UdpSocket},
        process::Command,
        ptr, thread,
    };

    use nix::libc;

    use super::{super::calls::TERMINAL, *};

    /// Runs `work` in a thread with the filter.
    fn filtered<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        let run = || {
            install().unwrap();
            work()
        };
        thread::scope(|scope| scope.spawn(run).join()).unwrap()
    }

    /// The error with which the kernel refuses a call with these numbers.
    fn refusal(call: libc::c_long, arguments: [libc::c_long; 6]) -> Option<i32> {
        let [a, b, c, d, e, f] = arguments;
        // SAFETY: every number is one that the kernel checks, and no address is that of an object.
        let result = unsafe { libc::syscall(call, a, b, c, d, e, f) };
        (result == -1)
            .then(|| io::Error::last_os_error().raw_os_error())
            .flatten()
    }

    #[test]
    fn calls_that_the_daemon_does_not_make_are_refused() {
        filtered(|| {
            for call in [
                libc::SYS_ptrace,
                libc::SYS_mount,
                libc::SYS_umount2,
                libc::SYS_unshare,
                libc::SYS_setns,
                libc::SYS_pivot_root,
                libc::SYS_chroot,
                libc::SYS_init_module,
                libc::SYS_finit_module,
                libc::SYS_kexec_load,
                libc::SYS_keyctl,
                libc::SYS_add_key,
                libc::SYS_userfaultfd,
                libc::SYS_process_vm_readv,
                libc::SYS_perf_event_open,
                libc::SYS_io_uring_setup,
                libc::SYS_setresuid,
                libc::SYS_personality,
                libc::SYS_seccomp,
                // There is no such call.
                100_000,
            ] {
                assert_eq!(refusal(call, [-1; 6]), Some(libc::EPERM), "{call}");
            }
        });
    }

    #[test]
    fn arguments_are_looked_at() {
        filtered(|| {
            let refused = |call, arguments| refusal(call, arguments) == Some(libc::EPERM);
            let stream = libc::c_long::from(libc::SOCK_STREAM);
            for family in [libc::AF_VSOCK, libc::AF_ALG, libc::AF_BLUETOOTH] {
                let family = family.into();
                assert!(refused(libc::SYS_socket, [family, stream, 0, 0, 0, 0]));
            }
            for flag in [
                libc::CLONE_NEWUSER,
                libc::CLONE_NEWNS,
                libc::CLONE_NEWNET,
                libc::CLONE_NEWPID,
            ] {
                assert!(refused(libc::SYS_clone, [flag.into(), 0, 0, 0, 0, 0]));
            }
            // Numbers that only differ in the bits that the kernel does not look at are the same.
            for high in [0, 1 << 32] {
                let request = high | TERMINAL[0] as libc::c_long;
                assert!(refused(libc::SYS_ioctl, [0, request, 0, 0, 0, 0]));
            }
            let memory = |protection: i32| {
                let flags = libc::c_long::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
                [0, 4096, protection.into(), flags, -1, 0]
            };
            let (write, execute) = (libc::PROT_WRITE, libc::PROT_EXEC);
            assert!(refused(libc::SYS_mmap, memory(write | execute)));
            assert!(refused(libc::SYS_mprotect, memory(execute)));
            for protection in [write, execute] {
                assert_eq!(refusal(libc::SYS_mmap, memory(protection)), None);
            }
            assert_eq!(refusal(libc::SYS_clone3, [0; 6]), Some(libc::ENOSYS));
        });
    }

    #[test]
    fn the_daemons_work_goes_on() {
        filtered(|| {
            assert_eq!(thread::spawn(|| 5).join().unwrap(), 5);
            assert!(Command::new("true").status().unwrap().success());
            assert!(File::open("/proc/self/status").is_ok());
            UdpSocket::bind("127.0.0.1:0").unwrap();
            let listener = TcpListener::bind("[::1]:0").or(TcpListener::bind("127.0.0.1:0"));
            listener.unwrap();
            for family in [libc::AF_UNIX, libc::AF_NETLINK] {
                // SAFETY: the call has numbers as arguments only.
                assert!(unsafe { libc::socket(family, libc::SOCK_DGRAM, 0) } >= 0);
            }
            // SAFETY: the call has numbers as arguments only.
            assert!(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, 0) } >= 0);
            // SAFETY: a structure of numbers, for which zero is a value: the clock is only read.
            assert!(unsafe { libc::adjtimex(&mut std::mem::zeroed()) } >= 0);
            // SAFETY: the kernel knows no such command.
            let no_map = unsafe { libc::syscall(libc::SYS_bpf, -1, ptr::null::<u8>(), 0) };
            let error = io::Error::last_os_error().raw_os_error();
            assert_ne!((no_map, error), (-1, Some(libc::ENOSYS)));
        });
    }
}
