//! The files that the daemon may use, by landlock.
//!
//! Rules are for directories where files are replaced by new ones with the same name, such as
//! `/etc/resolv.conf`, keys, or the program itself.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreated, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope, make_bitflags,
    path_beneath_rules,
};

use crate::{
    config::{ApiAddress, Config, secrets},
    datapath::sysfs,
    node::port_mapping_directory,
    privileges::has_descriptor_store,
};

/// The version of landlock whose rights are handled; a kernel with an older one handles fewer.
const VERSION: ABI = ABI::V5;

/// What is read: the state of the kernel, settings of the host and of its resolver, libraries. Not `/sys/kernel`, where
/// the kernel's own types are: see [`crate::datapath`]'s loader.
const READ: &[&str] = &[
    "/proc",
    "/sys/bus",
    "/sys/class",
    "/sys/devices",
    "/sys/fs",
    "/sys/module",
    "/etc",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/run/nscd",
    "/dev/urandom",
];
/// Where libraries are, with the program that loads them.
const LIBRARIES: &[&str] = &["/lib", "/lib64", "/usr/lib", "/usr/lib64"];
/// Where settings of interfaces are written.
const SETTINGS: &str = "/proc/sys/net";
/// Where virtual interfaces have their files.
const VIRTUAL_INTERFACES: &str = "/sys/devices/virtual/net";
const BPF: &str = "/sys/fs/bpf";
const TUN: &str = "/dev/net/tun";
const NULL: &str = "/dev/null";
const RESOLVER: &str = "/etc/resolv.conf";
/// The variable in which systemd passes the directory of sockets.
const RUNTIME_DIRECTORY: &str = "RUNTIME_DIRECTORY";
/// This process's program.
const PROGRAM: &str = "/proc/self/exe";

/// Keeps the directory of settings in the kernel's memory. The kernel makes a new one whenever it has
/// forgotten it, to which rules for the old one do not apply.
pub fn hold() {
    static HELD: OnceLock<Option<PathFd>> = OnceLock::new();
    HELD.get_or_init(|| PathFd::new(SETTINGS).ok());
}

/// Restricts the calling thread to the files that the daemon of this configuration needs.
pub fn restrict(config: &Config, file: &Path) -> Result<RulesetStatus, RulesetError> {
    let rules = Ruleset::default()
        .handle_access(AccessFs::from_all(VERSION))?
        // No signals to others than children.
        .scope(Scope::Signal)?
        .create()?;
    let rules = own(system(rules)?, config, file)?;
    Ok(rules.restrict_self()?.ruleset)
}

/// Adds the rules that are the same for every daemon.
fn system(rules: RulesetCreated) -> Result<RulesetCreated, RulesetError> {
    let resolver = fs::canonicalize(RESOLVER).ok();
    let resolver = resolver.as_deref().and_then(Path::parent);
    let program = fs::read_link(PROGRAM).ok();
    let program = program.as_deref().and_then(Path::parent);
    let rules = rules
        .add_rules(path_beneath_rules(READ, read()))?
        .add_rules(path_beneath_rules(resolver, read()))?
        .add_rules(path_beneath_rules(LIBRARIES, run()))?
        .add_rules(path_beneath_rules(program, run()))?
        .add_rules(path_beneath_rules([SETTINGS, VIRTUAL_INTERFACES], set()))?
        .add_rules(path_beneath_rules([NULL], read() | AccessFs::WriteFile))?
        .add_rules(path_beneath_rules(
            [TUN],
            read() | AccessFs::WriteFile | AccessFs::IoctlDev,
        ))?;
    match sysfs::prepared() {
        Some(directory) => rules.add_rule(PathBeneath::new(directory, read() | set())),
        None => Ok(rules),
    }
}

/// Adds the rules of one daemon.
fn own(
    rules: RulesetCreated,
    config: &Config,
    file: &Path,
) -> Result<RulesetCreated, RulesetError> {
    let files = [file].into_iter().chain(secrets::files(config));
    let directories = files.flat_map(directories_of).collect::<Vec<_>>();
    let sockets = config.node.api.iter().filter_map(|address| match address {
        ApiAddress::Unix(path) => path.parent(),
        ApiAddress::Tcp(_) => None,
    });
    let sockets = sockets.map(Path::to_owned);
    let runtime = env::var_os(RUNTIME_DIRECTORY).map(PathBuf::from);
    let sockets = sockets.chain(runtime).collect::<Vec<_>>();
    // A directory that was made for a socket goes with it.
    let above = sockets.iter().filter_map(|directory| directory.parent());
    let pins = config
        .fast_path()
        .is_some_and(|wanted| wanted.pin && !has_descriptor_store());
    let state = config.client.as_ref().map(|_| port_mapping_directory());
    rules
        .add_rules(path_beneath_rules(directories, read()))?
        .add_rules(path_beneath_rules(above, AccessFs::RemoveDir))?
        .add_rules(path_beneath_rules(&sockets, keep()))?
        .add_rules(path_beneath_rules(state, keep()))?
        .add_rules(path_beneath_rules(pins.then_some(BPF), keep()))
}

/// Returns the directories in which a file is, by its name and by that of the file it links to.
fn directories_of(file: &Path) -> impl Iterator<Item = PathBuf> {
    let linked = fs::canonicalize(file).ok();
    let named = std::path::absolute(file).ok();
    let files = [named, linked].into_iter().flatten();
    files.filter_map(|file| Some(file.parent()?.to_owned()))
}

