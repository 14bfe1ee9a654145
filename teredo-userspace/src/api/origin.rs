//! The protection of the API against other hosts, and against web pages other than its own.
//!
//! A browser can be led to connect to the API: by a page of another site, or by a name whose owner lets it
//! point here (DNS rebinding). It tells so by the headers `Origin`, `Sec-Fetch-Site` and `Host`. That
//! concerns a unix socket, too, which SSH forwards to a port of the operator's machine.

use std::net::{IpAddr, Ipv6Addr};

use axum::{
    extract::{Request, State},
    http::{
        HeaderMap, Method, StatusCode, Uri, Version,
        header::{AUTHORIZATION, HOST, ORIGIN, WWW_AUTHENTICATE},
        uri::Authority,
    },
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::problem::Problem;
use crate::config::secrets::Token;

const FROM_A_PAGE: &str =
    "a web page of another origin asks (Origin or Sec-Fetch-Site), which is not allowed";
const BY_NAME: &str =
    "the address of the request must be localhost or an IP address, not another name (Host)";
const NO_TOKEN: &str = "this address asks for the token in node.api-token-file: send it as \
                        `Authorization: Bearer TOKEN`";

/// The reach of a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A unix socket.
    Unix,
    /// An address of loopback.
    Loopback,
    /// An address that other hosts may reach.
    Network,
}

/// The rules of one listening socket.
#[derive(Clone, Debug)]
pub struct Guard {
    place: Place,
    token: Option<Token>,
}

impl Guard {
    /// Returns the rules of a socket in this place; `token` is that of the API.
    pub fn new(place: Place, token: Option<Token>) -> Self {
        Self { place, token }
    }

    /// Returns the reason why a request is not answered.
    fn examine(
        &self,
        (method, version, uri): (&Method, Version, &Uri),
        headers: &HeaderMap,
    ) -> Result<(), Refusal> {
        let is_known = self.is_known(headers);
        if self.place == Place::Network && !is_known {
            return Err(Refusal::Token);
        }
        let is_name = |name: &str| is_known || self.is_this_host(name);
        let mut hosts = headers.get_all(HOST).iter();
        let host = hosts.next().map(|host| host.to_str().unwrap_or_default());
        // HTTP/1.0 has no such header; a browser always sends one.
        let has_host = host.map_or(version < Version::HTTP_11, is_name);
        let is_direct = uri.authority().is_none_or(|name| is_name(name.as_str()));
        if !has_host || !is_direct || hosts.next().is_some() {
            return Err(Refusal::Name);
        }
        let mut origins = headers.get_all(ORIGIN).iter();
        let is_own = origins.all(|origin| is_origin(origin.as_bytes(), host));
        if is_own && may_fetch(method, headers) {
            Ok(())
        } else {
            Err(Refusal::Page)
        }
    }

    /// Returns whether a request has the token. Pages of other sites cannot add it.
    fn is_known(&self, headers: &HeaderMap) -> bool {
        let value = headers.get(AUTHORIZATION);
        let value = value.and_then(|value| value.to_str().ok()?.split_once(' '));
        match (value, &self.token) {
            (Some((scheme, text)), Some(token)) => {
                scheme.eq_ignore_ascii_case("bearer") && token.is(text.trim())
            }
            _ => false,
        }
    }

    /// Returns whether a host with an optional port needs no look-up of a name, or for a unix socket, is a
    /// name that nobody owns.
    fn is_this_host(&self, text: &str) -> bool {
        let Ok(authority) = text.parse::<Authority>() else {
            return false;
        };
        let host = authority.host();
        let literal = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let is_label = self.place == Place::Unix && !host.is_empty() && !host.contains(['.', '[']);
        !text.contains('@')
            && match literal {
                Some(literal) => literal.parse::<Ipv6Addr>().is_ok(),
                None => {
                    host.eq_ignore_ascii_case("localhost")
                        || host.parse::<IpAddr>().is_ok()
                        || is_label
                }
            }
    }
}

