//! apt with a configuration of its own: its sources, lists and packages are not the host's.

use std::{
    cell::Cell,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    debian::Release,
    sources::Mirror,
    stanza::{self, Stanza},
};
use crate::shell;

/// Lists older than this are brought up to date.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);

/// A package of a certain version.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The octets of its file.
    pub size: u64,
}

/// The packages of one release of Debian.
#[derive(Debug)]
pub struct Apt {
    directory: PathBuf,
    codename: &'static str,
    /// Whether this process has tried to bring the lists up to date.
    is_updated: Cell<bool>,
}

impl Apt {
    /// Makes the configuration in `directory` and sees to lists that are not older than a day. Old
    /// lists are better than none.
    pub fn new(directory: PathBuf, mirror: &Mirror, release: &'static Release) -> Result<Self> {
        ensure!(
            shell::find("apt-get").is_some(),
            "vm: kernels and root file systems come from Debian through apt-get, which this host \
             does not have"
        );
        for name in ["lists/partial", "cache/archives/partial", "empty"] {
            fs::create_dir_all(directory.join(name))?;
        }
        // Nothing is installed where these packages go.
        fs::write(directory.join("status"), "")?;
        fs::write(directory.join("apt.conf"), configuration(&directory))?;
        let sources = sources(mirror, release);
        let apt = Self {
            directory,
            codename: release.codename,
            is_updated: Cell::new(false),
        };
        let file = apt.sources();
        // Another mirror has lists of its own.
        let is_same = fs::read_to_string(&file).is_ok_and(|text| text == sources);
        fs::write(file, sources)?;
        if !(is_same && apt.is_fresh()) {
            apt.update()?;
        }
        Ok(apt)
    }

    /// The file with the sources, in the deb822 format.
    pub fn sources(&self) -> PathBuf {
        self.directory.join("debian.sources")
    }

