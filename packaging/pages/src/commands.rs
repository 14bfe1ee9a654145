//! Pages of the command and its subcommands.

use anyhow::Result;
use clap::Command;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

/// The manual's section of commands for administrators.
const SECTION: &str = "8";
/// The files of the daemon.
const FILES: [(&str, &str); 3] = [
    (
        "/etc/teredo/teredo.toml",
        "The configuration, described in teredo.toml(5).",
    ),
    ("/run/teredo/teredo.sock", "The socket of the API."),
    (
        "/usr/share/doc/teredo",
        "Guides for operators, and examples of configurations.",
    ),
];

/// Returns the name and the text of each page.
pub fn pages() -> Result<Vec<(String, Vec<u8>)>> {
    // `teredo help` is the same as `--help`, and needs no pages.
    let mut command = teredo::cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add(&command, "teredo", &mut pages)?;
    Ok(pages)
}

fn add(command: &Command, name: &str, pages: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let mut page = Vec::new();
    Man::new(command.clone())
        .title(name.to_uppercase())
        .section(SECTION)
        // Two builds of one version are the same.
        .date("")
        .source(format!("teredo {version}"))
        .manual("Teredo")
        .render(&mut page)?;
    references(name).to_writer(&mut page)?;
    pages.push((format!("{name}.{SECTION}"), page));
    for command in command.get_subcommands() {
        add(command, &format!("{name}-{}", command.get_name()), pages)?;
    }
    Ok(())
}

/// Returns the sections at the end, which the definition of the command line does not have.
fn references(name: &str) -> Roff {
    let mut roff = Roff::new();
    if name == "teredo" {
        roff.control("SH", ["FILES"]);
        for (path, text) in FILES {
            roff.control("TP", []);
            roff.text([bold(path)]);
            roff.text([roman(text)]);
        }
    }
    roff.control("SH", ["SEE ALSO"]);
    let others = match name {
        "teredo" => "teredo.toml(5)",
        _ => "teredo(8), teredo.toml(5)",
    };
    roff.text([roman(others)]);
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() -> Result<()> {
        let pages = pages()?;
        let names: Vec<_> = pages.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names[0], "teredo.8");
        for name in ["teredo-run.8", "teredo-check.8", "teredo-import-miredo.8"] {
            assert!(names.contains(&name), "{names:?}");
        }
        assert!(!names.iter().any(|name| name.contains("help")), "{names:?}");
        for (name, page) in pages {
            let text = String::from_utf8(page)?;
            let title = name.trim_end_matches(".8").to_uppercase();
            assert!(
                text.contains(&title.replace('-', "\\-")) || text.contains(&title),
                "{text}"
            );
            assert!(text.contains(".SH \"SEE ALSO\""), "{text}");
        }
        Ok(())
    }
}
