//! The checks of the section `[client]`.

use crate::config::{ClientSection, Ipv4Choice, ServerHost, document::Document, error::Error};

/// Refuses combinations of values that a client cannot serve.
pub fn check(client: &ClientSection, document: &Document<'_>) -> Result<(), Error> {
    for server in &client.servers {
        if let ServerHost::Address(address) = server.host
            && !client.ipv4_scope.accepts(address.octets())
        {
            let reason = format!("{address} is not acceptable under client.ipv4-scope");
            return Err(document.refuse("client", "server", &reason));
        }
    }
    if let Ipv4Choice::Address(address) = client.secondary {
        if client.servers.len() > 1 {
            let reason = "client.server has several servers, and each has its own";
            return Err(document.refuse("client", "secondary", reason));
        }
        if !client.ipv4_scope.accepts(address.octets()) {
            let reason = "it is not acceptable under client.ipv4-scope";
            return Err(document.refuse("client", "secondary", reason));
        }
        if client.servers[0].host == ServerHost::Address(address) {
            let reason = "it is the primary address, too";
            return Err(document.refuse("client", "secondary", reason));
        }
    }
    check_credentials(client, document)
}

fn check_credentials(client: &ClientSection, document: &Document<'_>) -> Result<(), Error> {
    let conflict = |key, why: &str| Err(document.conflict("client", key, why.to_owned()));
    match (&client.id, &client.secret_file) {
        (Some(_), None) => conflict(
            "id",
            "client.id is set, but without client.secret-file there is no key to prove it with: set \
             both or none",
        ),
        (None, Some(_)) => conflict(
            "secret-file",
            "client.secret-file is set, but without client.id the server does not know whose key it \
             is: set both or none",
        ),
        (None, None) if client.allow_tunnel => conflict(
            "allow-tunnel",
            "client.allow-tunnel is true, but a tunnel is only for clients with a key: set client.id \
             and client.secret-file, too",
        ),
        _ => Ok(()),
    }
}