    fn is_fresh(&self) -> bool {
        let updated = fs::metadata(self.directory.join("updated"));
        updated
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|time| {
                SystemTime::now()
                    .duration_since(time)
                    .is_ok_and(|age| age < FRESH)
            })
    }

    /// Brings the lists up to date, unless this process has done so before. Returns whether there
    /// may be other packages now.
    pub fn renew(&self) -> Result<bool> {
        if self.is_updated.get() {
            return Ok(false);
        }
        self.update()?;
        Ok(true)
    }

    /// Brings the lists up to date.
    fn update(&self) -> Result<()> {
        self.is_updated.set(true);
        eprintln!("vm: updating the lists of {}'s packages", self.codename);
        let output = self.output(&mut self.command("apt-get", &["-q", "update"]))?;
        if output.status.success() {
            fs::write(self.directory.join("updated"), "")?;
            return Ok(());
        }
        let reason = reason(&output);
        let mut lists = fs::read_dir(self.directory.join("lists"))?.flatten();
        let has_lists =
            lists.any(|entry| entry.file_name().to_string_lossy().contains("_Packages"));
        ensure!(
            has_lists,
            "vm: the lists of {}'s packages cannot be had: {reason}",
            self.codename
        );
        eprintln!("vm: {reason}; going on with the lists that are there");
        Ok(())
    }

    /// A program of apt with this configuration.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .env("APT_CONFIG", self.directory.join("apt.conf"))
            .env("LC_ALL", "C")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(arguments);
        command
    }

    fn output(&self, command: &mut Command) -> Result<Output> {
        command
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("{}: cannot be started", shell::line(command)))
    }

    /// The fields of the version of a package that would be installed, if there is one. `from`
    /// names a suite that comes before the others.
    pub fn show(&self, package: &str, from: Option<&str>) -> Result<Option<Stanza>> {
        let mut command = self.command("apt-cache", &["show", "--no-all-versions", package]);
        if let Some(suite) = from {
            command.arg(format!("--option=APT::Default-Release={suite}"));
        }
        let output = self.output(&mut command)?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(stanza::parse(&text).into_iter().next())
    }

    /// Downloads packages into a directory.
    pub fn download(&self, packages: &[Package], directory: &Path) -> Result<()> {
        let names = packages
            .iter()
            .map(|package| format!("{} {}", package.name, package.version));
        announce(
            &names.collect::<Vec<_>>().join(", "),
            packages.iter().map(|package| package.size).sum(),
        );
        let mut command = self.command("apt-get", &["-q", "download"]);
        command.current_dir(directory).args(
            packages
                .iter()
                .map(|package| format!("{}={}", package.name, package.version)),
        );
        let output = self.output(&mut command)?;
        if !output.status.success() {
            bail!(
                "vm: {} cannot be downloaded: {}",
                packages[0].name,
                reason(&output)
            );
        }
        Ok(())
    }

    /// Downloads packages that this host lacks, with all that they depend on, into a directory.
    pub fn download_missing(&self, packages: &[&str], directory: &Path) -> Result<()> {
        fs::create_dir_all(directory.join("partial"))?;
        let backports = format!("--option=APT::Default-Release={}-backports", self.codename);
        // Backports are needed where packages of theirs are installed.
        let mut reasons = Vec::new();
        for option in [None, Some(backports)] {
            let install = |how: &str| {
                let mut command = self.command("apt-get", &["-q", "--yes", how]);
                command
                    .args(["--no-install-recommends", "--no-remove"])
                    .arg("--option=Dir::State::status=/var/lib/dpkg/status")
                    .arg("--option=Debug::NoLocking=true")
                    .arg(format!(
                        "--option=Dir::Cache::archives={}/",
                        directory.display()
                    ))
                    .args(option.as_ref())
                    .arg("install")
                    .args(packages);
                self.output(&mut command)
            };
            let output = install("--print-uris")?;
            if !output.status.success() {
                reasons.push(reason(&output));
                continue;
            }
            let size = total_size(&String::from_utf8_lossy(&output.stdout));
            announce(&packages.join(", "), size);
            let output = install("--download-only")?;
            ensure!(output.status.success(), "vm: {}", reason(&output));
            return Ok(());
        }
        bail!(
            "vm: {} cannot be had from {}: {}",
            packages.join(", "),
            self.codename,
            reasons.join("; ")
        )
    }
}

/// The sum of the sizes in what `apt-get --print-uris` prints: a line for each file with its
/// address in quotes, its name, its size and its hash.
fn total_size(uris: &str) -> u64 {
    uris.lines()
        .filter(|line| line.starts_with('\''))
        .filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok())
        .sum()
}

fn announce(names: &str, size: u64) {
    eprintln!("vm: downloading {names} ({:.1} MB)", size as f64 / 1e6);
}

impl Package {
    /// The package of these fields.
    pub fn new(stanza: &Stanza) -> Result<Self> {
        let field = |name| {
            let value = stanza.get(name);
            value.with_context(|| format!("vm: apt shows a package without {name}"))
        };
        Ok(Self {
            name: field("Package")?.to_owned(),
            version: field("Version")?.to_owned(),
            size: field("Size")?.parse()?,
        })
    }
}

/// apt's configuration: nothing of the host's but how to reach its mirror.
fn configuration(directory: &Path) -> String {
    let mut text = format!(
        "Dir::Etc::main \"{0}/empty/apt.conf\";\n\
         Dir::Etc::parts \"{0}/empty\";\n\
         Dir::Etc::sourcelist \"{0}/debian.sources\";\n\
         Dir::Etc::sourceparts \"{0}/empty\";\n\
         Dir::Etc::preferences \"{0}/empty/preferences\";\n\
         Dir::Etc::preferencesparts \"{0}/empty\";\n\
         Dir::State \"{0}\";\n\
         Dir::State::lists \"{0}/lists\";\n\
         Dir::State::status \"{0}/status\";\n\
         Dir::Cache \"{0}/cache\";\n\
         APT::Update::Error-Mode \"any\";\n\
         APT::Sandbox::User \"root\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::Check-Valid-Until \"false\";\n",
        directory.display()
    );
    text.push_str(&host_network());
    text
}

