//! `teredo explain`: what a running daemon would do with a packet, and why.

use std::{
    fs, fs::File, io::BufReader, os::unix::fs::MetadataExt as _, path::PathBuf, process::ExitCode,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use super::{
    Query,
    ask::address,
    output::{Table, print, print_json},
    start_runtime,
};
use crate::{
    api::{
        client,
        explain::{ExplainRequest, NETWORK_NAMESPACE},
    },
    check,
    explain::{
        Explanation, Finding, Packet, Stage, Step, Subject, explain_alone, parse_hexadecimal,
        read_capture,
    },
};

#[derive(Debug, Args)]
pub struct Arguments {
    /// An IPv6 address, an IPv4 endpoint such as 192.0.2.1:3545, or a flow: SOURCE DESTINATION
    #[arg(value_name = "SUBJECT", conflicts_with_all = ["packet", "pcap"])]
    subject: Vec<String>,
    /// A packet in hexadecimal digits: an Ethernet frame, or IPv4 or IPv6
    #[arg(long, value_name = "HEX", conflicts_with = "pcap")]
    packet: Option<String>,
    /// A file with a packet: pcap or pcapng
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// The number of the packet in the file
    #[arg(long, value_name = "NUMBER", default_value_t = 1, requires = "pcap")]
    number: usize,
    #[command(flatten)]
    query: Query,
}

/// Prints the explanation. Without a daemon the exit code is 1.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (subject, request) = question(arguments)?;
    let body = serde_json::to_vec(&request)?;
    let address = address(&arguments.query.daemon)?;
    let asked = start_runtime()?.block_on(client::ask(&address, "/v1/explain", body.into()));
    let (explanation, code) = match asked {
        Ok(answer) => {
            let explanation = serde_json::from_slice(&answer).with_context(|| {
                format!(
                    "the daemon on {address} answers in an unknown format; is it of another version?"
                )
            })?;
            (with_firewall(arguments, explanation), ExitCode::SUCCESS)
        }
        Err(error @ client::Error::NotRunning { .. }) => (
            explain_alone(&subject, &error.to_string()),
            ExitCode::FAILURE,
        ),
        Err(error) => return Err(error.into()),
    };
    if arguments.query.json {
        print_json(&explanation)?;
    } else {
        print(&text(&explanation))?;
    }
    Ok(code)
}

/// Reads the question.
fn question(arguments: &Arguments) -> Result<(Subject, ExplainRequest)> {
    let packet = match (&arguments.packet, &arguments.pcap) {
        (Some(digits), _) => Some(parse_hexadecimal(digits)?),
        (None, Some(path)) => Some(captured(path, arguments.number)?),
        (None, None) => None,
    };
    if let Some(octets) = packet {
        let subject = Subject::Packet(Packet::parse(&octets)?);
        let digits = octets.iter().map(|octet| format!("{octet:02x}"));
        let request = ExplainRequest {
            packet: Some(digits.collect()),
            ..ExplainRequest::default()
        };
        return Ok((subject, request));
    }
    let words = arguments.subject.join(" ");
    let subject = Subject::parse(&words)?;
    let request = ExplainRequest {
        subject: Some(words),
        ..ExplainRequest::default()
    };
    Ok((subject, request))
}

fn captured(path: &PathBuf, number: usize) -> Result<Vec<u8>> {
    ensure!(number > 0, "--number 0 is no packet: the first is 1");
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    match read_capture(BufReader::new(file), number) {
        Ok(octets) => Ok(octets),
        Err(error) => bail!("cannot use {}: {error}", path.display()),
    }
}

/// Adds what the firewall's rules say, which the daemon has no right to read, if they are those of the
/// daemon's network namespace.
fn with_firewall(arguments: &Arguments, mut explanation: Explanation) -> Explanation {
    let own = fs::metadata(NETWORK_NAMESPACE).map(|namespace| namespace.ino());
    let is_here = own.is_ok_and(|own| explanation.network_namespace == Some(own));
    let file = &arguments.query.daemon.file;
    let Some(config) = file.load().ok().filter(|_| is_here) else {
        return explanation;
    };
    for (is_certain, sentence) in check::examine_firewall(&config) {
        let step = match is_certain {
            true => Step::fault(Stage::Host, sentence),
            false => Step::note(Stage::Host, sentence),
        };
        explanation.add(step.because("firewall"));
    }
    explanation
}

fn text(explanation: &Explanation) -> String {
    let mut table = Table::default();
    for step in &explanation.steps {
        let mark = match step.finding {
            Finding::Fine => "ok",
            Finding::Note => "note",
            Finding::Fault => "FAULT",
        };
        let reason = match &step.reason {
            Some(reason) if !step.text.contains(&**reason) => format!("{reason}: "),
            _ => String::new(),
        };
        table.row(&[step.stage.name(), mark, &format!("{reason}{}", step.text)]);
    }
    format!(
        "{}\n\n{}\n{}\n",
        explanation.subject,
        table.render("  "),
        explanation.cause
    )
}
