//! The commands that docs/install.md gives an operator, as they are printed there.

use anyhow::{Result, ensure};

/// The guide.
const PAGE: &str = include_str!("../../../../docs/install.md");
/// Programs that operators call. Other words in the guide's code are names, keys and files.
const PROGRAMS: [&str; 9] = [
    "apt",
    "cp",
    "install",
    "ip",
    "mkdir",
    "ping",
    "sysctl",
    "systemctl",
    "teredo",
];

/// The parts of the walk, each a list of commands.
#[derive(Debug)]
pub struct Walk {
    /// From the package to the first relayed packet.
    pub to_first_packet: Vec<String>,
    /// To the next version.
    pub upgrade: String,
    /// Back to this version.
    pub roll_back: String,
    /// The end, without and with the configuration.
    pub remove: String,
    /// The end of everything.
    pub purge: String,
}

impl Walk {
    /// Reads the guide.
    pub fn new() -> Result<Self> {
        let [upgrade, roll_back] = apt("## Upgrade and roll back")?;
        let [remove, purge] = apt("## Uninstall")?;
        let mut to_first_packet = commands(PAGE, "### Debian and Ubuntu");
        to_first_packet.extend(commands(PAGE, "## Relay"));
        Ok(Self {
            to_first_packet,
            upgrade,
            roll_back,
            remove,
            purge,
        })
    }
}

/// The version in the name of a package that a command installs.
pub fn version(command: &str) -> Option<&str> {
    let (_, rest) = command.split_once("/teredo_")?;
    Some(rest.split_once('_')?.0)
}

/// The two commands of apt in a section.
fn apt(heading: &str) -> Result<[String; 2]> {
    let mut all = commands(PAGE, heading);
    all.retain(|command| command.starts_with("apt "));
    let number = all.len();
    let two = <[String; 2]>::try_from(all);
    ensure!(
        two.is_ok(),
        "docs/install.md has {number} commands of apt in {heading:?} instead of two"
    );
    Ok(two.unwrap_or_default())
}

/// The commands of a section, in the order of the page: lines of its blocks of code, and code within text.
fn commands(page: &str, heading: &str) -> Vec<String> {
    let lines = page.lines().skip_while(|line| *line != heading).skip(1);
    let mut commands = Vec::new();
    let mut is_block = false;
    // A span of code may go over two lines.
    let mut text = String::new();
    for line in lines {
        if !is_block && is_heading(line) {
            break;
        }
        if line.trim_start().starts_with("```") {
            commands.extend(spans(&text));
            text.clear();
            is_block = !is_block;
        } else if is_block {
            let line = line.split("  #").next().unwrap_or_default().trim();
            commands.push(line.to_owned());
        } else {
            text.push_str(line.trim());
            text.push(' ');
        }
    }
    commands.extend(spans(&text));
    commands.retain(|command| is_command(command));
    commands
}

/// The code within text.
fn spans(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned)
}

fn is_heading(line: &str) -> bool {
    let rest = line.trim_start_matches('#');
    rest.len() < line.len() && rest.starts_with(' ')
}

fn is_command(text: &str) -> bool {
    let mut words = text.split_whitespace();
    words.next().is_some_and(|word| PROGRAMS.contains(&word)) && words.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The script in the machine has to know what each of these promises. Whoever changes the guide looks at
    /// `guest/system/walk.sh`, too.
    #[test]
    fn the_walk_is_the_one_that_the_script_judges() {
        let walk = Walk::new().unwrap();
        assert_eq!(
            walk.to_first_packet,
            [
                "apt install ./teredo_0.1.0_amd64.deb",
                "cp /usr/share/doc/teredo/examples/relay.toml /etc/teredo/teredo.toml",
                "cp /usr/share/doc/teredo/examples/90-teredo.conf /etc/sysctl.d/",
                "sysctl --system",
                "teredo check",
                "systemctl enable --now teredo",
                "teredo status",
                "teredo status",
                "ip -6 route add 2001::/32 via ADDRESS-OF-THE-RELAY",
                "ping -c 3 ADDRESS-OF-THE-CLIENT",
                "teredo peers",
                "teredo status",
            ]
        );
        assert_eq!(walk.upgrade, "apt install ./teredo_0.2.0_amd64.deb");
        let back = "apt install --allow-downgrades ./teredo_0.1.0_amd64.deb";
        assert_eq!(walk.roll_back, back);
        assert_eq!(version(back), Some("0.1.0"));
        assert_eq!(version(&walk.remove), None);
        assert_eq!(walk.remove, "apt remove teredo");
        assert_eq!(walk.purge, "apt purge teredo");
    }

    #[test]
    fn commands_are_lines_of_blocks_and_code_within_text() {
        let page = "## One\nCall `teredo\ncheck` as user `teredo`:\n```\ncp a b     # why\ndnf b\n```\n\
                    then `ping -c 3 HOST`\n   ```\n   ip route\n# no heading\n   ```\n## Two\n`apt update`\n";
        let expected = ["teredo check", "cp a b", "ping -c 3 HOST", "ip route"];
        assert_eq!(commands(page, "## One"), expected);
        assert_eq!(commands(page, "## Two"), ["apt update"]);
        assert!(commands(page, "## Three").is_empty());
    }
}
