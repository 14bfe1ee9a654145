//! The table of keys, and their documentation.

use super::*;

/// The operator's guide.
const DOCUMENTATION: &str = include_str!("../../../../docs/configuration.md");

#[test]
fn defaults_are_those_of_the_documentation() {
    let (_, rest) = DOCUMENTATION
        .split_once("Every key with its default")
        .unwrap();
    // A client is in no file with the others.
    let mut blocks = rest.split("```toml\n").skip(1);
    let mut next = || blocks.next().unwrap().split_once("```").unwrap().0;
    let (others, client) = (next(), next());
    let expected = Config {
        client: None,
        ..everything()
    };
    assert_eq!(parse(others).unwrap(), expected);
    let expected = Config {
        client: Some(client_alone()),
        ..Config::default()
    };
    assert_eq!(parse(client).unwrap(), expected);
    assert_eq!(parse(CLIENT_ALONE).unwrap(), expected);
    let (mut there, mut all) = (BTreeSet::new(), BTreeSet::new());
    for block in [others, client] {
        collect("", &block.parse().unwrap(), &mut there);
    }
    collect("", &everything().to_toml().parse().unwrap(), &mut all);
    assert_eq!(there, all);
    assert_eq!(parse("[relay]").unwrap(), relay_alone());
    assert_eq!(parse("[relay.xdp]").unwrap(), relay_alone());
    let server = "[server]\nipv4 = [\"198.51.100.1\", \"198.51.100.2\"]\n[[server.client]]\n\
                  id = \"alice\"\nsecret-file = \"/etc/teredo/alice.key\"";
    let expected = Config {
        relay: None,
        client: None,
        ..everything()
    };
    assert_eq!(parse(server).unwrap(), expected);
}

#[test]
fn the_shortest_files_of_the_documentation_are_complete() {
    for (block, _) in DOCUMENTATION
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("```"))
    {
        assert!(parse(block).is_ok(), "{block}");
    }
}

#[test]
fn the_examples_of_packages_are_complete() {
    for text in [
        include_str!("../../../../packaging/examples/relay.toml"),
        include_str!("../../../../packaging/examples/server.toml"),
        include_str!("../../../../packaging/examples/client.toml"),
    ] {
        assert!(parse(text).is_ok(), "{text}");
    }
}

#[test]
fn the_table_of_keys_is_complete() {
    let mut there = BTreeSet::new();
    collect("", &everything().to_toml().parse().unwrap(), &mut there);
    let listed: BTreeSet<_> = keys::KEYS
        .iter()
        .map(|key| format!("{}.{}", key.section, key.name))
        .collect();
    assert_eq!(there, listed);
}

fn collect(section: &str, table: &toml::Table, keys: &mut BTreeSet<String>) {
    for (name, value) in table {
        let path = format!("{section}{name}");
        match value {
            toml::Value::Table(table) => collect(&format!("{path}."), table, keys),
            toml::Value::Array(list) if keys::REPEATED.contains(&&*path) => {
                for table in list {
                    collect(&format!("{path}."), table.as_table().unwrap(), keys);
                }
            }
            _ => drop(keys.insert(path)),
        }
    }
}

#[test]
fn the_effect_of_a_reload_is_documented_for_every_key() {
    let (_, rest) = DOCUMENTATION
        .split_once("## Changing a running daemon\n")
        .unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    let mut documented: Vec<_> = cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    documented.sort_unstable();
    let mut keys: Vec<_> = (keys::KEYS.iter())
        .map(|key| format!("{}.{}", key.section, key.name))
        .collect();
    keys.sort_unstable();
    assert_eq!(documented, keys);
}

#[test]
fn every_key_is_documented_with_its_default_and_no_other() {
    let defaults: toml::Table = everything().to_toml().parse().unwrap();
    for section in keys::SECTIONS {
        let heading = if keys::REPEATED.contains(section) {
            format!("## `[[{section}]]`\n")
        } else {
            format!("## `[{section}]`\n")
        };
        let (_, rest) = DOCUMENTATION.split_once(&heading).expect(section);
        let rest = rest.split("\n## ").next().unwrap();
        let rows: Vec<(&str, &str)> = rest
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
            .collect();
        let documented: Vec<_> = rows.iter().map(|(name, _)| *name).collect();
        let keys: Vec<_> = keys::KEYS
            .iter()
            .filter(|key| key.section == *section)
            .map(|key| key.name)
            .collect();
        assert_eq!(documented, keys, "{section}");
        let values = section
            .split('.')
            .fold(&defaults, |table, name| match &table[name] {
                toml::Value::Array(tables) => tables[0].as_table().unwrap(),
                value => value.as_table().unwrap(),
            });
        for (name, rest) in rows {
            if rest.starts_with("required |") {
                assert!(
                    keys::REQUIRED.contains(&(section, name)),
                    "{section}.{name}"
                );
                continue;
            }
            let default = rest.split('`').nth(1).unwrap().replace("NAME", "teredo");
            let default: toml::Value = default.parse().expect(name);
            assert_eq!(default, values[name], "{section}.{name}");
        }
    }
}
