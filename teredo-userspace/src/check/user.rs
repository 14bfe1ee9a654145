//! The user that the daemon runs as, and the files that it can read.
//!
//! The administrator who calls `teredo check` is root, but the daemon often is not: the unit of systemd starts
//! it as a user, or it becomes one.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use nix::unistd::{Gid, Group, Uid, User};

use super::{
    Host, Report,
    unit::{UNIT, Unit},
};
use crate::{
    config::{
        Config,
        access::Obstacle,
        secrets::{self, Secrets},
    },
    privileges::{self, act_as},
};

/// The files of a configuration, as the daemon will find them.
#[derive(Debug)]
pub struct Access {
    starter: Starter,
    file: PathBuf,
    /// The obstacle before the configuration at a start.
    obstacle: Option<Obstacle>,
    /// The keys, as a start reads them.
    pub secrets: Result<Secrets, secrets::Error>,
}

/// The user that the daemon starts as.
#[derive(Debug)]
enum Starter {
    /// The user of this process.
    This,
    /// That of the unit.
    Unit(User),
    /// That of the unit, as which this process cannot act.
    Beyond(User, io::Error),
    /// That of the unit, which does not exist.
    Unknown(String),
}

impl Access {
    /// Reads the files of the configuration in `file` as the user that starts the daemon with it.
    #[must_use]
    pub fn of(config: &Config, file: &Path) -> Self {
        let unit = Unit::read();
        let is_root = Uid::effective().is_root();
        let starter = match user_of_unit(is_root, unit.as_ref(), file) {
            None => Starter::This,
            Some(name) => match user(name) {
                Some(user) => Starter::Unit(user),
                None => Starter::Unknown(name.to_owned()),
            },
        };
        let read = || (obstacle(file), secrets::load(config));
        let (starter, (obstacle, secrets)) = match starter {
            Starter::Unit(user) => match act_as(&user, read) {
                Ok(found) => (Starter::Unit(user), found),
                Err(error) => (Starter::Beyond(user, error), read()),
            },
            other => (other, read()),
        };
        Self {
            starter,
            file: file.to_owned(),
            obstacle,
            secrets,
        }
    }
}

/// Returns the user as which the unit starts the daemon with this configuration, if it does, and not as root.
fn user_of_unit<'a>(is_root: bool, unit: Option<&'a Unit>, file: &Path) -> Option<&'a str> {
    let is_same = |other: &Path| {
        let whole = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        other == file || whole(other) == whole(file)
    };
    let unit = unit.filter(|unit| is_root && is_same(&unit.file))?;
    Some(&*unit.user).filter(|user| !["root", "0"].contains(user))
}

/// Returns the user of this name or number.
fn user(name: &str) -> Option<User> {
    let found = match name.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(name),
    };
    found.ok().flatten()
}

/// Returns the obstacle before a file, as the user of this thread meets it.
fn obstacle(file: &Path) -> Option<Obstacle> {
    let error = File::open(file).err()?;
    (error.kind() == io::ErrorKind::PermissionDenied).then(|| Obstacle::before(file))
}

/// Examines whether the daemon can become the configured user, and which of its files it can read.
pub fn examine(host: &Host<'_>, access: &Access, report: &mut Report) {
    let config = host.config;
    match &access.starter {
        Starter::This => change(config, report),
        Starter::Unit(user) => unit(config, user, report),
        Starter::Beyond(user, error) => {
            unit(config, user, report);
            let name = &user.name;
            let text =
                format!("what {name} can read is not known, since this process cannot act as {name}: {error}");
            report.note("user", text);
        }
        Starter::Unknown(name) => report.trouble(
            "user",
            format!("{UNIT} starts the daemon as {name}, which is not a user of this host: `useradd --system {name}`"),
        ),
    }
    if let (Some(obstacle), Starter::Unit(user)) = (&access.obstacle, &access.starter) {
        let (file, name) = (access.file.display(), &user.name);
        let remedy = opening(obstacle, &access.file, user);
        let text = format!(
            "{file} cannot be read by user {name}, as which {UNIT} starts the daemon: {remedy}"
        );
        report.trouble("configuration", text);
    }
    later(config, access, report);
}