/// The lines of the host's configuration of apt that say how to reach a mirror.
pub fn host_network() -> String {
    let dump = shell::output(Command::new("apt-config").arg("dump"));
    network(&dump.unwrap_or_default())
}

/// Of a dump of apt's configuration the lines that say how to reach a mirror.
fn network(dump: &str) -> String {
    const PREFIXES: [&str; 5] = [
        "Acquire::http",
        "Acquire::https",
        "Acquire::ForceIP",
        "Acquire::Retries",
        "Acquire::Check-Date",
    ];
    let is_network = |line: &&str| PREFIXES.iter().any(|prefix| line.starts_with(prefix));
    dump.lines()
        .filter(is_network)
        .fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "{line}");
            text
        })
}

/// The sources of a release, in the deb822 format.
fn sources(mirror: &Mirror, release: &Release) -> String {
    let security = release
        .security
        .into_iter()
        .filter_map(|suite| Some((mirror.security.as_ref()?, suite.to_owned())));
    [(&mirror.main, release.suites.join(" "))]
        .into_iter()
        .chain(security)
        .fold(String::new(), |mut text, (repository, suites)| {
            let _ = write!(
                text,
                "Types: deb\nURIs: {}\nSuites: {suites}\nComponents: main\n",
                repository.uri
            );
            if let Some(key) = &repository.signed_by {
                let _ = writeln!(text, "Signed-By: {key}");
            }
            text.push('\n');
            text
        })
}

/// The last error that apt prints.
fn reason(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines = text.lines().rev();
    let line = lines
        .filter_map(|line| line.strip_prefix("E: "))
        .find(|line| !line.starts_with("Some index files failed"))
        .or(text.lines().last());
    line.unwrap_or("apt failed and said nothing").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::{debian, sources::Repository};

    #[test]
    fn writes_sources_with_the_suites_of_a_release() -> Result<()> {
        let mut mirror = Mirror {
            main: Repository {
                uri: "http://mirror.example/debian".to_owned(),
                signed_by: Some("/keys/debian.gpg".to_owned()),
            },
            security: Some(Repository {
                uri: "http://security.example".to_owned(),
                signed_by: None,
            }),
        };
        let release = debian::release("bookworm")?;
        let text = sources(&mirror, release);
        assert_eq!(
            text,
            "Types: deb\nURIs: http://mirror.example/debian\n\
             Suites: bookworm bookworm-updates bookworm-backports\nComponents: main\n\
             Signed-By: /keys/debian.gpg\n\n\
             Types: deb\nURIs: http://security.example\nSuites: bookworm-security\n\
             Components: main\n\n"
        );
        mirror.security = None;
        assert!(!sources(&mirror, release).contains("-security"));
        Ok(())
    }

    #[test]
    fn adds_up_the_sizes_of_files() {
        let text = "Reading package lists...\n\
                    'http://mirror.example/a_1.deb' a_1_amd64.deb 1200 SHA256:00\n\
                    'http://mirror.example/b_1.deb' b_1_all.deb 34 SHA256:00\n";
        assert_eq!(total_size(text), 1234);
    }

    #[test]
    fn takes_only_the_way_to_the_mirror_from_the_host() {
        let dump = "Acquire \"\";\nAcquire::http::Proxy \"http://proxy.example:3128\";\n\
                    Acquire::IndexTargets::deb::DEP-11 \"\";\nDPkg::Post-Invoke:: \"true\";\n";
        assert_eq!(
            network(dump),
            "Acquire::http::Proxy \"http://proxy.example:3128\";\n"
        );
    }
}
