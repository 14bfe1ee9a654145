//! The web page of the API, in Chromium, on the host of a real relay.

mod contrast;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use teredo_lab::{
    Browser, Scene, Teredo,
    peers::{Conversation, Peers},
    process::Daemon,
    scene::{IPV6_INTERFACE, RELAY, SERVER},
    teredo::Config,
    wait_until,
};

/// The address of the page, and of everything that it may ask for.
const PAGE: &str = "http://127.0.0.1:9580/";
const LOOPBACK: &str = "tcp:127.0.0.1:9580";
const PEERS: Ipv4Addr = Ipv4Addr::new(20, 0, 2, 1);
/// Peers that fill more than one page.
const NUMBER: u16 = 60;
/// Time after which a step has failed.
const SOON: Duration = Duration::from_secs(20);

/// The configuration of a relay that also answers on TCP.
fn config(scene: &Scene, socket: &tempfile::TempDir) -> Config {
    let socket = format!("unix:{}", socket.path().join("api").display());
    let config = scene.relay_config().set("relay.ipv4-scope", "lab");
    config.set("node.api", vec![socket, LOOPBACK.to_owned()])
}

fn start(scene: &Scene, socket: &tempfile::TempDir) -> Result<Teredo> {
    scene.start_relay(&config(scene, socket))
}

/// Returns the text of the first element that a selector finds.
fn text(browser: &mut Browser, selector: &str) -> Result<String> {
    let value = browser.evaluate(&format!("document.querySelector({selector:?})?.innerText"))?;
    let text = value
        .as_str()
        .with_context(|| format!("there is no {selector}"))?;
    Ok(text.to_owned())
}

/// Checks that the page asked nobody else and complained about nothing.
fn check_quiet(browser: &Browser) -> Result<()> {
    let complaints = browser.complaints();
    ensure!(complaints.is_empty(), "{complaints:#?}");
    let requests = browser.requests();
    ensure!(requests.len() >= 3, "style, script and icon: {requests:?}");
    let foreign = |address: &&String| !address.starts_with(PAGE) && *address != "about:blank";
    let foreign: Vec<_> = requests.iter().filter(foreign).collect();
    ensure!(foreign.is_empty(), "{foreign:?}");
    Ok(())
}

#[test]
fn the_page_follows_a_relay_that_works_fails_and_drains() -> Result<()> {
    let scene = Scene::for_many_peers()?;
    let socket = Daemon::directory("web")?;
    let relay = start(&scene, &socket)?;
    let mut browser = Browser::start(&scene.relay)?;
    browser.look(1280, false)?;
    browser.open(PAGE)?;
    ensure!(text(&mut browser, "#band h1")?.eq_ignore_ascii_case("ok"));
    ensure!(text(&mut browser, "#peers .nothing")? == "None.");

    // The page that is open shows what happens.
    let namespace = scene.add_ipv4_host("peers", PEERS)?;
    let peers = Peers::open(&namespace, SERVER, PEERS, 10_000, NUMBER)?;
    let conversation = Conversation::new(scene.host(), &peers)?;
    conversation.open(RELAY)?;
    conversation.prove()?;
    conversation.exchange(RELAY)?;
    browser.wait_until("document.querySelectorAll('#peers tbody tr').length === 50")?;
    ensure!(text(&mut browser, "#freshness")? == "Live");

    // The second page has the rest, without a script, too.
    browser.evaluate("document.querySelector('#peers nav [rel=next]').click()")?;
    browser.wait_until("document.querySelectorAll('#peers tbody tr').length === 10")?;
    let one = peers.address(7).to_string();
    // Peers come onto the fast path a moment after their proof.
    wait_until("the peer is on the fast path", SOON, || {
        browser.open(&format!("{PAGE}?prefix={one}&path=xdp#peers"))?;
        Ok(browser.evaluate("document.querySelector('#peers tbody') !== null")? == true)
    })?;
    let row = text(&mut browser, "#peers tbody")?;
    ensure!(
        row.starts_with(&one) && row.contains("20.0.2.1:10007"),
        "{row}"
    );
    // The traffic of the fast path is collected once a second.
    let both =
        r"/[1-9]\S*\sB\s[1-9]\S*\sB/.test(document.querySelector('#peers tbody')?.innerText)";
    browser.wait_until(both)?;
    browser.open(&format!("{PAGE}?endpoint=nonsense"))?;
    let refusal = text(&mut browser, "#peers .refusal")?;
    ensure!(refusal.contains("nonsense"), "{refusal}");

    // A condition appears with its remedy, and goes.
    browser.open(PAGE)?;
    scene.relay.ip(&format!("link set {IPV6_INTERFACE} down"))?;
    browser.wait_until("document.body.matches('.degraded, .down')")?;
    let conditions = relay.status()?.conditions;
    let condition = conditions.first().context("there is a condition")?;
    let shown = text(&mut browser, ".conditions li .what")?;
    ensure!(
        conditions
            .iter()
            .any(|other| other.text.replace('`', "") == shown),
        "{condition:?}: {shown}"
    );
    check_quiet(&browser)?;

    let mut command = std::process::Command::new(teredo_lab::teredo::binary()?);
    teredo_lab::process::output(command.args(["drain", "--config"]).arg(relay.file()))?;
    scene.relay.ip(&format!("link set {IPV6_INTERFACE} up"))?;
    browser.wait_until("/peers remain/.test(document.getElementById('daemon').innerText)")?;
    Ok(())
}

