//! The keys of clients and the token of the API, which are in files of their own and never in the
//! configuration.
//!
//! A key goes from its file into [`Key`], a token into [`Token`], which never show it.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::{
    libc::O_NONBLOCK,
    unistd::{Uid, User},
};
use teredo_proto::{
    client::Credentials,
    fleet::{Keys, SECRET},
    server::RegisteredClient,
    wire::authentication::{Algorithm, Key, MIN_SECRET},
};
use thiserror::Error;

use super::{
    ClientId, Config,
    access::{Obstacle, user_name},
    values::from_hexadecimal,
};

/// Most octets of a secret.
const MAX_SECRET: usize = 1_024;
/// Most octets of a file: the digits and the end of the line.
const MAX_FILE: u64 = 2 * MAX_SECRET as u64 + 2;
/// The bits of a file mode that give access to others than the owner.
const OTHERS: u32 = 0o077;
const PERMISSIONS: u32 = 0o7777;
/// The usual length of the token of the API, octets.
const TOKEN: usize = 32;

/// The reason why a secret was refused, in one sentence with the remedy, without any part of the secret.
#[derive(Debug, Error)]
#[error("{secret}, {}, {refusal}", file.display())]
pub struct Error {
    /// The name of the secret, such as `the key of client alice`.
    pub secret: String,
    /// The file.
    pub file: PathBuf,
    /// The reason.
    pub refusal: Refusal,
}

/// The reason why a file was refused.
#[derive(Debug, Error)]
pub enum Refusal {
    /// The file does not exist.
    #[error(
        "does not exist: make it with `openssl rand -hex {octets} | install -m 600 -o {owner} /dev/stdin \
         {}`", file.display()
    )]
    Missing {
        /// The file.
        file: PathBuf,
        /// The usual length of the secret.
        octets: usize,
        /// The user who should own it.
        owner: String,
    },
    /// The user of this process may not read the file.
    #[error("cannot be read by user {user}: {source}; {remedy}")]
    Forbidden {
        /// The user.
        user: String,
        /// The error of the operating system.
        source: io::Error,
        /// The remedy.
        remedy: String,
    },
    /// The file cannot be read.
    #[error("cannot be read: {0}; name another")]
    Unreadable(#[source] io::Error),
    /// The file is a directory or a device.
    #[error("is not a regular file: name a file that contains one line of hexadecimal digits")]
    NotRegular,
    /// Others than the owner have access.
    #[error("has mode {mode:04o}, but only its owner may have access: `chmod 600` it")]
    Exposed {
        /// The permissions.
        mode: u32,
    },
    /// The file belongs to an unexpected user, who could change it.
    #[error(
        "belongs to user {owner}, not to root or the daemon's user: `chown {expected}: {}`", file.display()
    )]
    Owner {
        /// The file.
        file: PathBuf,
        /// The user ID.
        owner: u32,
        /// The user who should own it.
        expected: String,
    },
    /// The file does not contain the hexadecimal digits of octets.
    #[error("does not contain one line of hexadecimal digits, two for each octet")]
    NotHexadecimal,
    /// The key is so short that it could be guessed.
    #[error(
        "contains {octets} octets, but a key has {MIN_SECRET} or more, from a source of random \
         numbers such as `openssl rand -hex 16`"
    )]
    Short {
        /// The length.
        octets: usize,
    },
    /// The file does not contain the keys of a fleet.
    #[error(
        "does not contain one to three lines of 64 hexadecimal digits, all different, from a source of \
         random numbers such as `openssl rand -hex 32`"
    )]
    NotFleet,
    /// The key is longer than necessary.
    #[error("contains more than the {MAX_SECRET} octets that a key may have")]
    Long,
}

impl Error {
    /// Returns whether the user of this process may not read the file.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self.refusal, Refusal::Forbidden { .. })
    }
}

/// The token of the API.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Vec<u8>);

impl Token {
    /// Returns whether a text is the token, in a time that tells nothing about it.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        let Some(octets) = from_hexadecimal(text) else {
            return false;
        };
        let pairs = self.0.iter().zip(&octets);
        let difference = pairs.fold(0, |difference, (a, b)| difference | (a ^ b));
        octets.len() == self.0.len() && std::hint::black_box(difference) == 0
    }

    /// Returns the text that a client presents.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.iter().map(|octet| format!("{octet:02x}")).collect()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token")
    }
}

