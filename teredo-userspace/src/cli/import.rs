//! `teredo import`.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};

use super::output::print;
use crate::import::{self, Source};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Imports miredo.conf and miredo-server.conf
    Miredo(Miredo),
}

#[derive(Debug, Args)]
pub struct Miredo {
    /// The files: miredo.conf of a relay or a client, miredo-server.conf, or a relay's and a server's for
    /// one daemon with both
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Write the configuration to a new file instead of printing it
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Prints or writes the configuration.
pub fn run(command: &Command) -> Result<()> {
    let Command::Miredo(arguments) = command;
    let texts = arguments.files.iter().map(|file| read(file));
    let texts = texts.collect::<Result<Vec<_>>>()?;
    let files = arguments.files.iter().zip(&texts);
    let sources: Vec<_> = files.map(|(file, text)| Source { file, text }).collect();
    let configuration = import::miredo(&sources)?;
    match &arguments.output {
        None => print(&configuration),
        Some(file) => {
            write(file, &configuration)?;
            print(&format!(
                "wrote {0}; see its comments, then `teredo check --config {0}`\n",
                file.display()
            ))
        }
    }
}

fn read(file: &Path) -> Result<String> {
    let octets = fs::read(file).with_context(|| {
        let file = file.display();
        format!("cannot read {file}; name Miredo's configuration, usually /etc/miredo/miredo.conf")
    })?;
    // Comments may be in any encoding; values that are not in ASCII are refused by their keys.
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

/// Writes a new file, or none.
fn write(path: &Path, text: &str) -> Result<()> {
    let name = path.display();
    let mut file = match File::create_new(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!(
                "{name} exists and is not overwritten; move it away, or name another with --output"
            )
        }
        Err(error) => {
            return Err(error)
                .with_context(|| format!("cannot create {name}; name another with --output"));
        }
    };
    let written = file.write_all(text.as_bytes());
    if written.is_err() {
        // The reason for the failure is the one to report.
        let _ = fs::remove_file(path);
    }
    written.with_context(|| format!("cannot write {name}; name another with --output"))
}
