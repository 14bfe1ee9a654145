//! A host for each test.

// Every test program uses a part of it.
#![allow(dead_code)]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use tempfile::TempDir;
use teredo_lab::{Namespace, links, programs::Attached, wait_until};

/// Longest time that the kernel may take to settle.
const PATIENCE: Duration = Duration::from_secs(30);

/// A host on which any role could run: addresses, default routes, forwarding.
pub struct Host {
    /// The host's network namespace.
    pub namespace: Namespace,
    /// The far end of the host's cable.
    pub far: Namespace,
    /// Passes every frame at the far end, without which the host has no native XDP.
    passing: Attached,
    /// The host's own directory.
    pub directory: TempDir,
}

impl Host {
    /// Makes a host without faults.
    pub fn new() -> Result<Self> {
        let (namespace, far) = (Namespace::new("host")?, Namespace::new("far")?);
        links::cable((&namespace, "wan"), (&far, "wan"))?;
        // Changes that a test finds afterwards must not be the kernel's own.
        wait_until("the cable is in use", PATIENCE, || {
            Ok(namespace.ip("link show dev wan")?.contains("state UP"))
        })?;
        namespace.ip("addr add 20.0.0.1/24 dev wan")?;
        namespace.ip("addr add 20.0.0.2/24 dev wan")?;
        namespace.ip("route add default via 20.0.0.254")?;
        namespace.ip("addr add 2001:db8::1/64 dev wan nodad")?;
        namespace.ip("route add default via 2001:db8::2")?;
        namespace.forward()?;
        wait_until("its addresses are settled", PATIENCE, || {
            let local = namespace.ip("-6 route show table local")?;
            Ok(["local fe80:", "local 2001:db8::1 "]
                .iter()
                .all(|route| local.contains(route))
                && namespace.ip("addr show tentative")?.is_empty())
        })?;
        Ok(Self {
            namespace,
            passing: Attached::nothing(&far, &["wan"])?,
            far,
            directory: tempfile::tempdir()?,
        })
    }

    /// Path of the API socket of the host's daemon.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("run/api.sock")
    }

    /// Writes the configuration of a relay; `node` and `relay` are lines of these sections.
    pub fn configure(&self, node: &str, relay: &str) -> Result<PathBuf> {
        self.configure_roles(node, &format!("[relay]\n{relay}"))
    }

    /// Writes the configuration of a server; `node` and `server` are lines of these sections, and
    /// `server` may continue with further sections.
    pub fn configure_server(&self, node: &str, server: &str) -> Result<PathBuf> {
        let addresses = "[\"20.0.0.1\", \"20.0.0.2\"]";
        self.configure_roles(node, &format!("[server]\nipv4 = {addresses}\n{server}"))
    }

    /// Writes the configuration of a client; `node` and `client` are lines of these sections, and
    /// `client` may continue with further sections.
    pub fn configure_client(&self, node: &str, client: &str) -> Result<PathBuf> {
        self.configure_roles(
            node,
            &format!("[client]\nserver = \"20.0.0.254\"\n{client}"),
        )
    }

    fn configure_roles(&self, node: &str, roles: &str) -> Result<PathBuf> {
        let file = self.directory.path().join("teredo.toml");
        let text = format!(
            "[node]\nname = \"{}\"\napi = \"unix:{}\"\n{node}\n{roles}\n",
            self.namespace.name(),
            self.socket().display(),
        );
        fs::write(&file, text)?;
        Ok(file)
    }

    /// All state that a daemon could leave behind.
    pub fn traces(&self) -> Result<String> {
        let mut text = String::new();
        for what in [
            "-d link show",
            "addr show",
            "-4 route show table all",
            "-6 route show table all",
            "rule show",
        ] {
            text += &self.namespace.ip(what)?;
        }
        text += &format!("socket: {}\n", self.socket().exists());
        let name = self.namespace.name();
        for directory in ["/sys/fs/bpf", "/run/teredo"] {
            let is_there = is_named_below(Path::new(directory), name);
            text += &format!("in {directory}: {is_there}\n");
        }
        Ok(text)
    }
}

/// Whether the directory holds a file or directory of this name, at any depth.
fn is_named_below(directory: &Path, name: &str) -> bool {
    fs::read_dir(directory).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            entry.file_name().to_string_lossy().contains(name)
                || (entry.file_type().is_ok_and(|kind| kind.is_dir())
                    && is_named_below(&entry.path(), name))
        })
    })
}