/// The keys of all roles, and the token of the API.
#[derive(Debug, Default)]
pub struct Secrets {
    /// The token that the API asks for on addresses that are not loopback.
    pub api_token: Option<Token>,
    /// The keys of the server's clients.
    pub clients: Vec<RegisteredClient>,
    /// The identifier and the key of the client role.
    pub credentials: Option<Credentials>,
    /// The keys of the relay's fleet.
    pub fleet: Option<Keys>,
}

/// The users who may own files with secrets.
struct Owners {
    uids: Vec<Uid>,
    /// The name of the one who can read them at a start and later.
    best: String,
}

/// Reads the keys that a configuration names, as the user of this thread. Call it before the process changes
/// its user.
///
/// # Errors
///
/// For the first file that is refused.
pub fn load(config: &Config) -> Result<Secrets, Error> {
    let owners = Owners::of(config);
    let key = |id: &ClientId, algorithm, file: &PathBuf| {
        read(algorithm, file, &owners).map_err(|refusal| Error {
            secret: format!("the key of client {id}"),
            file: file.clone(),
            refusal,
        })
    };
    let clients = config.server.iter().flat_map(|server| &server.clients);
    let clients = clients.map(|client| {
        let key = |file| key(&client.id, client.algorithm, file);
        Ok(RegisteredClient {
            id: client.id.octets().to_vec(),
            key: key(&client.secret_file)?,
            retired: client
                .retired_secret_files
                .iter()
                .map(key)
                .collect::<Result<_, _>>()?,
            prefix: client.prefix,
        })
    });
    let clients = clients.collect::<Result<_, _>>()?;
    let own = config.client.as_ref();
    let own = own.and_then(|own| Some((own, own.id.as_ref()?, own.secret_file.as_ref()?)));
    let credentials = own.map(|(own, id, file)| {
        Ok(Credentials {
            id: id.octets().to_vec(),
            key: key(id, own.algorithm, file)?,
        })
    });
    let relay = config.relay.as_ref();
    let fleet = relay.and_then(|relay| relay.fleet.key_file.as_ref());
    let fleet = fleet.map(|file| {
        let keys = contents(file, SECRET, &owners).and_then(|text| parse_fleet(&text));
        keys.map_err(|refusal| Error {
            secret: "the key of the fleet".to_owned(),
            file: file.clone(),
            refusal,
        })
    });
    Ok(Secrets {
        api_token: token(config)?,
        clients,
        credentials: credentials.transpose()?,
        fleet: fleet.transpose()?,
    })
}

/// Reads the token of the API, if the configuration names one.
///
/// # Errors
///
/// When its file is refused.
pub fn token(config: &Config) -> Result<Option<Token>, Error> {
    let Some(file) = &config.node.api_token_file else {
        return Ok(None);
    };
    let owners = Owners::of(config);
    let octets = contents(file, TOKEN, &owners).and_then(|text| secret(&text));
    match octets {
        Ok(octets) if octets.len() < MIN_SECRET => Err(Refusal::Short {
            octets: octets.len(),
        }),
        octets => octets.map(|octets| Some(Token(octets))),
    }
    .map_err(|refusal| Error {
        secret: "the token of the API".to_owned(),
        file: file.clone(),
        refusal,
    })
}

/// Iterates over the files with the secrets that a configuration names.
pub fn files(config: &Config) -> impl Iterator<Item = &Path> {
    let clients = config.server.iter().flat_map(|server| &server.clients);
    let clients = clients.flat_map(|client| {
        let retired = client.retired_secret_files.iter();
        [&client.secret_file].into_iter().chain(retired)
    });
    let own = config
        .client
        .iter()
        .filter_map(|own| own.secret_file.as_ref());
    let token = config.node.api_token_file.iter();
    let relay = config.relay.iter();
    let fleet = relay.filter_map(|relay| relay.fleet.key_file.as_ref());
    (clients.chain(own).chain(token).chain(fleet)).map(PathBuf::as_path)
}

