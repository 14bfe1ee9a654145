//! Rates and draining.

use super::*;

/// So many tokens, of which none comes back meanwhile.
const fn tokens_only(count: u64) -> Rate {
    const HOUR: u64 = 3_600_000_000_000;
    Rate {
        interval: HOUR,
        tolerance: HOUR * (count - 1),
    }
}

#[test]
fn s23_limits_are_shared_with_the_daemon() -> Result<()> {
    let mut config = config();
    config.limits.source = tokens_only(3);
    config.limits.network = tokens_only(5);
    config.limits.total = tokens_only(7);
    let limits = config.limits;
    let mut fixture = fixture(&setup(config))?;
    let mut run = |from: &str| {
        let packet = frame(from, PRIMARY, &plain());
        anyhow::Ok(fixture.run(Port::Wan, &packet)?.verdict)
    };
    let sources = [
        "9.0.0.1:1",
        "9.0.0.1:2",
        "9.0.0.1:3",
        "9.0.0.2:1",
        "9.0.0.2:1",
    ];
    for source in sources {
        assert_eq!(run(source)?, RespondAdvertised);
    }
    assert_eq!(run("9.0.0.1:1")?, RespondSourceLimit);
    assert_eq!(run("9.0.0.2:1")?, RespondNetworkLimit);
    assert_eq!(run("9.0.1.1:1")?, RespondAdvertised);
    assert_eq!(run("9.0.1.2:1")?, RespondAdvertised);
    assert_eq!(run("9.0.2.1:1")?, RespondTotalLimit);
    // Refused packets have cost no token, and the daemon sees all tokens that were taken.
    let buckets = fixture.program.limits()?.expect("there is a server");
    let tokens = |slot: u32, rate: Rate| {
        let bucket = buckets.as_ref()[slot as usize].load(std::sync::atomic::Ordering::Relaxed);
        let second = rate.interval;
        bucket.saturating_sub(now().as_nanos()).div_ceil(second)
    };
    assert_eq!(tokens(limits.source_slot([9, 0, 0, 1]), limits.source), 3);
    assert_eq!(tokens(limits.source_slot([9, 0, 0, 2]), limits.source), 2);
    assert_eq!(tokens(limits.source_slot([9, 0, 2, 1]), limits.source), 0);
    assert_eq!(tokens(limits.network_slot([9, 0, 0, 7]), limits.network), 5);
    Ok(())
}

#[test]
fn s23_the_total_is_taken_in_chunks_and_to_the_last_token() -> Result<()> {
    let mut config = config();
    config.limits.total = tokens_only(100);
    let mut fixture = fixture(&setup(config))?;
    let packet = frame(CLIENT, PRIMARY, &plain());
    let mut answered = 0;
    while fixture.run(Port::Wan, &packet)?.verdict == RespondAdvertised {
        answered += 1;
    }
    assert!((100..105).contains(&answered), "{answered}");
    Ok(())
}

#[test]
fn s27_draining() -> Result<()> {
    let mut fixture = fixture(&setup(config()))?;
    let bubble = bubble(CLIENT_ADDRESS, OTHER_ADDRESS);
    let end = now() + std::time::Duration::from_secs(60);
    for (end, solicited, forwarded) in [
        (Some(end), RespondDraining, RespondForwarded),
        // Long ago, even on a clock that lags behind by a tick.
        (
            Some(Instant::from_nanos(1)),
            RespondDraining,
            RespondDraining,
        ),
        (None, RespondAdvertised, RespondForwarded),
    ] {
        fixture.program.set_draining(end)?;
        assert_eq!(show(&mut fixture, PRIMARY, &plain())?.verdict, solicited);
        assert_eq!(show(&mut fixture, PRIMARY, &bubble)?.verdict, forwarded);
    }
    Ok(())
}
