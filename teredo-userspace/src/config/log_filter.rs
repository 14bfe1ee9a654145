//! The filter of the log: directives with commas between them, each a level, a target, or `TARGET=LEVEL`,
//! as for other programs that use `tracing`. There are no directives for spans, of which this program has none.

use std::str::FromStr as _;

use thiserror::Error;
use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};

/// The targets of this program: the modules that log, and the XDP program, which is called
/// "teredo". A test compares them with the sources.
const TARGETS: &[&str] = &[
    "teredo",
    "teredo::cli::run",
    "teredo::datapath::napi",
    "teredo::datapath::sysfs",
    "teredo::datapath::tun",
    "teredo::datapath::tun::offloads",
    "teredo::datapath::tun::steering",
    "teredo::datapath::udp",
    "teredo::datapath::udp::segmentation",
    "teredo::datapath::watch",
    "teredo::datapath::xdp",
    "teredo::datapath::xdp::capture::attachment",
    "teredo::datapath::xdp::fallback",
    "teredo::datapath::xdp::pins",
    "teredo::datapath::xdp::remains",
    "teredo::datapath::xdp::tags",
    "teredo::handover::inheritance",
    "teredo::handover::state",
    "teredo::handover::successor",
    "teredo::node",
    "teredo::node::calendar",
    "teredo::node::client",
    "teredo::node::client::port_mapping",
    "teredo::node::client::port_mapping::search",
    "teredo::node::client::record",
    "teredo::node::fast_path",
    "teredo::node::fast_path::looks",
    "teredo::node::fast_path::peers",
    "teredo::node::fast_path::traffic",
    "teredo::node::fleet",
    "teredo::node::handover",
    "teredo::node::host",
    "teredo::node::keeper",
    "teredo::node::port",
    "teredo::node::relay",
    "teredo::node::relay::threads",
    "teredo::node::server",
    "teredo::node::start",
    "teredo::node::tunnel",
    "teredo::node::upkeep",
    "teredo::privileges",
    "teredo::privileges::capabilities",
    "teredo::privileges::places",
    "teredo::privileges::sandbox",
];
/// The crate of all targets.
const CRATE: &str = "teredo";
/// The levels, with words that stand for them elsewhere.
const LEVELS: &[(&str, &[&str])] = &[
    ("off", &["none", "quiet", "silent", "disabled", "no"]),
    (
        "error",
        &[
            "err",
            "fatal",
            "crit",
            "critical",
            "alert",
            "emerg",
            "emergency",
            "severe",
            "panic",
        ],
    ),
    ("warn", &["warning", "warnings"]),
    (
        "info",
        &[
            "information",
            "informational",
            "notice",
            "normal",
            "default",
            "on",
        ],
    ),
    ("debug", &["verbose", "fine", "dbg", "debugging"]),
    (
        "trace",
        &["all", "everything", "finest", "max", "silly", "tracing"],
    ),
];
/// The likeness from which on a word is a misspelt level or target, 0 to 1.
const LIKENESS: f64 = 0.5;

/// The reason why a filter is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LogFilterError {
    /// There is no directive.
    #[error("it is empty (did you mean \"info\"?)")]
    Empty,
    /// A level that does not exist.
    #[error("unknown level \"{level}\" (did you mean \"{nearest}\"?)")]
    Level {
        /// The word.
        level: String,
        /// The nearest level.
        nearest: &'static str,
    },
    /// A word that is nothing, and nothing else lets anything of this program through.
    #[error("\"{word}\" is neither a level nor a part of teredo (did you mean \"{nearest}\"?)")]
    Word {
        /// The word.
        word: String,
        /// The nearest level.
        nearest: &'static str,
    },
    /// A target of this program that does not exist.
    #[error("no part of teredo logs as \"{target}\" (did you mean \"{nearest}\"?)")]
    Target {
        /// The target.
        target: String,
        /// The nearest target.
        nearest: String,
    },
    /// Nothing of this program would be logged.
    #[error("it silences teredo, errors included (did you mean \"{nearest}\"?)")]
    Silent {
        /// The nearest filter that lets something through.
        nearest: String,
    },
    /// A directive for spans.
    #[error(
        "\"{0}\" is for spans, which teredo does not have: write a level, a target, or TARGET=LEVEL"
    )]
    Span(String),
    /// A directive with more than one level.
    #[error("\"{0}\" has more than one level")]
    Levels(String),
}

/// A part of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Directive<'a> {
    /// The target; empty: every target.
    target: &'a str,
    level: LevelFilter,
    /// Whether the directive is a target alone.
    is_bare: bool,
}

/// Checks that a filter is valid, and lets something of this program through.
pub fn check(filter: &str) -> Result<(), LogFilterError> {
    parse(filter).map(drop)
}

