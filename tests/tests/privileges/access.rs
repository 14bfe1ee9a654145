//! The rights of another user.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::{User, getgroups};
use teredo::{
    config::access::{Obstacle, user_name},
    privileges::act_as,
};

use super::NOBODY;

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

fn nobody() -> Result<User> {
    User::from_name("nobody")?.context("there is no nobody")
}

#[test]
fn work_as_another_user_has_its_groups_and_no_capability() -> Result<()> {
    let nobody = nobody()?;
    let own = || fs::read_to_string("/proc/thread-self/status");
    let before = own()?;
    let theirs = act_as(&nobody, own)??;
    let (uid, gid) = (nobody.uid, nobody.gid);
    for line in [
        format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n"),
        format!("Gid:\t{gid}\t{gid}\t{gid}\t{gid}\n"),
        format!("Groups:\t{gid} \n"),
        "CapEff:\t0000000000000000\n".to_owned(),
        "CapPrm:\t0000000000000000\n".to_owned(),
    ] {
        ensure!(theirs.contains(&line), "no {line:?} in {theirs}");
        ensure!(!before.contains(&line), "{before}");
    }
    // This thread is as it was.
    ensure!(user_name() == "root" && act_as(&nobody, user_name)? == "nobody");
    ensure!(!getgroups()?.contains(&gid));
    Ok(())
}

#[test]
fn the_obstacle_before_a_file_is_found() -> Result<()> {
    let nobody = nobody()?;
    let directory = tempfile::tempdir()?;
    let closed = directory.path().join("closed");
    fs::create_dir(&closed)?;
    let file = closed.join("key");
    fs::write(&file, "")?;
    set_mode(&file, 0o600)?;
    set_mode(&closed, 0o700)?;
    set_mode(directory.path(), 0o755)?;
    let obstacle = || act_as(&nobody, || Obstacle::before(&file));
    assert_eq!(obstacle()?, Obstacle::Directory(closed.clone()));
    set_mode(&closed, 0o755)?;
    assert_eq!(obstacle()?, Obstacle::Owner);
    chown(&file, Some(NOBODY), None)?;
    assert_eq!(obstacle()?, Obstacle::Other);
    set_mode(&file, 0o200)?;
    assert_eq!(obstacle()?, Obstacle::Mode);
    Ok(())
}
