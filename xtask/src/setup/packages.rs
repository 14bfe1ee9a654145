//! Packages of the system.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// A program and the Debian package that has it.
#[derive(Debug)]
pub struct Tool {
    /// The program's file name.
    pub program: &'static str,
    /// The package's name in Debian and Ubuntu.
    pub package: &'static str,
}

const fn tool(program: &'static str, package: &'static str) -> Tool {
    Tool { program, package }
}

/// The programs that the scene and the tests need.
pub const TOOLS: &[Tool] = &[
    tool("ip", "iproute2"),
    tool("nft", "nftables"),
    tool("conntrack", "conntrack"),
    tool("ethtool", "ethtool"),
    tool("tcpdump", "tcpdump"),
    tool("ping", "iputils-ping"),
    tool("systemd-analyze", "systemd"),
    tool("bird", "bird2"),
    tool("vtysh", "frr"),
    tool("promtool", "prometheus"),
    tool("nfcapd", "nfdump"),
    tool("chromium", "chromium"),
    tool("miredo", "miredo"),
    tool("miredo-server", "miredo-server"),
];

/// Services that Debian starts with their package. Miredo's client would talk to public servers.
const SERVICES: [&str; 6] = [
    "bird",
    "frr",
    "miredo",
    "miredo-server",
    "nfdump",
    "prometheus",
];
/// The script that Debian's packages ask before they start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Returns the tools that are not installed.
pub fn missing(tools: &'static [Tool]) -> impl Iterator<Item = &'static Tool> {
    tools
        .iter()
        .filter(|tool| shell::find(tool.program).is_none())
}

/// Installs the tools that are missing.
pub fn ensure(tools: &'static [Tool]) -> Result<()> {
    let packages = missing(tools).map(|tool| tool.package).collect::<Vec<_>>();
    if packages.is_empty() {
        return Ok(());
    }
    install(&packages)?;
    match missing(tools).next() {
        None => Ok(()),
        Some(tool) => bail!(
            "{} is not on the path after its package was installed",
            tool.program
        ),
    }
}

/// Whether this is Debian or a distribution made from it.
pub fn is_debian() -> bool {
    shell::find("apt-get").is_some()
}

/// Whether the package can be installed or is installed.
pub fn is_available(package: &str) -> bool {
    shell::output(Command::new("apt-cache").args(["policy", package]))
        .and_then(|text| {
            let line = text.lines().find(|line| line.contains("Candidate:"))?;
            Some(!line.contains("(none)"))
        })
        .unwrap_or(false)
}

/// Whether the package is installed.
pub fn is_installed(package: &str) -> bool {
    shell::output(Command::new("dpkg-query").args(["-W", "-f=${Status}", package]))
        .is_some_and(|status| status == "install ok installed")
}

/// Updates the list of packages. An old list is better than none.
pub fn update() {
    if let Err(error) = shell::run(&mut apt(&["update", "-qq"])) {
        eprintln!("setup: {error:#}; going on with the list of packages that is there");
    }
}

/// Installs packages of Debian; removes none for that and starts no service.
pub fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if !is_debian() {
        bail!(
            "setup installs packages on Debian and Ubuntu only; install by hand what Debian calls: \
             {list}"
        );
    }
    if shell::is_root() {
        eprintln!("setup: installing {list}");
    } else {
        eprintln!("setup: installing {list} (this is what needs root)");
    }
    update();
    let services = SERVICES
        .iter()
        .filter(|service| packages.contains(service))
        .copied()
        .collect::<Vec<_>>();
    let quiet = Quiet::new(&services)?;
    let mut arguments = vec![
        "install",
        "-qq",
        "--yes",
        "--no-install-recommends",
        "--no-remove",
    ];
    arguments.extend(packages);
    let result = shell::run(&mut apt(&arguments));
    quiet.end();
    result.with_context(|| format!("setup: packages are missing; by hand: apt-get install {list}"))
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = shell::as_root("env");
    command
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get"])
        .args(arguments);
    command
}

/// A guard under which Debian starts none of these services; they stay disabled afterwards.
#[derive(Debug)]
struct Quiet {
    services: Vec<&'static str>,
    policy: bool,
}

impl Quiet {
    fn new(services: &[&'static str]) -> Result<Self> {
        let mut quiet = Self {
            services: services.to_vec(),
            policy: false,
        };
        if services.is_empty() {
            return Ok(quiet);
        }
        // systemd takes a unit that is a link to /dev/null for one that must not run, whether it
        // runs itself or not.
        for service in services {
            let unit = format!("/etc/systemd/system/{service}.service");
            if fs::symlink_metadata(&unit).is_err() {
                shell::run(shell::as_root("mkdir").args(["-p", "/etc/systemd/system"]))?;
                shell::run(shell::as_root("ln").args(["-s", "/dev/null", &unit]))?;
            }
        }
        if shell::find("systemctl").is_some() && Path::new("/run/systemd/system").exists() {
            shell::run(shell::as_root("systemctl").arg("daemon-reload"))?;
        }
        // Every other init asks this. An existing policy stays.
        if !Path::new(POLICY).exists() {
            let script = format!("printf '#!/bin/sh\\nexit 101\\n' >{POLICY}; chmod 755 {POLICY}");
            quiet.policy = true;
            shell::run(shell::as_root("sh").args(["-c", &script]))?;
        }
        Ok(quiet)
    }

    fn end(mut self) {
        self.remove_policy();
        let Some(update) = shell::find("update-rc.d") else {
            return;
        };
        for service in &self.services {
            // A package without such a script has nothing to disable.
            let _ = shell::output(shell::as_root(&update).args([service, "disable"]));
        }
    }

    fn remove_policy(&mut self) {
        if self.policy {
            self.policy = false;
            if let Err(error) = shell::run(shell::as_root("rm").args(["-f", POLICY])) {
                eprintln!("setup: remove {POLICY} by hand: {error:#}");
            }
        }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        self.remove_policy();
    }
}