/// Parses a filter that lets something of this program through.
pub fn parse(filter: &str) -> Result<Targets, LogFilterError> {
    let directives: Vec<_> = split(filter)
        .map(Directive::parse)
        .collect::<Result<_, _>>()?;
    if directives.is_empty() {
        return Err(LogFilterError::Empty);
    }
    let targets = directives
        .iter()
        .fold(Targets::new(), |targets, one| match one.target {
            "" => targets.with_default(one.level),
            target => targets.with_target(target, one.level),
        });
    match is_silent(&targets) {
        true => Err(explain_silence(filter, &directives)),
        false => Ok(targets),
    }
}

fn explain_silence(filter: &str, directives: &[Directive<'_>]) -> LogFilterError {
    let is_word = |one: &&Directive<'_>| one.is_bare && !one.target.contains([':', '_']);
    if let Some(one) = directives.iter().find(is_word) {
        return LogFilterError::Word {
            word: one.target.to_owned(),
            nearest: nearest_level(one.target),
        };
    }
    let is_off = directives.iter().any(|one| one.level == LevelFilter::OFF);
    let nearest = match is_off {
        true => "error".to_owned(),
        false => format!("info,{filter}"),
    };
    LogFilterError::Silent { nearest }
}

/// Whether no target of this program may log even errors.
fn is_silent(targets: &Targets) -> bool {
    !TARGETS
        .iter()
        .any(|target| targets.would_enable(target, &Level::ERROR))
}

/// Splits a filter into its directives.
fn split(filter: &str) -> impl Iterator<Item = &str> {
    filter
        .split(',')
        .map(str::trim)
        .filter(|one| !one.is_empty())
}

impl<'a> Directive<'a> {
    fn parse(text: &'a str) -> Result<Self, LogFilterError> {
        if text.contains(['[', ']', '{', '}']) {
            return Err(LogFilterError::Span(text.to_owned()));
        }
        let (target, level) = match text.split_once('=') {
            Some((_, level)) if level.contains('=') => {
                return Err(LogFilterError::Levels(text.to_owned()));
            }
            Some((target, level)) => (target, level_of(level).ok_or_else(|| unknown_level(level))?),
            None => match level_of(text) {
                Some(level) => ("", level),
                // A target without a level is logged completely.
                None => (text, LevelFilter::TRACE),
            },
        };
        let is_bare = target == text;
        check_target(target, is_bare)?;
        Ok(Self {
            target,
            level,
            is_bare,
        })
    }
}

/// Refuses a target that was meant to be a level, or one of this program. Those of libraries are
/// not known.
fn check_target(target: &str, is_bare: bool) -> Result<(), LogFilterError> {
    if TARGETS.iter().any(|known| known.starts_with(target)) {
        return Ok(());
    }
    let first = target.split("::").next().unwrap_or_default();
    if first.starts_with(CRATE) || likeness(first, CRATE) > LIKENESS {
        return Err(LogFilterError::Target {
            target: target.to_owned(),
            nearest: nearest_target(target).to_owned(),
        });
    }
    match similar_level(target).filter(|_| is_bare) {
        Some(_) => Err(unknown_level(target)),
        None => Ok(()),
    }
}

/// Returns the level of this name or number.
fn level_of(text: &str) -> Option<LevelFilter> {
    LevelFilter::from_str(text)
        .ok()
        .filter(|_| !text.is_empty())
}

fn unknown_level(level: &str) -> LogFilterError {
    LogFilterError::Level {
        level: level.to_owned(),
        nearest: nearest_level(level),
    }
}

/// Returns the level that is meant, or the usual one.
fn nearest_level(word: &str) -> &'static str {
    similar_level(word).unwrap_or("info")
}

/// Returns the level for which the word is a synonym, perhaps misspelt.
fn similar_level(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    let likeness_of = |&(level, synonyms): &(&'static str, &[&str])| {
        let names = [level].into_iter().chain(synonyms.iter().copied());
        let likeness = names.map(|name| likeness(name, &word));
        (likeness.fold(0.0, f64::max), level)
    };
    let nearest = LEVELS
        .iter()
        .map(likeness_of)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    nearest
        .filter(|&(likeness, _)| likeness > LIKENESS)
        .map(|(_, level)| level)
}

fn nearest_target(target: &str) -> &'static str {
    TARGETS
        .iter()
        .copied()
        .max_by(|a, b| likeness(a, target).total_cmp(&likeness(b, target)))
        .unwrap_or(CRATE)
}

