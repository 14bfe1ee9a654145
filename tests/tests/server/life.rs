//! Draining, crashes and stops.

use super::*;

/// A server that drains answers no solicitation, and forwards the bubbles that its clients need
/// (S-27).
#[test]
fn s27_a_drained_server_only_forwards() -> Result<()> {
    for mode in ["native", "off"] {
        let scene = scene(Place::Alone)?;
        let server = start_in(&scene, mode)?;
        let _relay = scene.start_relay(&scene.relay_config())?;
        let client = scene.start_miredo_client()?;
        let (late, _namespace) = forged(&scene, 4096)?;
        late.qualify(SERVER, SERVER, CLIENT, SERVER)?;

        let output = drain(&server)?;
        ensure!(output.status.success(), "{output:?}");
        late.say(SERVER, &solicitation(CLIENT))?;
        // The relay's indirect bubble is sent after the solicitation and arrives.
        Ping::to(client.address()).all_from(&scene.host().namespace)?;
        let own = teredo_address(SERVER, late.mapped());
        let bubble = bubble(CLIENT, own);
        let (answer, from) = late.ask(SERVER, &bubble)?;
        ensure!(
            answer == [&origin(late.mapped())[..], &bubble].concat(),
            "{mode}: {answer:02x?} from {from}"
        );
    }
    Ok(())
}

fn drain(server: &Teredo) -> Result<Output> {
    let mut command = std::process::Command::new(binary()?);
    Ok(command
        .args(["drain", "--config"])
        .arg(server.file())
        .output()?)
}

/// The fast path of a killed server keeps answering until the restart.
#[test]
fn a_crash_is_not_noticed_and_a_stop_is_clean() -> Result<()> {
    let scene = scene(Place::Alone)?;
    let (client, _namespace) = forged(&scene, 4096)?;
    let namespace = scene.server_namespace();
    let before = scene.state_of(namespace)?;
    for mode in ["native", "generic", "off"] {
        let mut server = start_in(&scene, mode)?;
        ensure!(
            mode == "off" || scene.state_of(namespace)? != before,
            "the state does not show the daemon"
        );
        client.qualify(SERVER, SERVER, CLIENT, SERVER)?;
        server.daemon.kill()?;
        if mode == "off" {
            let answer = client.ask(SERVER, &solicitation(CLIENT));
            ensure!(
                answer.is_err(),
                "the solicitation was answered without a server"
            );
        } else {
            client.qualify(SERVER, SERVER, CONE_CLIENT, SECONDARY)?;
        }
        server.start_again(namespace)?;
        client.qualify(SERVER, SERVER, CLIENT, SERVER)?;
        server.restart(namespace)?;
        client.qualify(SERVER, SERVER, CLIENT, SERVER)?;
        let status = server.daemon.terminate()?;
        ensure!(status.success(), "{mode}: it ended with {status}");
        assert_eq!(scene.state_of(namespace)?, before, "{mode}");
    }
    Ok(())
}
