//! The fast path, the server and the client.

use maud::{Markup, html};

use super::{
    numbers::{duration, grouped, share},
    words,
};
use crate::{
    api::types::{Paths, ServerStatus, Status},
    metrics::{Attachment, ClientStatus, meaning},
};

/// Renders what the daemon has of these.
pub fn render(status: &Status) -> Markup {
    html! {
        @if let Some(client) = &status.client { (client_section(client)) }
        @if let Some(server) = &status.server { (server_section(server)) }
        @if status.client.is_none() { (fast_path_section(status)) }
    }
}

fn client_section(client: &ClientStatus) -> Markup {
    let mut rows: Vec<(&str, String)> = Vec::new();
    let mut row = |name, value: Option<String>| {
        rows.push((name, value.unwrap_or_else(|| "-".to_owned())));
    };
    row("Address", client.address.map(|address| address.to_string()));
    row(
        "Mapped endpoint",
        client.mapped.map(|mapped| mapped.to_string()),
    );
    row("Service port", Some(format!("UDP {}", client.port)));
    row("NAT", client.nat_behaviour.clone());
    row("Server", client.server.map(|server| server.to_string()));
    row("Longest silence", Some(duration(client.refresh_seconds)));
    if let Some(mapping) = client.port_mapping {
        row("Forwarded by the gateway", Some(mapping.to_string()));
    }
    if client.tunnel {
        row(
            "Tunnel",
            Some("everything goes through the server".to_owned()),
        );
    }
    html! {
        section #client aria-labelledby="client-title" {
            h2 #client-title { "Client" }
            p {
                code { (client.state) } " "
                (words::render(meaning::of_client_state(&client.state).unwrap_or_default()))
            }
            table .pairs {
                caption .hidden { "State of the client" }
                tbody {
                    @for (name, value) in rows {
                        tr { th scope="row" { (name) } td { (value) } }
                    }
                }
            }
        }
    }
}

fn server_section(server: &ServerStatus) -> Markup {
    let rows: Vec<(&str, &str, Paths)> = server
        .requests
        .iter()
        .flat_map(|(kind, results)| {
            let results = results.iter();
            results.map(move |(result, paths)| (&**kind, &**result, *paths))
        })
        .filter(|(_, _, paths)| *paths != Paths::default())
        .collect();
    html! {
        section #server aria-labelledby="server-title" {
            h2 #server-title { "Server" }
            @if rows.is_empty() {
                p .nothing { "No requests yet." }
            } @else {
                div .scroll tabindex="0" role="region" aria-labelledby="server-title" {
                    table {
                        thead { tr {
                            th scope="col" { "Request" }
                            th scope="col" { "Result" }
                            th .number scope="col" { "Fast path" }
                            th .number scope="col" { "Daemon" }
                            th .number scope="col" { "In the fast path" }
                        } }
                        tbody {
                            @for (kind, result, paths) in rows {
                                tr {
                                    th scope="row" { (kind) }
                                    td { (result) }
                                    td .number { (grouped(paths.xdp)) }
                                    td .number { (grouped(paths.userspace)) }
                                    td .number { (share(paths.xdp, paths.xdp + paths.userspace)) }
                                }
                            }
                        }
                    }
                }
            }
            @if server.bindings > 0 {
                p { (grouped(server.bindings)) " clients in tunnels." }
            }
        }
    }
}

fn fast_path_section(status: &Status) -> Markup {
    html! {
        section #fast-path aria-labelledby="fast-path-title" {
            h2 #fast-path-title { "Fast path" }
            @if status.xdp.is_empty() {
                p .nothing { "No program is attached." }
            } @else {
                div .scroll tabindex="0" role="region" aria-labelledby="fast-path-title" {
                    table {
                        thead { tr {
                            th scope="col" { "Interface" }
                            th scope="col" { "Mode" }
                            th .number scope="col" { "Lost in the driver" }
                            th scope="col" { "Reason" }
                        } }
                        tbody { @for attachment in &status.xdp { (attachment_row(attachment)) } }
                    }
                }
            }
        }
    }
}

fn attachment_row(attachment: &Attachment) -> Markup {
    html! {
        tr {
            th scope="row" { code { (attachment.interface) } }
            td { (attachment.mode.name()) }
            td .number { (grouped(attachment.dropped)) }
            td { (attachment.reason) }
        }
    }
}