fn likeness(one: &str, other: &str) -> f64 {
    strsim::normalized_damerau_levenshtein(one, other)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn filters_that_let_something_through() {
        for filter in [
            "info",
            "WARN",
            "error",
            "3",
            "trace,",
            "warn,teredo=debug",
            "off,teredo::node=info",
            "info,netlink_proto=error",
            "teredo",
            "teredo::node",
            "teredo::node=debug",
            "teredo::datapath::xdp::pins=trace",
            "hyper=debug,teredo::cli=info",
            "teredo=info,teredo::node=off",
        ] {
            assert_eq!(check(filter), Ok(()), "{filter}");
        }
    }

    #[test]
    fn unknown_levels_get_the_nearest() {
        for (filter, level, nearest) in [
            ("warning", "warning", "warn"),
            ("Warning", "Warning", "warn"),
            ("verbose", "verbose", "debug"),
            ("inof", "inof", "info"),
            ("debgu", "debgu", "debug"),
            ("notice", "notice", "info"),
            ("fatal", "fatal", "error"),
            ("all", "all", "trace"),
            ("none", "none", "off"),
            ("teredo=verbose", "verbose", "debug"),
            ("info,teredo::node=warning", "warning", "warn"),
            ("info,teredo=", "", "info"),
            ("teredo=xyzzy", "xyzzy", "info"),
            ("info,verbos", "verbos", "debug"),
        ] {
            let level = level.to_owned();
            assert_eq!(
                check(filter),
                Err(LogFilterError::Level { level, nearest }),
                "{filter}"
            );
        }
    }

    #[test]
    fn misspelt_targets_get_the_nearest() {
        for (filter, nearest) in [
            ("teredo::nodes=debug", "teredo::node"),
            ("info,teredo::nodes=debug", "teredo::node"),
            ("teredo::node::serfer=debug", "teredo::node::server"),
            ("teredo::node::clients", "teredo::node::client"),
            ("terredo=debug", "teredo"),
            ("teredod", "teredo"),
            ("teredo_node=info", "teredo::node"),
        ] {
            match check(filter) {
                Err(LogFilterError::Target { nearest: found, .. }) => {
                    assert_eq!(found, nearest, "{filter}");
                }
                other => panic!("{filter}: {other:?}"),
            }
        }
    }

    #[test]
    fn silence_gets_the_nearest_filter_that_is_none() {
        for (filter, nearest) in [
            ("off", "error"),
            ("OFF", "error"),
            ("0", "error"),
            ("teredo=off", "error"),
            ("off,hyper=debug", "error"),
            ("info,teredo=off", "error"),
            ("hyper=debug", "info,hyper=debug"),
            ("netlink_proto", "info,netlink_proto"),
        ] {
            let nearest = nearest.to_owned();
            assert_eq!(check(&nearest), Ok(()), "{nearest}");
            assert_eq!(check(filter), Err(LogFilterError::Silent { nearest }));
        }
        for (filter, nearest) in [("loud", "info"), ("hyper,mio", "info")] {
            match check(filter) {
                Err(LogFilterError::Word { nearest: found, .. }) => assert_eq!(found, nearest),
                other => panic!("{filter}: {other:?}"),
            }
        }
        for filter in ["", " ", ",", " , "] {
            assert_eq!(check(filter), Err(LogFilterError::Empty), "{filter:?}");
        }
    }

    #[test]
    fn directives_for_spans_are_refused() {
        for filter in [
            "[span]=debug",
            "info,[span{field=1}]=debug",
            "info,teredo[a=debug",
        ] {
            let refusal = check(filter).unwrap_err().to_string();
            assert!(
                refusal.contains("for spans, which teredo does not have"),
                "{refusal}"
            );
        }
        let refusal = check("info,teredo=info=debug").unwrap_err().to_string();
        assert_eq!(refusal, "\"teredo=info=debug\" has more than one level");
    }

    /// The modules that log are the targets.
    #[test]
    fn the_targets_are_those_in_the_sources() {
        let mut found = BTreeSet::from([CRATE.to_owned()]);
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        find_targets(&sources, &sources, &mut found);
        let known: BTreeSet<_> = TARGETS.iter().map(|&target| target.to_owned()).collect();
        assert_eq!(known, found, "adapt TARGETS");
    }

    fn find_targets(sources: &Path, folder: &Path, found: &mut BTreeSet<String>) {
        const MACROS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                find_targets(sources, &path, found);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let logs = |line: &str| {
                let code = line.trim_start();
                let code = code.rsplit("=> ").next().unwrap_or_default();
                let code = code.strip_prefix("tracing::").unwrap_or(code);
                MACROS.iter().any(|name| {
                    let rest = code.strip_prefix(name);
                    rest.is_some_and(|rest| rest.starts_with("!("))
                })
            };
            if text.lines().any(logs) {
                let module = path.strip_prefix(sources).unwrap().with_extension("");
                let parts = module.iter().map(|part| part.to_str().unwrap());
                let parts: Vec<_> = parts.filter(|&part| part != "mod").collect();
                found.insert(format!("{CRATE}::{}", parts.join("::")));
            }
        }
    }
}
