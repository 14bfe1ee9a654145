//! The protection of TCP sockets against web pages.
//!
//! A browser on this host can be led to connect to the API: by a page, or by a name whose owner lets
//! it point here (DNS rebinding). It tells so by the headers `Origin` and `Host`.

use std::net::{IpAddr, Ipv6Addr};

use axum::{
    extract::Request,
    http::{
        HeaderMap, StatusCode, Uri, Version,
        header::{HOST, ORIGIN},
        uri::Authority,
    },
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::problem::Problem;

const FROM_A_PAGE: &str = "a web page asks (the request has an Origin), which is not allowed";
const BY_NAME: &str =
    "the address of the request must be localhost or an IP address, not another name (Host)";

/// Answers only requests that name this host by an address or as localhost.
pub async fn refuse_web_pages(request: Request, next: Next) -> Response {
    match examine(request.version(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(reason) => Problem::new(StatusCode::FORBIDDEN, reason).into_response(),
    }
}

/// Returns the reason why a request may come from a web page.
fn examine(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), &'static str> {
    if headers.contains_key(ORIGIN) {
        return Err(FROM_A_PAGE);
    }
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    // HTTP/1.0 has no such header; a browser always sends one.
    let is_known = match host {
        Some(host) => host.to_str().is_ok_and(is_this_host),
        None => version < Version::HTTP_11,
    };
    let is_direct = uri
        .authority()
        .is_none_or(|name| is_this_host(name.as_str()));
    if is_known && is_direct && hosts.next().is_none() {
        Ok(())
    } else {
        Err(BY_NAME)
    }
}

/// Returns whether a host with an optional port needs no look-up of a name.
fn is_this_host(text: &str) -> bool {
    let Ok(authority) = text.parse::<Authority>() else {
        return false;
    };
    let host = authority.host();
    let literal = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    !text.contains('@')
        && match literal {
            Some(literal) => literal.parse::<Ipv6Addr>().is_ok(),
            None => host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok(),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_answered(version: Version, uri: &str, headers: &[(&'static str, &str)]) -> bool {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect::<Vec<_>>();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let _: bool = map.append::<axum::http::HeaderName>(name, value);
        }
        examine(version, &uri.parse().unwrap(), &map).is_ok()
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
            assert!(
                is_answered(Version::HTTP_11, "/status", &[("host", host)]),
                "{host}"
            );
        }
        assert!(is_answered(Version::HTTP_10, "/status", &[]));
        assert!(is_answered(
            Version::HTTP_11,
            "http://127.0.0.1/",
            &[("host", "127.0.0.1")]
        ));
    }

    #[test]
    fn names_and_pages_are_not() {
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
            assert!(
                !is_answered(Version::HTTP_11, "/", &[("host", host)]),
                "{host}"
            );
        }
        assert!(!is_answered(Version::HTTP_11, "/", &[]));
        let twice = [("host", "127.0.0.1"), ("host", "rebind.example")];
        assert!(!is_answered(Version::HTTP_11, "/", &twice));
        let page = [("host", "127.0.0.1"), ("origin", "http://rebind.example")];
        assert!(!is_answered(Version::HTTP_11, "/", &page));
        assert!(!is_answered(
            Version::HTTP_11,
            "http://rebind.example/",
            &[("host", "127.0.0.1")]
        ));
    }
}