impl Owners {
    /// Returns root, the user of this thread, and the user that the daemon becomes.
    fn of(config: &Config) -> Self {
        let mut uids = vec![Uid::from_raw(0), Uid::effective()];
        let best = match User::from_name(&config.node.user) {
            Ok(Some(user)) => {
                uids.push(user.uid);
                user.name
            }
            _ => user_name(),
        };
        Self { uids, best }
    }
}

fn read(algorithm: Algorithm, file: &Path, owners: &Owners) -> Result<Key, Refusal> {
    parse(algorithm, &contents(file, MIN_SECRET, owners)?)
}

/// Reads a file that is nobody else's. `octets` is the usual length of its secret.
fn contents(file: &Path, octets: usize, owners: &Owners) -> Result<Vec<u8>, Refusal> {
    let mut opened = open(file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Refusal::Missing {
            file: file.to_owned(),
            octets,
            owner: owners.best.clone(),
        },
        io::ErrorKind::PermissionDenied => Refusal::Forbidden {
            user: user_name(),
            source: error,
            remedy: Obstacle::before(file).remedy(file, &owners.best),
        },
        _ => Refusal::Unreadable(error),
    })?;
    // From the opened file, so that it cannot be exchanged in between.
    let metadata = opened.metadata().map_err(Refusal::Unreadable)?;
    if !metadata.is_file() {
        return Err(Refusal::NotRegular);
    }
    if !owners.uids.contains(&Uid::from_raw(metadata.uid())) {
        return Err(Refusal::Owner {
            file: file.to_owned(),
            owner: metadata.uid(),
            expected: owners.best.clone(),
        });
    }
    if metadata.mode() & OTHERS != 0 {
        let mode = metadata.mode() & PERMISSIONS;
        return Err(Refusal::Exposed { mode });
    }
    if metadata.len() > MAX_FILE {
        return Err(Refusal::Long);
    }
    let mut text = Vec::new();
    opened.read_to_end(&mut text).map_err(Refusal::Unreadable)?;
    Ok(text)
}

/// Returns the keys of a fleet in the contents of a file, one a line, that in use first.
pub(crate) fn parse_fleet(text: &[u8]) -> Result<Keys, Refusal> {
    let text = str::from_utf8(text).map_err(|_| Refusal::NotFleet)?;
    let secrets = text.lines().map(|line| {
        let octets = from_hexadecimal(line)?;
        <[u8; SECRET]>::try_from(octets).ok()
    });
    let secrets: Option<Vec<_>> = secrets.collect();
    Keys::new(&secrets.ok_or(Refusal::NotFleet)?).map_err(|_| Refusal::NotFleet)
}

/// Returns the key in the contents of a file.
pub(crate) fn parse(algorithm: Algorithm, text: &[u8]) -> Result<Key, Refusal> {
    let secret = secret(text)?;
    let octets = secret.len();
    Key::new(algorithm, &secret).map_err(|_| Refusal::Short { octets })
}

/// Returns the octets that the digits in a file stand for.
fn secret(text: &[u8]) -> Result<Vec<u8>, Refusal> {
    let secret = str::from_utf8(text).ok().and_then(one_line);
    let secret = secret.ok_or(Refusal::NotHexadecimal)?;
    if secret.len() > MAX_SECRET {
        return Err(Refusal::Long);
    }
    Ok(secret)
}

fn open(file: &Path) -> io::Result<File> {
    // Do not wait for the other end of a pipe.
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(O_NONBLOCK).open(file)
}