/// The right to read files and lists of them.
fn read() -> BitFlags<AccessFs> {
    make_bitflags!(AccessFs::{ReadFile | ReadDir})
}

/// The right to run programs.
fn run() -> BitFlags<AccessFs> {
    read() | AccessFs::Execute
}

/// The right to write what exists.
fn set() -> BitFlags<AccessFs> {
    make_bitflags!(AccessFs::{WriteFile | Truncate})
}

/// The right to make, write and remove files, sockets and directories.
fn keep() -> BitFlags<AccessFs> {
    let make = make_bitflags!(AccessFs::{MakeReg | MakeSock | MakeDir});
    read() | set() | make | AccessFs::RemoveFile | AccessFs::RemoveDir
}

#[cfg(test)]
mod tests {
    use std::{io::ErrorKind, thread};

    use nix::sys::prctl;
    use tempfile::TempDir;

    use super::*;

    /// Runs `work` in a thread that a daemon's rules hold for; nothing on a kernel without landlock.
    fn restricted(config: &Config, file: &Path, work: impl FnOnce() + Send) {
        let run = || {
            hold();
            prctl::set_no_new_privs().unwrap();
            if restrict(config, file).unwrap() != RulesetStatus::NotEnforced {
                work();
            }
        };
        thread::scope(|scope| scope.spawn(run).join()).unwrap();
    }

    /// A daemon's configuration with directories of its own.
    fn daemon(directory: &Path) -> (Config, PathBuf) {
        for name in ["etc", "run", "keys", "else"] {
            fs::create_dir(directory.join(name)).unwrap();
        }
        fs::write(directory.join("else/file"), "secret").unwrap();
        let text = format!(
            "[node]\napi = \"unix:{0}/run/sock\"\n[server]\nipv4 = [\"9.0.0.1\", \"9.0.0.2\"]\n\
             [[server.client]]\nid = \"x\"\nsecret-file = \"{0}/keys/x\"",
            directory.display()
        );
        let file = directory.join("etc/teredo.toml");
        fs::write(&file, &text).unwrap();
        fs::write(directory.join("keys/x"), "").unwrap();
        (Config::parse(&text, &file).unwrap(), file)
    }

    fn is_refused<T>(result: std::io::Result<T>) -> bool {
        result.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    }

    #[test]
    fn files_of_others_are_out_of_reach() {
        let directory = TempDir::new().unwrap();
        let (config, file) = daemon(directory.path());
        restricted(&config, &file, || {
            let path = |name: &str| directory.path().join(name);
            assert!(is_refused(fs::read(path("else/file"))));
            assert!(is_refused(fs::write(path("else/new"), "")));
            assert!(is_refused(fs::remove_file(path("else/file"))));
            assert!(is_refused(fs::write(&file, "")));
            assert!(is_refused(fs::write(path("etc/new"), "")));
            assert!(is_refused(fs::read_dir("/root")));
            assert!(is_refused(fs::read_dir("/sys/kernel")));
            assert!(is_refused(fs::write("/proc/self/comm", "other")));
            assert!(is_refused(
                fs::File::options()
                    .write(true)
                    .open("/proc/sys/kernel/core_pattern")
            ));
        });
    }

    #[test]
    fn what_the_daemon_needs_is_within_reach() {
        let directory = TempDir::new().unwrap();
        let (config, file) = daemon(directory.path());
        let settings = fs::File::options()
            .write(true)
            .open("/proc/sys/net/ipv4/conf/lo/forwarding");
        restricted(&config, &file, || {
            let path = |name: &str| directory.path().join(name);
            fs::read(&file).unwrap();
            fs::read(path("keys/x")).unwrap();
            fs::read_to_string("/proc/net/route").unwrap();
            fs::read_to_string("/etc/hosts").unwrap();
            // A socket comes and goes, with its directory.
            let socket = path("run/sock");
            std::os::unix::net::UnixListener::bind(&socket).unwrap();
            fs::remove_file(socket).unwrap();
            fs::remove_dir(path("run")).unwrap();
            std::process::Command::new(env::current_exe().unwrap())
                .arg("--help")
                .output()
                .unwrap();
            let again = fs::File::options()
                .write(true)
                .open("/proc/sys/net/ipv4/conf/lo/forwarding");
            assert_eq!(again.is_ok(), settings.is_ok());
        });
    }

    #[test]
    fn files_that_replace_others_are_within_reach() {
        let directory = TempDir::new().unwrap();
        let (config, file) = daemon(directory.path());
        let linked = directory.path().join("link.toml");
        std::os::unix::fs::symlink(&file, &linked).unwrap();
        for name in [&file, &linked] {
            restricted(&config, name, || {
                fs::read(name).unwrap();
            });
        }
        let (sent, replaced) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            let (config, file, directory) = (&config, &file, directory.path());
            let (entered, has_entered) = std::sync::mpsc::channel();
            scope.spawn(move || {
                restricted(config, file, move || {
                    entered.send(()).unwrap();
                    replaced.recv().unwrap();
                    assert_eq!(fs::read_to_string(file).unwrap(), "new");
                });
            });
            // Without landlock nobody waits.
            if has_entered.recv().is_ok() {
                let new = directory.join("etc/new");
                fs::write(&new, "new").unwrap();
                fs::rename(&new, file).unwrap();
                sent.send(()).unwrap();
            }
        });
    }
}