/// Examines whether the daemon can become the user of the configuration.
fn change(config: &Config, report: &mut Report) {
    let user = &config.node.user;
    if user.is_empty() {
        return;
    }
    match privileges::plan_user_change(config) {
        Ok(_) => report.fine("user", format!("will be {user}")),
        Err(error) => report.trouble("user", error.to_string()),
    }
}

/// Examines the user of the unit beside that of the configuration.
fn unit(config: &Config, user: &User, report: &mut Report) {
    let (name, wanted) = (&user.name, &config.node.user);
    if wanted.is_empty() || self::user(wanted).is_some_and(|wanted| wanted.uid == user.uid) {
        return report.fine("user", format!("will be {name}, as {UNIT} says"));
    }
    let text = format!(
        "{UNIT} starts the daemon as {name}, and only root can become node.user = \"{wanted}\": set \
         node.user = \"\", or User=root in a drop-in of the unit (`systemctl edit {UNIT}`)"
    );
    report.trouble("user", text);
}

/// Examines whether a process that takes over can read what the first process read as root.
fn later(config: &Config, access: &Access, report: &mut Report) {
    let Some(user) = user(&config.node.user).filter(|_| Uid::effective().is_root()) else {
        return;
    };
    if !matches!(access.starter, Starter::This) || user.uid.is_root() {
        return;
    }
    let closed = |file: &Path| Some((file.to_owned(), obstacle(file)?));
    let find = || {
        let keys: Vec<_> = secrets::files(config).filter_map(closed).collect();
        (closed(&access.file), keys)
    };
    let Ok((configuration, keys)) = act_as(&user, find) else {
        return;
    };
    let name = &user.name;
    let mut note = |what: String, remedy: String| {
        report.note(
            "reload",
            format!(
                "node.user = \"{name}\" may not read {what}, so that `teredo reload` and `teredo upgrade` are \
                 refused and a change takes a restart: {remedy}"
            ),
        );
    };
    if let Some((file, obstacle)) = configuration {
        note(file.display().to_string(), opening(&obstacle, &file, &user));
    }
    if let Some((file, obstacle)) = keys.first() {
        let others = match keys.len() - 1 {
            0 => String::new(),
            1 => " and another file".to_owned(),
            count => format!(" and {count} other files"),
        };
        let what = format!("{}{others}", file.display());
        note(what, obstacle.remedy(file, name));
    }
}

/// Returns what lets a user read the configuration, which is no secret but not the user's either.
fn opening(obstacle: &Obstacle, file: &Path, user: &User) -> String {
    match obstacle {
        Obstacle::Owner | Obstacle::Mode => {
            let (group, file) = (group(user.gid), file.display());
            format!("`chgrp {group} {file} && chmod 640 {file}`")
        }
        other => other.remedy(file, &user.name),
    }
}

/// Returns the name of a group, or the number if it has none.
fn group(gid: Gid) -> String {
    let group = Group::from_gid(gid).ok().flatten();
    group.map_or_else(|| gid.to_string(), |group| group.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_counts_for_root_and_its_own_configuration() {
        let unit = |user: &str| Unit {
            user: user.to_owned(),
            file: "/etc/teredo/teredo.toml".into(),
        };
        let own = Path::new("/etc/teredo/teredo.toml");
        let other = Path::new("/etc/teredo/other.toml");
        let (packaged, of_root) = (unit("teredo"), unit("root"));
        for (is_root, unit, file, expected) in [
            (true, Some(&packaged), own, Some("teredo")),
            (true, Some(&packaged), other, None),
            (false, Some(&packaged), own, None),
            (true, Some(&of_root), own, None),
            (true, None, own, None),
        ] {
            let found = user_of_unit(is_root, unit, file);
            assert_eq!(found, expected, "{is_root} {unit:?} {file:?}");
        }
    }
}