/// Decodes the only line of the text.
fn one_line(text: &str) -> Option<Vec<u8>> {
    let line = text.strip_suffix('\n').unwrap_or(text);
    from_hexadecimal(line.strip_suffix('\r').unwrap_or(line))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use nix::{sys::stat::Mode, unistd::mkfifo};
    use tempfile::TempDir;

    use super::*;
    use teredo_proto::wire::encapsulation::Authentication;

    const DIGITS: &str = "00112233445566778899aabbccddeeff";

    fn write(directory: &TempDir, name: &str, text: &str, mode: u32) -> PathBuf {
        let file = directory.path().join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    fn owned_by(uid: Uid) -> Owners {
        Owners {
            uids: vec![uid],
            best: "teredo".to_owned(),
        }
    }

    fn refusal(text: &str, mode: u32) -> String {
        let directory = TempDir::new().unwrap();
        let file = write(&directory, "key", text, mode);
        let owners = owned_by(Uid::effective());
        read(Algorithm::HmacMd5, &file, &owners)
            .expect_err(text)
            .to_string()
    }

    fn config(file: &Path, retired: &Path) -> Config {
        let text = format!(
            "[server]\nipv4 = [\"198.51.100.1\", \"198.51.100.2\"]\n[[server.client]]\nid = \
             \"alice\"\nalgorithm = \"hmac-sha1\"\nsecret-file = {file:?}\nretired-secret-files = \
             [{retired:?}]\nprefix = \"2001:db8:1:2::/64\""
        );
        Config::parse(&text, Path::new("teredo.toml")).unwrap()
    }

    #[test]
    fn a09_keys_come_from_files() {
        let directory = TempDir::new().unwrap();
        let file = write(&directory, "new", &format!("{DIGITS}\n"), 0o600);
        let retired = write(&directory, "old", &DIGITS.to_uppercase(), 0o400);
        let clients = load(&config(&file, &retired)).unwrap().clients;
        let [client] = &*clients else {
            panic!("{clients:?}");
        };
        assert_eq!(client.id, b"alice");
        assert_eq!(client.prefix.unwrap().to_string(), "2001:db8:1:2::/64");
        let secret: [u8; 16] = std::array::from_fn(|index| index as u8 * 0x11);
        let expected = Key::new(Algorithm::HmacSha1, &secret).unwrap();
        let (nonce, mut value) = ([7; 8], [0; 20]);
        expected.sign(nonce, 0, b"covered", &mut value);
        let header = Authentication {
            client: b"alice",
            value: &value,
            nonce,
            confirmation: 0,
        };
        assert!(client.key.verify(&header, b"covered"));
        assert!(client.retired[0].verify(&header, b"covered"));
    }

    #[test]
    fn a09_nothing_shows_a_key() {
        let directory = TempDir::new().unwrap();
        let file = write(&directory, "key", DIGITS, 0o600);
        let clients = load(&config(&file, &file)).unwrap();
        let shown = format!("{clients:?}");
        for secret in [DIGITS, "0011", "[0, 17", "34, 51"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        // Nor does a message about what is nearly a key.
        for (text, mode) in [
            (&DIGITS[..30], 0o600),
            (DIGITS, 0o644),
            (&DIGITS[1..], 0o600),
        ] {
            let sentence = refusal(text, mode);
            assert!(!sentence.contains("2233"), "{sentence}");
        }
    }

    #[test]
    fn a09_what_is_not_a_key_is_refused() {
        for (text, rule) in [
            ("", "contains 0 octets, but a key has 16 or more"),
            (
                &DIGITS[..30],
                "contains 15 octets, but a key has 16 or more",
            ),
            (
                &DIGITS[..31],
                "does not contain one line of hexadecimal digits",
            ),
            (
                "correct horse battery staple",
                "does not contain one line of hexadecimal digits",
            ),
            (
                &format!("{DIGITS}\n{DIGITS}\n"),
                "does not contain one line",
            ),
            (&format!(" {DIGITS}"), "does not contain one line"),
            (&format!("{DIGITS}\n\n"), "does not contain one line"),
            (&format!("0x{DIGITS}"), "does not contain one line"),
            (&"0".repeat(2_050), "contains more than the 1024 octets"),
            (&"0".repeat(100_000), "contains more than the 1024 octets"),
        ] {
            let sentence = refusal(text, 0o600);
            assert!(sentence.contains(rule), "{text}: {sentence}");
            assert!(!sentence.contains('\n'), "{sentence}");
        }
    }

    #[test]
    fn f04_a_file_has_up_to_three_keys_of_a_fleet() {
        let line = |digit: &str| digit.repeat(64) + "\n";
        for text in [
            line("1"),
            line("1") + &line("2"),
            line("1") + &line("2") + &line("3"),
        ] {
            assert!(parse_fleet(text.as_bytes()).is_ok(), "{text}");
        }
        for text in [
            String::new(),
            "1".repeat(63),
            "1".repeat(66),
            line("1") + &line("1"),
            line("x"),
            line("1") + "\n",
            line("1") + &line("2") + &line("3") + &line("4"),
        ] {
            assert!(parse_fleet(text.as_bytes()).is_err(), "{text}");
        }
        let directory = TempDir::new().unwrap();
        let file = write(&directory, "fleet", &line("1"), 0o644);
        let text = format!(
            "[relay]\nipv4 = \"198.51.100.1\"\n[relay.fleet]\nlisten = \"10.0.0.1:3546\"\nmembers = [\"10.0.0.2:3546\"]\nkey-file = {file:?}"
        );
        let config = Config::parse(&text, Path::new("teredo.toml")).unwrap();
        let sentence = load(&config).unwrap_err().to_string();
        assert!(sentence.starts_with("the key of the fleet, "), "{sentence}");
        assert!(sentence.contains("chmod 600"), "{sentence}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(load(&config).unwrap().fleet.is_some());
        assert_eq!(files(&config).collect::<Vec<_>>(), [file]);
    }

    #[test]
    fn a09_nobody_but_the_owner_has_access() {
        for mode in [
            0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o666, 0o777,
        ] {
            let sentence = refusal(DIGITS, mode);
            let expected = format!("has mode {mode:04o}, but only its owner");
            assert!(sentence.contains(&expected), "{sentence}");
        }
        let directory = TempDir::new().unwrap();
        let file = write(&directory, "key", DIGITS, 0o600);
        let somebody = Uid::from_raw(Uid::effective().as_raw() + 1);
        let owner = read(Algorithm::HmacMd5, &file, &owned_by(somebody)).unwrap_err();
        let remedy = format!("`chown teredo: {}`", file.display());
        assert!(owner.to_string().ends_with(&remedy), "{owner}");
    }

    #[test]
    fn a09_only_a_file_holds_a_key() {
        let directory = TempDir::new().unwrap();
        let pipe = directory.path().join("pipe");
        mkfifo(&pipe, Mode::S_IRUSR).unwrap();
        let missing = directory.path().join("missing");
        let owners = owned_by(Uid::effective());
        for (file, rule) in [
            (directory.path(), "is not a regular file"),
            (&pipe, "is not a regular file"),
            (Path::new("/dev/null"), "is not a regular file"),
            (
                &missing,
                "does not exist: make it with `openssl rand -hex 16 | install -m 600 -o teredo ",
            ),
        ] {
            let refusal = read(Algorithm::HmacMd5, file, &owners).unwrap_err();
            let sentence = refusal.to_string();
            assert!(sentence.contains(rule), "{}: {sentence}", file.display());
        }
        let linked = write(&directory, "key", DIGITS, 0o600);
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(linked, &link).unwrap();
        assert!(read(Algorithm::HmacMd5, &link, &owners).is_ok());
    }

    #[test]
    fn a01_the_clients_own_key_comes_from_a_file_too() {
        let directory = TempDir::new().unwrap();
        let file = write(&directory, "own", DIGITS, 0o600);
        let config = |rest: &str| {
            let text = format!("[client]\nserver = \"9.0.0.1\"\n{rest}");
            Config::parse(&text, Path::new("teredo.toml")).unwrap()
        };
        assert!(load(&config("")).unwrap().credentials.is_none());
        let own = config(&format!("id = \"hex:00ff\"\nsecret-file = {file:?}"));
        let secrets = load(&own).unwrap();
        assert_eq!(secrets.credentials.as_ref().unwrap().id, [0, 255]);
        assert!(!format!("{secrets:?}").contains("2233"));
        fs::remove_file(&file).unwrap();
        let sentence = load(&own).unwrap_err().to_string();
        assert!(sentence.starts_with("the key of client hex:00ff, "));
    }

    #[test]
    fn a_refused_file_is_named() {
        let directory = TempDir::new().unwrap();
        let file = write(&directory, "new", DIGITS, 0o600);
        let retired = write(&directory, "old", DIGITS, 0o644);
        let sentence = load(&config(&file, &retired)).unwrap_err().to_string();
        let expected = format!(
            "the key of client alice, {}, has mode 0644",
            retired.display()
        );
        assert!(sentence.starts_with(&expected), "{sentence}");
    }
}
