//! The reasons why a user may not read a file.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::unistd::{Uid, User};

/// The bit of a file mode that lets the owner read.
const OWNER_READS: u32 = 0o400;

/// What keeps the user of this thread from reading a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The user may not look for anything in this directory.
    Directory(PathBuf),
    /// The file is another user's.
    Owner,
    /// The mode of the file does not even let its owner read.
    Mode,
    /// Something else, such as the sandbox of the process before, or an access control list.
    Other,
}

impl Obstacle {
    /// Finds the obstacle before a file that the kernel did not let this thread open.
    #[must_use]
    pub fn before(file: &Path) -> Self {
        let ancestors: Vec<_> = file.ancestors().collect();
        let is_closed = |path: &&&Path| {
            let found = fs::metadata(path);
            found.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
        };
        // The directory of the first path of which nothing can be found out.
        let closed = ancestors.iter().rev().find(is_closed);
        if let Some(directory) = closed.and_then(|path| path.parent()) {
            return Self::Directory(directory.to_owned());
        }
        match fs::metadata(file) {
            Ok(metadata) if metadata.uid() != Uid::effective().as_raw() => Self::Owner,
            Ok(metadata) if metadata.mode() & OWNER_READS == 0 => Self::Mode,
            _ => Self::Other,
        }
    }

    /// Returns what makes the file one that only this user reads.
    #[must_use]
    pub fn remedy(&self, file: &Path, user: &str) -> String {
        let file = file.display();
        match self {
            Self::Directory(directory) => {
                format!("move it, or `chmod o+x {}`", directory.display())
            }
            Self::Owner => format!("`chown {user}: {file}`"),
            Self::Mode => format!("`chmod 600 {file}`"),
            Self::Other => "its owner and mode permit it, but not an access control list, or the \
                            sandbox of the running daemon, which a restart ends"
                .to_owned(),
        }
    }
}

/// Returns the name of the user of this thread, or the number if it has none.
#[must_use]
pub fn user_name() -> String {
    let uid = Uid::effective();
    let user = User::from_uid(uid).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}