#[test]
fn everything_is_there_without_scripts() -> Result<()> {
    let scene = Scene::for_many_peers()?;
    let socket = Daemon::directory("web")?;
    let _relay = start(&scene, &socket)?;
    let mut browser = Browser::start(&scene.relay)?;
    browser.allow_scripts(false)?;
    browser.open(PAGE)?;
    for selector in [
        "#band h1",
        "#daemon",
        "#conditions",
        "#now dl",
        "#drops",
        "#fast-path table",
        "#peers form",
    ] {
        ensure!(!text(&mut browser, selector)?.is_empty(), "{selector}");
    }
    ensure!(text(&mut browser, "#freshness")?.contains("reload it"));
    let explain = browser.evaluate("document.getElementById('explain').hidden")?;
    ensure!(explain == true, "a box that cannot answer is there");
    check_quiet(&browser)
}

#[test]
fn the_page_is_accessible() -> Result<()> {
    let scene = Scene::for_many_peers()?;
    let socket = Daemon::directory("web")?;
    let _relay = start(&scene, &socket)?;
    let mut browser = Browser::start(&scene.relay)?;
    for (width, is_dark) in [(1280, false), (1280, true), (360, false), (360, true)] {
        browser.look(width, is_dark)?;
        browser.open(PAGE)?;
        browser.wait_until("!document.getElementById('explain').hidden")?;
        // All parts are looked at, and the band in all of its states.
        browser
            .evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")?;
        for state in ["ok", "starting", "draining", "degraded", "down"] {
            let class = format!("document.getElementById('band').className = 'band {state}'");
            browser.evaluate(&class)?;
            let poor = browser.evaluate(contrast::SCRIPT)?;
            ensure!(
                poor == serde_json::json!([]),
                "{width} {is_dark} {state}: {poor:#}"
            );
        }
        let overhang = "document.documentElement.scrollWidth - innerWidth";
        let overhang = browser.evaluate(overhang)?.as_f64().unwrap_or(f64::MAX);
        ensure!(
            overhang <= 0.0,
            "the page is {overhang} px wider than {width}"
        );
    }
    // What is reached by the keyboard comes in the order of the page, is seen, and has a name.
    let wanted = browser.evaluate(
        "[...document.querySelectorAll('a, button, input, select, summary, [tabindex]')]
            .filter(part => part.checkVisibility()).length",
    )?;
    let wanted = wanted.as_u64().context("a number")?;
    ensure!(wanted > 10, "{wanted}");
    browser.evaluate("document.activeElement.blur()")?;
    let mut reached = Vec::new();
    for _ in 0..wanted {
        browser.press_tab(false)?;
        let found = browser.evaluate(contrast::FOCUSED)?;
        ensure!(found["isSeen"] == true, "{found}");
        ensure!(found["name"] != "", "{found}");
        reached.push(found["place"].as_u64().context("it is on the page")?);
    }
    let mut sorted = reached.clone();
    sorted.sort_unstable();
    sorted.dedup();
    ensure!(reached == sorted, "{reached:?}");
    let tables = "[...document.querySelectorAll('table')]
        .every(table => table.querySelector('th[scope]'))";
    ensure!(browser.evaluate(tables)? == true, "a table has no headers");
    let pictures = "[...document.querySelectorAll('svg[role=img]')]
        .every(picture => picture.querySelector('title, desc'))";
    ensure!(browser.evaluate(pictures)? == true, "a graph has no words");
    check_quiet(&browser)
}

/// Asks in the box of the page, and returns what it shows.
fn explain(browser: &mut Browser, subject: &str) -> Result<String> {
    browser.evaluate(&format!(
        "document.getElementById('explanation').replaceChildren();
        document.getElementById('subject').value = {subject:?};
        document.querySelector('#question button').click()"
    ))?;
    browser.wait_until("document.getElementById('explanation').childElementCount > 0")?;
    text(browser, "#explanation")
}

