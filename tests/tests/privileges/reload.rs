//! A change of the configuration after root has become another user.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    process::Command,
};

use anyhow::{Result, ensure};
use teredo_lab::{process::output, teredo::binary};

use super::{NOBODY, host::Host, start_command};

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

#[test]
fn a_reload_that_root_alone_could_carry_out_says_so() -> Result<()> {
    let host = Host::new()?;
    let directory = host.directory.path();
    set_mode(directory, 0o755)?;
    // The process that takes over is nobody's from the beginning.
    let program = directory.join("teredo");
    fs::copy(binary()?, &program)?;
    let key = directory.join("alice.key");
    fs::write(&key, "00112233445566778899aabbccddeeff")?;
    set_mode(&key, 0o600)?;
    let client =
        format!("xdp.mode = \"off\"\n[[server.client]]\nid = \"alice\"\nsecret-file = {key:?}");
    let file = host.configure_server("user = \"nobody\"", &client)?;
    let teredo = |command: &str| {
        let mut teredo = host.namespace.command(binary()?)?;
        output(teredo.arg(command).arg("--config").arg(&file))
    };
    let refused = |parts: &[&str]| -> Result<()> {
        let refusal = teredo("reload").unwrap_err().to_string();
        for part in [
            &["this needs a restart, or files that user nobody may read"],
            parts,
        ]
        .concat()
        {
            ensure!(refusal.contains(part), "no {part:?} in {refusal}");
        }
        Ok(())
    };
    let remedy = format!("`chown nobody: {}`", key.display());
    let note = |text: &str, what: &Path| {
        let subject = format!("node.user = \"nobody\" may not read {}", what.display());
        text.contains(&subject)
    };
    let findings = teredo("check")?;
    ensure!(
        note(&findings, &key) && findings.contains(&remedy),
        "{findings}"
    );

    let mut daemon = start_command(host.namespace.command(&program)?, &file)?;
    refused(&["the key of client alice", &remedy])?;
    chown(&key, Some(NOBODY), None)?;
    set_mode(&file, 0o600)?;
    refused(&["cannot read the configuration"])?;
    let findings = teredo("check")?;
    ensure!(
        note(&findings, &file) && !note(&findings, &key),
        "{findings}"
    );
    set_mode(&file, 0o644)?;
    let findings = teredo("check")?;
    ensure!(!note(&findings, &file), "{findings}");
    teredo("reload")?;
    // The process that was started has handed over.
    daemon.wait(super::PATIENCE)?;
    output(
        Command::new(binary()?)
            .arg("status")
            .arg("--config")
            .arg(&file),
    )?;
    Ok(())
}
