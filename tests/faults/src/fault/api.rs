//! Clients of the API.

use std::{io::Write as _, os::unix::net::UnixStream};

use anyhow::Result;

use super::{Fault, Takes};
use crate::site::Site;

/// Connections, many more than the API permits.
const CONNECTIONS: usize = 300;

/// Clients of the API ask for much and never read, and others never ask.
#[derive(Debug, Default)]
pub struct NeverReads {
    streams: Vec<UnixStream>,
}

impl Fault for NeverReads {
    fn name(&self) -> &'static str {
        "API clients that never read"
    }

    fn takes(&self) -> Takes {
        Takes::Nothing
    }

    fn inject(&mut self, site: &mut Site) -> Result<()> {
        let socket = site.relay.daemon.path().join("api");
        for number in 0..CONNECTIONS {
            let mut stream = UnixStream::connect(&socket)?;
            let question: &[u8] = match number % 3 {
                0 => b"GET /peers HTTP/1.1\r\nHost: localhost\r\n\r\n",
                1 => b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
                _ => b"GET /sta",
            };
            // The daemon may have closed it for another.
            let _ = stream.write_all(question);
            self.streams.push(stream);
        }
        // One answers, with all the others waiting.
        site.relay.status().map(drop)
    }

    fn heal(&mut self, _: &mut Site) -> Result<()> {
        self.streams.clear();
        Ok(())
    }
}