#[test]
fn the_daemon_explains_what_is_asked_in_the_box() -> Result<()> {
    let scene = Scene::for_many_peers()?;
    let socket = Daemon::directory("web")?;
    let _relay = start(&scene, &socket)?;
    let namespace = scene.add_ipv4_host("peers", PEERS)?;
    let peers = Peers::open(&namespace, SERVER, PEERS, 10_000, 2)?;
    let conversation = Conversation::new(scene.host(), &peers)?;
    conversation.open(RELAY)?;
    conversation.prove()?;
    let mut browser = Browser::start(&scene.relay)?;
    browser.look(1280, false)?;
    browser.open(PAGE)?;

    let peer = peers.address(1).to_string();
    let told = explain(&mut browser, &peer)?;
    for part in ["✓ ok", "subject", "fast path", "20.0.2.1:10001", "trusted"] {
        ensure!(told.contains(part), "{part}: {told}");
    }
    ensure!(!told.contains("undefined"), "{told}");
    let poor = browser.evaluate(contrast::SCRIPT)?;
    ensure!(poor == serde_json::json!([]), "{poor:#}");

    // Spaces between the digits are those of a hex dump. The packet goes to another Teredo client.
    let packet = format!(
        "60 00 00 00 00 08 11 40 {} {} 10 00 20 00 00 08 ab cd",
        hexadecimal(scene.host().address),
        hexadecimal(peers.address(0))
    );
    let told = explain(&mut browser, &packet)?;
    ensure!(told.contains(&peers.address(0).to_string()), "{told}");
    ensure!(told.contains("goes to 20.0.2.1:10000 at once"), "{told}");

    scene.relay.ip(&format!("link set {IPV6_INTERFACE} down"))?;
    browser.wait_until("document.body.matches('.degraded, .down')")?;
    let told = explain(&mut browser, &scene.host().address.to_string())?;
    ensure!(told.contains("✕ fault"), "{told}");
    let poor = browser.evaluate(contrast::SCRIPT)?;
    ensure!(poor == serde_json::json!([]), "{poor:#}");
    check_quiet(&browser)?;

    // Of which the browser complains, too.
    let told = explain(&mut browser, "nonsense")?;
    ensure!(told.contains("nonsense"), "{told}");
    ensure!(text(&mut browser, "#explanation .refusal")? == told);
    Ok(())
}

/// Returns the octets of an address, as a hex dump has them.
fn hexadecimal(address: Ipv6Addr) -> String {
    let octets = address.octets().map(|octet| format!("{octet:02x}"));
    octets.join(" ")
}

/// The script shows what the daemon answers, whatever that is, as text.
#[test]
fn explanations_are_shown_as_text() -> Result<()> {
    let scene = Scene::for_many_peers()?;
    let socket = Daemon::directory("web")?;
    let _relay = start(&scene, &socket)?;
    let mut browser = Browser::start(&scene.relay)?;
    browser.open(PAGE)?;
    browser.wait_until("!document.getElementById('explain').hidden")?;
    // In the place of the daemon, which tells nothing of this kind.
    let answer = |browser: &mut Browser, status: u16, body: &Value| {
        let body = body.to_string();
        browser.evaluate(&format!(
            "(() => {{
                globalThis.original ??= fetch;
                globalThis.fetch = (to, options) => to === '/v1/explain'
                    ? Promise.resolve(new Response({body:?}, {{ status: {status} }}))
                    : original(to, options);
            }})()"
        ))
    };
    let explanation = serde_json::json!({
        "steps": [{ "stage": "peer", "finding": "fault", "text": "<b id=\"evil\">trusted</b>" }],
        "cause": "<i>Nothing</i> arrives",
    });
    answer(&mut browser, 200, &explanation)?;
    let told = explain(&mut browser, "2001:0:1400:1::1")?;
    for part in ["<i>Nothing</i> arrives", "<b id=\"evil\">trusted</b>"] {
        ensure!(told.contains(part), "{part}: {told}");
    }
    ensure!(
        browser
            .evaluate("document.getElementById('evil')")?
            .is_null()
    );
    // A daemon of an earlier release cannot explain.
    answer(&mut browser, 404, &Value::Null)?;
    browser.evaluate("document.querySelector('#question button').click()")?;
    browser.wait_until("document.getElementById('explain').hidden")?;
    check_quiet(&browser)
}

/// Sends a request and returns the whole answer.
fn ask(scene: &Scene, to: &str, request: &str) -> Result<String> {
    let to: SocketAddr = to.parse()?;
    scene.relay.run(|| {
        let mut stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })?
}