/// Answers only requests that the rules of the socket admit.
pub async fn admit(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let line = (request.method(), request.version(), request.uri());
    match guard.examine(line, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(Refusal::Token) => {
            let challenge = [(WWW_AUTHENTICATE, "Bearer")];
            let problem = Problem::new(StatusCode::UNAUTHORIZED, NO_TOKEN);
            (challenge, problem).into_response()
        }
        Err(Refusal::Name) => Problem::new(StatusCode::FORBIDDEN, BY_NAME).into_response(),
        Err(Refusal::Page) => Problem::new(StatusCode::FORBIDDEN, FROM_A_PAGE).into_response(),
    }
}

/// The reason why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// It has no token.
    Token,
    /// It is for a name that may be anybody's.
    Name,
    /// It is from a page of another origin.
    Page,
}

/// Returns whether an origin is that of a page from this host and port.
fn is_origin(origin: &[u8], host: Option<&str>) -> bool {
    let authority = ["http://", "https://"]
        .iter()
        .find_map(|scheme| origin.strip_prefix(scheme.as_bytes()));
    match (authority, host) {
        (Some(authority), Some(host)) => authority.eq_ignore_ascii_case(host.as_bytes()),
        _ => false,
    }
}

/// Returns whether a request, if a browser sends it, is one of our page or of the user: a link to the page
/// may be anywhere.
fn may_fetch(method: &Method, headers: &HeaderMap) -> bool {
    let is = |name, value: &str| headers.get(name).is_some_and(|found| found == value);
    let is_foreign = is("sec-fetch-site", "cross-site") || is("sec-fetch-site", "same-site");
    let is_visit = method == Method::GET
        && is("sec-fetch-mode", "navigate")
        && is("sec-fetch-dest", "document");
    !is_foreign || is_visit
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

    use super::*;
    use crate::config::{Config, secrets};

    const DIGITS: &str = "00112233445566778899aabbccddeeff";
    const HOST_HERE: (&str, &str) = ("host", "127.0.0.1:9580");

    /// Examines a request; a name of the method may precede the address.
    fn examine(
        guard: &Guard,
        version: Version,
        line: &str,
        headers: &[(&str, &str)],
    ) -> Result<(), Refusal> {
        let (method, uri) = line.split_once(' ').unwrap_or(("GET", line));
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: axum::http::HeaderName = name.parse().unwrap();
            map.append(name, value.parse().unwrap());
        }
        let (method, uri) = (method.parse().unwrap(), uri.parse().unwrap());
        guard.examine((&method, version, &uri), &map)
    }

    fn on(place: Place, line: &str, headers: &[(&str, &str)]) -> Result<(), Refusal> {
        examine(&Guard::new(place, None), Version::HTTP_11, line, headers)
    }

    fn token() -> Token {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        fs::write(&file, DIGITS).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let text = format!("[node]\napi-token-file = {file:?}\n[relay]");
        let config = Config::parse(&text, Path::new("teredo.toml")).unwrap();
        secrets::token(&config).unwrap().unwrap()
    }

    #[test]
    fn addresses_and_localhost_are_answered() {
        for host in [
            "127.0.0.1:9464",
            "192.0.2.1",
            "[::1]:9464",
            "[2001:db8::1]",
            "LocalHost:80",
        ] {
            for place in [Place::Loopback, Place::Unix] {
                assert_eq!(on(place, "/status", &[("host", host)]), Ok(()), "{host}");
            }
        }
        let guard = Guard::new(Place::Loopback, None);
        assert_eq!(examine(&guard, Version::HTTP_10, "/status", &[]), Ok(()));
        let direct = "http://127.0.0.1/";
        assert_eq!(
            on(Place::Loopback, direct, &[("host", "127.0.0.1")]),
            Ok(())
        );
    }

    #[test]
    fn names_are_not() {
        for host in [
            "rebind.example",
            "rebind.example:9464",
            "127.0.0.1.example",
            "localhost.example",
            "localhost.",
            "127.0.0.1@rebind.example",
            "rebind.example@127.0.0.1",
            "[::1",
            "[example]",
            "",
        ] {
            for place in [Place::Loopback, Place::Unix] {
                let answer = on(place, "/", &[("host", host)]);
                assert_eq!(answer, Err(Refusal::Name), "{host}");
            }
        }
        assert_eq!(on(Place::Loopback, "/", &[]), Err(Refusal::Name));
        let twice = [HOST_HERE, ("host", "rebind.example")];
        assert_eq!(on(Place::Loopback, "/", &twice), Err(Refusal::Name));
        let direct = "http://rebind.example/";
        assert_eq!(
            on(Place::Loopback, direct, &[HOST_HERE]),
            Err(Refusal::Name)
        );
        // As `curl --unix-socket` sends it; nobody can register such a name.
        let label = [("host", "teredo")];
        assert_eq!(on(Place::Unix, "/status", &label), Ok(()));
        assert_eq!(on(Place::Loopback, "/status", &label), Err(Refusal::Name));
    }

    #[test]
    fn the_own_page_may_ask_and_no_other() {
        let asks = |line: &str, headers: &[(&str, &str)]| {
            let headers = [&[HOST_HERE], headers].concat();
            let answers = [Place::Loopback, Place::Unix].map(|place| on(place, line, &headers));
            assert_eq!(answers[0], answers[1]);
            answers[0]
        };
        let own = [
            ("origin", "http://127.0.0.1:9580"),
            ("sec-fetch-site", "same-origin"),
        ];
        assert_eq!(asks("POST /v1/explain", &own), Ok(()));
        for origin in [
            "http://rebind.example",
            "http://127.0.0.1:3000",
            "http://127.0.0.1",
            "http://localhost:9580",
            "null",
            "",
        ] {
            let answer = asks("POST /drain", &[("origin", origin)]);
            assert_eq!(answer, Err(Refusal::Page), "{origin}");
        }
        for site in ["cross-site", "same-site"] {
            let picture = [
                ("sec-fetch-site", site),
                ("sec-fetch-mode", "no-cors"),
                ("sec-fetch-dest", "image"),
            ];
            assert_eq!(asks("/peers", &picture), Err(Refusal::Page));
            let link = [
                ("sec-fetch-site", site),
                ("sec-fetch-mode", "navigate"),
                ("sec-fetch-dest", "document"),
            ];
            assert_eq!(asks("/", &link), Ok(()));
            assert_eq!(asks("POST /drain", &link), Err(Refusal::Page));
        }
    }

    #[test]
    fn other_hosts_need_the_token() {
        let guard = Guard::new(Place::Network, Some(token()));
        let asks = |headers: &[(&str, &str)]| examine(&guard, Version::HTTP_11, "/", headers);
        let bearer = &*format!("Bearer {DIGITS}");
        let capital = &*format!("bearer {}", DIGITS.to_uppercase());
        for value in [bearer, capital] {
            // A proxy passes on the name that it has.
            let headers = [("host", "teredo.example"), ("authorization", value)];
            assert_eq!(asks(&headers), Ok(()));
            let own = [&headers[..], &[("origin", "https://teredo.example")]].concat();
            assert_eq!(asks(&own), Ok(()));
            let foreign = [&headers[..], &[("origin", "https://rebind.example")]].concat();
            assert_eq!(asks(&foreign), Err(Refusal::Page));
        }
        for value in [
            "",
            "Bearer",
            "Bearer ",
            &bearer[..bearer.len() - 2],
            &format!("{bearer}00"),
            &format!("Basic {DIGITS}"),
            "Bearer ffeeddccbbaa99887766554433221100",
        ] {
            let headers = [HOST_HERE, ("authorization", value)];
            assert_eq!(asks(&headers), Err(Refusal::Token), "{value}");
        }
        assert_eq!(asks(&[HOST_HERE]), Err(Refusal::Token));
        let nobody = Guard::new(Place::Network, None);
        let headers = [HOST_HERE, ("authorization", "Bearer ")];
        let answer = examine(&nobody, Version::HTTP_11, "/", &headers);
        assert_eq!(answer, Err(Refusal::Token));
    }
}
