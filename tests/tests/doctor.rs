//! What `teredo check` says of hosts with one fault each, and whether its remedies help.

mod host;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use teredo_lab::{process::output, teredo::binary};

use host::Host;

/// A fault of a host, and what is said of it.
struct Case<'a> {
    /// Commands that make the fault.
    faults: &'a [&'a str],
    /// The subject and the verdict of the finding.
    subject: &'a str,
    verdict: &'a str,
    /// A part of the sentence.
    text: &'a str,
    /// Whether the command in the sentence mends it.
    has_remedy: bool,
}

/// Runs commands on the host, as an operator would.
fn run(host: &Host, commands: &[&str]) -> Result<()> {
    for command in commands {
        let mut shell = host.namespace.command("sh")?;
        output(shell.args(["-c", command]))?;
    }
    Ok(())
}

/// Returns the findings of a check of a relay and a server: subject, verdict and text.
fn findings(host: &Host) -> Result<Vec<(String, String, String)>> {
    let file = host.configure_server("", "[relay]")?;
    let mut check = host.namespace.command(binary()?)?;
    let told = check
        .args(["check", "--json", "--config"])
        .arg(&file)
        .output()?;
    let told: Value = serde_json::from_slice(&told.stdout).context("no JSON")?;
    let findings = told["findings"].as_array().context("no findings")?;
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let findings = findings.iter();
    Ok(findings
        .map(|finding| {
            let [subject, verdict, text] =
                ["subject", "verdict", "text"].map(|key| text(finding, key));
            (subject, verdict, text)
        })
        .collect())
}

fn try_case(case: &Case<'_>) -> Result<()> {
    let host = Host::new()?;
    let find = || -> Result<Option<String>> {
        let findings = findings(&host)?.into_iter();
        let mut findings = findings.filter(|(subject, verdict, text)| {
            subject == case.subject && verdict == case.verdict && text.contains(case.text)
        });
        Ok(findings.next().map(|(_, _, text)| text))
    };
    ensure!(find()?.is_none(), "{:?} without the fault", case.subject);
    run(&host, case.faults)?;
    let told = find()?.with_context(|| format!("{:?}: {:?}", case.faults, findings(&host)))?;
    if case.has_remedy {
        let (_, rest) = told.split_once('`').context("no command")?;
        let (command, _) = rest.split_once('`').context("no end")?;
        run(&host, &[command])?;
        ensure!(find()?.is_none(), "{command} does not help");
    }
    Ok(())
}

#[test]
fn a_firewall_that_drops_is_told_with_the_rule_to_add() -> Result<()> {
    for (chain, text) in [
        ("input", "drops UDP to port 3545 of the relay"),
        ("forward", "drops forwarding of IPv6 to 2001::/32"),
        ("output", "drops UDP from port 3544 of the server"),
    ] {
        let chain = format!(
            "nft 'add chain inet lab {chain} {{ type filter hook {chain} priority 0; policy drop; }}'"
        );
        let faults = ["nft add table inet lab", &*chain];
        try_case(&Case {
            faults: &faults,
            subject: "firewall",
            verdict: "degraded",
            text,
            has_remedy: true,
        })?;
    }
    Ok(())
}

#[test]
fn faults_of_links_and_rules_are_told() -> Result<()> {
    for case in [
        Case {
            faults: &["ip link set wan mtu 1300"],
            subject: "mtu",
            verdict: "degraded",
            text: "the MTU of wan is 1300",
            has_remedy: true,
        },
        Case {
            faults: &["ip -6 rule add to 2001::/32 unreachable priority 100"],
            subject: "rule",
            verdict: "degraded",
            text: "refuses packets to 2001::/32",
            has_remedy: true,
        },
        Case {
            faults: &["ip -6 rule add to 2001::/32 lookup 50 priority 100"],
            subject: "rule",
            verdict: "note",
            text: "in table 50",
            has_remedy: false,
        },
        Case {
            faults: &["ip neigh replace 20.0.0.254 dev wan nud failed"],
            subject: "gateway",
            verdict: "degraded",
            text: "20.0.0.254 does not answer ARP on wan",
            has_remedy: false,
        },
        Case {
            faults: &["ip -6 addr del 2001:db8::1/64 dev wan"],
            subject: "ipv6",
            verdict: "degraded",
            text: "no global IPv6 address",
            has_remedy: false,
        },
    ] {
        try_case(&case)?;
    }
    Ok(())
}

#[test]
fn faults_of_settings_are_told() -> Result<()> {
    for case in [
        Case {
            faults: &[
                "ip link add second type veth peer name other",
                "ip link set second up",
                "ip addr del 20.0.0.2/24 dev wan",
                "ip addr add 20.0.0.2/32 dev second",
                "echo 1 > /proc/sys/net/ipv4/conf/second/rp_filter",
            ],
            subject: "reverse path",
            verdict: "degraded",
            text: "rp_filter is strict on second",
            has_remedy: true,
        },
        Case {
            faults: &[
                "echo 1 > /proc/sys/net/ipv6/conf/wan/accept_ra",
                "ip -6 route del default",
                "ip -6 route add default via 2001:db8::2 dev wan proto ra",
            ],
            subject: "settings",
            verdict: "degraded",
            text: "was announced by a router",
            has_remedy: true,
        },
    ] {
        try_case(&case)?;
    }
    Ok(())
}

/// The kernel removes the route that a router announced as soon as it forwards, unless this was set
/// first.
#[test]
fn forwarding_does_not_cost_an_announced_route() -> Result<()> {
    let host = Host::new()?;
    run(
        &host,
        &[
            "echo 0 > /proc/sys/net/ipv6/conf/all/forwarding",
            "echo 1 > /proc/sys/net/ipv6/conf/wan/accept_ra",
            "ip -6 route del default",
            "ip -6 route add default via 2001:db8::2 dev wan proto ra",
        ],
    )?;
    let mut told = findings(&host)?.into_iter();
    let (_, _, text) = told
        .find(|(subject, verdict, _)| subject == "forwarding" && verdict == "waiting")
        .context("forwarding is off")?;
    let (_, rest) = text.split_once('`').context("no command")?;
    let (command, _) = rest.split_once('`').context("no end")?;
    assert_eq!(
        command,
        "sysctl -w net.ipv6.conf.wan.accept_ra=2 && sysctl -w net.ipv6.conf.all.forwarding=1"
    );
    run(&host, &[command])?;
    let left: Vec<_> = findings(&host)?
        .into_iter()
        .filter(|(subject, verdict, _)| {
            ["forwarding", "settings"].contains(&&**subject) && verdict != "fine"
        })
        .collect();
    assert_eq!(left, []);
    Ok(())
}