#[test]
fn pages_of_others_get_nothing() -> Result<()> {
    let scene = Scene::for_many_peers()?;
    let socket = Daemon::directory("web")?;
    let _relay = start(&scene, &socket)?;
    let get = |headers: &str| {
        let request = format!("GET / HTTP/1.1\r\n{headers}\r\n\r\n");
        ask(&scene, "127.0.0.1:9580", &request)
    };
    let own = get("Host: 127.0.0.1:9580")?;
    ensure!(own.starts_with("HTTP/1.1 200"), "{own}");
    let lower = own.to_lowercase();
    for header in [
        "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'",
        "frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "x-frame-options: deny",
        "referrer-policy: no-referrer",
        "cross-origin-resource-policy: same-origin",
        "cache-control: no-store",
    ] {
        ensure!(lower.contains(header), "{header}: {own}");
    }
    for headers in [
        "Host: rebind.example",
        "Host: 127.0.0.1:9580\r\nOrigin: http://127.0.0.1:3000",
        "Host: 127.0.0.1:9580\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors",
    ] {
        let answer = get(headers)?;
        ensure!(answer.starts_with("HTTP/1.1 403"), "{headers}: {answer}");
    }
    Ok(())
}

#[test]
fn other_hosts_present_the_token() -> Result<()> {
    const DIGITS: &str = "4f1c9e0a7b6d5c3e2f10a9b8c7d6e5f4";

    let scene = Scene::for_many_peers()?;
    let socket = Daemon::directory("web")?;
    let token = socket.path().join("token");
    fs::write(&token, DIGITS)?;
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600))?;
    let outside = format!("{}:9580", RELAY.ip());
    let unix = format!("unix:{}", socket.path().join("api").display());
    let config = scene.relay_config();
    let config = config.set("node.api", vec![unix, format!("tcp:{outside}")]);
    let mut refused = Teredo::start_unready(&scene.relay, &config)?;
    let status = refused.daemon.wait(SOON)?;
    let log = refused.daemon.log();
    ensure!(
        !status.success() && log.contains("node.api-token-file"),
        "{log}"
    );

    let config = config.set("node.api-token-file", token.display().to_string());
    let _relay = scene.start_relay(&config)?;
    let get = |header: &str| {
        let request = format!("GET /v1/history HTTP/1.1\r\nHost: {outside}\r\n{header}\r\n");
        ask(&scene, &outside, &request)
    };
    for header in ["", "Authorization: Bearer 00\r\n"] {
        let answer = get(header)?;
        ensure!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        ensure!(
            answer.to_lowercase().contains("www-authenticate: bearer"),
            "{answer}"
        );
    }
    let answer = get(&format!("Authorization: Bearer {DIGITS}\r\n"))?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let body = answer.split_once("\r\n\r\n").context("a body")?.1;
    let history: Value = serde_json::from_str(body).with_context(|| body.to_owned())?;
    ensure!(history["interval_seconds"] == 10, "{history}");
    Ok(())
}

#[test]
fn the_history_grows_by_what_was_forwarded() -> Result<()> {
    let scene = Scene::for_many_peers()?;
    let socket = Daemon::directory("web")?;
    let _relay = start(&scene, &socket)?;
    let history = || -> Result<Value> {
        let request = "GET /v1/history HTTP/1.0\r\n\r\n";
        let answer = ask(&scene, "127.0.0.1:9580", request)?;
        let body = answer.split_once("\r\n\r\n").context("a body")?.1;
        Ok(serde_json::from_str(body)?)
    };
    let namespace = scene.add_ipv4_host("peers", PEERS)?;
    let peers = Peers::open(&namespace, SERVER, PEERS, 10_000, 10)?;
    let conversation = Conversation::new(scene.host(), &peers)?;
    conversation.open(RELAY)?;
    conversation.prove()?;
    wait_until("an interval has the packets", 3 * SOON, || {
        conversation.exchange(RELAY)?;
        let history = history()?;
        let intervals = history["intervals"].as_array().context("a list")?;
        Ok(intervals.iter().any(|past| {
            let packets = &past["packets"]["decap"];
            let forwarded = packets["xdp"].as_u64().zip(packets["userspace"].as_u64());
            forwarded.is_some_and(|(xdp, userspace)| xdp + userspace > 0)
                && past["peers"]["trusted"] == 10
        }))
    })?;
    let mut browser = Browser::start(&scene.relay)?;
    browser.open(PAGE)?;
    let words = text(&mut browser, "#graph-encap .legend")?;
    ensure!(
        words.contains("fast path") && words.contains("daemon"),
        "{words}"
    );
    let areas = "[...document.querySelectorAll('#graph-decap .area')]
        .some(area => area.getBBox().height > 1)";
    ensure!(browser.evaluate(areas)? == true, "the graph is flat");
    let poor = browser.evaluate(contrast::SCRIPT)?;
    ensure!(poor == serde_json::json!([]), "{poor:#}");
    check_quiet(&browser)
}
