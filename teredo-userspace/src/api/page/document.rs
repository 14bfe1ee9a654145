//! The document around the sections.

use maud::{DOCTYPE, Markup, html};

use super::{
    drops, graphs, headline,
    peers::{Filter, Listing},
    roles, tiles,
};
use crate::{
    api::{history::Hour, types::Status},
    metrics::Snapshot,
};

/// Renders the whole page.
pub fn render(snapshot: &Snapshot, hour: &Hour, filter: &Filter, listing: &Listing) -> Markup {
    let status = Status::from(snapshot);
    let (word, title) = headline::title(&status);
    let has_peers = status.roles.iter().any(|role| role != "server");
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" href="/page/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/page/style.css";
                script src="/page/script.js" type="module" {}
            }
            body class=(word) {
                a .skip href="#main" { "Skip to the state" }
                header {
                    (headline::band(&status))
                    div .line {
                        (headline::daemon(&status))
                        p #freshness {
                            noscript { "This page stays as it is: reload it for new numbers." }
                        }
                    }
                    nav aria-label="Parts of the page" {
                        a href="#conditions" { "Conditions" }
                        a href="#now" { "Now" }
                        a href="#hour" { "Last hour" }
                        a href="#drops" { "Drops" }
                        @if status.client.is_some() { a href="#client" { "Client" } }
                        @if status.server.is_some() { a href="#server" { "Server" } }
                        @if status.client.is_none() { a href="#fast-path" { "Fast path" } }
                        @if has_peers { a href="#peers" { "Peers" } }
                    }
                }
                main #main {
                    (headline::conditions_list(&status))
                    (tiles::render(&status, snapshot, hour))
                    (explain())
                    (graphs::render(&status, hour))
                    (drops::render(snapshot, hour))
                    div .roles { (roles::render(&status)) }
                    @if has_peers { (listing.render(&status, filter)) }
                }
            }
        }
    }
}

/// Renders the box for questions, which the script shows and answers.
fn explain() -> Markup {
    html! {
        section #explain hidden aria-labelledby="explain-title" data-own="" {
            h2 #explain-title { "Explain" }
            form #question {
                label for="subject" {
                    "An address, an endpoint, or a packet in hexadecimal digits: what this daemon does \
                     with it, and why"
                }
                div .ask {
                    input #subject type="text" name="subject" required autocomplete="off"
                        spellcheck="false" maxlength="8192"
                        placeholder="2001:0:… or 192.0.2.1:4096";
                    button type="submit" { "Explain" }
                }
            }
            div #explanation aria-live="polite" {}
        }
    }
}
