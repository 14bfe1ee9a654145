//! Configurations of other programs, turned into ours. Nothing here reads files or the host.
//!
//! [`miredo`] takes the texts of `miredo.conf` and `miredo-server.conf`. Each directive becomes a key,
//! or a comment that says why there is none. Values are checked by the parser of our own configuration,
//! whose verdicts are led back to the directives.

mod directive;
mod draft;
mod error;
mod roles;

use std::path::Path;

pub use error::Error;

use draft::Draft;

/// A file to import.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The file, for messages and comments.
    pub file: &'a Path,
    /// Its text.
    pub text: &'a str,
}

/// Turns configurations of Miredo into one of this daemon, which
/// [`Config::parse`](crate::config::Config::parse) accepts.
///
/// # Errors
///
/// When a directive is unknown, lacks its value or has one that no key takes, and when the files
/// cannot be one configuration; the message is a whole sentence for the user.
pub fn miredo(sources: &[Source<'_>]) -> Result<String, Error> {
    let mut draft = Draft::default();
    for source in sources {
        roles::import(&directive::File::parse(source)?, &mut draft)?;
    }
    draft.finish(sources)
}

#[cfg(test)]
mod tests;
