//! The forms in which values of some types are written.

use std::{
    collections::HashSet,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use ipnet::Ipv6Net;
use serde::{Deserialize, Deserializer, Serialize};

use super::permitted::is_absolute;

/// Values with [`FromStr`] and [`fmt::Display`].
pub mod text {
    use super::{Deserialize as _, Deserializer, FromStr, fmt};
    use serde::{Serializer, de::Error as _};

    pub fn serialize<T: fmt::Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: fmt::Display>,
        D: Deserializer<'de>,
    {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// Values with [`FromStr`] and [`fmt::Display`]; none is written as "".
pub mod text_or_empty {
    use super::{Deserialize as _, Deserializer, FromStr, fmt};
    use serde::{Serializer, de::Error as _};

    pub fn serialize<T: fmt::Display, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_str(""),
        }
    }

    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: fmt::Display>,
        D: Deserializer<'de>,
    {
        match &*String::deserialize(deserializer)? {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(D::Error::custom),
        }
    }
}

/// `node.prefix`.
pub mod service_prefix {
    use super::{Deserialize as _, Deserializer, Ipv6Net};
    use serde::{Serializer, de::Error as _};
    use teredo_common::{address::ServicePrefix, scope::is_global_unicast};

    pub fn serialize<S: Serializer>(value: &ServicePrefix, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ServicePrefix, D::Error> {
        from_network(Ipv6Net::deserialize(from)?)
            .ok_or_else(|| D::Error::custom("not a prefix of 32 bits of global scope"))
    }

    /// Returns the service prefix that the network stands for.
    pub fn from_network(network: Ipv6Net) -> Option<ServicePrefix> {
        let octets = network.network().octets();
        let fits = network.prefix_len() == 32 && network.addr() == network.network();
        let [a, b, c, d, ..] = octets;
        (fits && is_global_unicast(&octets)).then_some(ServicePrefix([a, b, c, d]))
    }
}

/// `server.extra-prefixes`.
pub mod service_prefixes {
    use super::{Deserialize as _, Deserializer, HashSet, Ipv6Net, service_prefix::from_network};
    use serde::{Serializer, de::Error as _};
    use teredo_common::address::ServicePrefix;

    use crate::config::EXTRA_PREFIXES_MAX;

    pub fn serialize<S: Serializer>(value: &[ServicePrefix], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(value.iter().map(ToString::to_string))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ServicePrefix>, D::Error> {
        let networks = Vec::<Ipv6Net>::deserialize(from)?;
        let different: HashSet<_> = networks.iter().collect();
        let fits = networks.len() <= EXTRA_PREFIXES_MAX && different.len() == networks.len();
        let prefixes: Option<_> = networks
            .iter()
            .map(|network| from_network(*network))
            .collect();
        prefixes
            .filter(|_| fits)
            .ok_or_else(|| D::Error::custom("not a list of different prefixes"))
    }
}

/// `server.client.prefix`; none is written as "".
pub mod client_prefix {
    use super::{Deserializer, Ipv6Net, text_or_empty};
    use serde::{Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(value: &Option<Ipv6Net>, to: S) -> Result<S::Ok, S::Error> {
        text_or_empty::serialize(value, to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Ipv6Net>, D::Error> {
        let network: Option<Ipv6Net> = text_or_empty::deserialize(from)?;
        let is_fit =
            |network: &Ipv6Net| network.prefix_len() == 64 && network.addr() == network.network();
        match network {
            Some(network) if !is_fit(&network) => Err(D::Error::custom("not a /64")),
            network => Ok(network),
        }
    }
}

/// `relay.ipv4-scope`.
pub mod scope {
    use super::Deserializer;
    use serde::{Deserialize, Serialize, Serializer};
    use teredo_common::scope::Ipv4Scope;

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Name {
        Strict,
        Rfc4380,
        Lab,
    }

    pub fn serialize<S: Serializer>(value: &Ipv4Scope, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Ipv4Scope::Strict => Name::Strict,
            Ipv4Scope::Rfc4380 => Name::Rfc4380,
            Ipv4Scope::Lab => Name::Lab,
        }
        .serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Ipv4Scope, D::Error> {
        Ok(match Name::deserialize(from)? {
            Name::Strict => Ipv4Scope::Strict,
            Name::Rfc4380 => Ipv4Scope::Rfc4380,
            Name::Lab => Ipv4Scope::Lab,
        })
    }
}

/// `server.client.algorithm`.
pub mod algorithm {
    use super::Deserializer;
    use serde::{Deserialize, Serialize, Serializer};
    use teredo_proto::wire::authentication::Algorithm;

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Name {
        HmacMd5,
        HmacSha1,
    }

    pub fn serialize<S: Serializer>(value: &Algorithm, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Algorithm::HmacMd5 => Name::HmacMd5,
            Algorithm::HmacSha1 => Name::HmacSha1,
        }
        .serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Algorithm, D::Error> {
        Ok(match Name::deserialize(from)? {
            Name::HmacMd5 => Algorithm::HmacMd5,
            Name::HmacSha1 => Algorithm::HmacSha1,
        })
    }
}

/// One value with [`FromStr`] and [`fmt::Display`], or a list of such.
pub mod one_or_many {
    use super::{Deserializer, FromStr, fmt};
    use serde::{Deserialize, Serializer, de::Error as _};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }

    pub fn serialize<T: fmt::Display, S: Serializer>(
        values: &[T],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match values {
            [value] => to.collect_str(value),
            values => to.collect_seq(values.iter().map(ToString::to_string)),
        }
    }

    pub fn deserialize<'de, T, D>(from: D) -> Result<Vec<T>, D::Error>
    where
        T: FromStr<Err: fmt::Display>,
        D: Deserializer<'de>,
    {
        let texts = match OneOrMany::deserialize(from)? {
            OneOrMany::One(text) => vec![text],
            OneOrMany::Many(texts) => texts,
        };
        texts
            .iter()
            .map(|text| text.parse().map_err(D::Error::custom))
            .collect()
    }
}

/// `client.server`: one or a list.
pub mod servers {
    use super::{Deserializer, HashSet, one_or_many};
    use serde::de::Error as _;

    use crate::config::{SERVERS_MAX, ServerName};

    pub use one_or_many::serialize;

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ServerName>, D::Error> {
        let servers: Vec<ServerName> = one_or_many::deserialize(from)?;
        let different: HashSet<_> = servers.iter().collect();
        let fits = (1..=SERVERS_MAX).contains(&servers.len()) && different.len() == servers.len();
        fits.then_some(servers)
            .ok_or_else(|| D::Error::custom("not a list of different servers"))
    }
}

/// `relay.fleet.members`: one or a list.
pub mod members {
    use super::{Deserializer, HashSet, one_or_many};
    use serde::de::Error as _;

    use crate::config::{MEMBERS_MAX, Member};

    pub use one_or_many::serialize;

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Member>, D::Error> {
        let members: Vec<Member> = one_or_many::deserialize(from)?;
        let different: HashSet<_> = members.iter().collect();
        let fits = members.len() <= MEMBERS_MAX && different.len() == members.len();
        fits.then_some(members)
            .ok_or_else(|| D::Error::custom("not a list of different relays"))
    }
}

/// An absolute path; none is written as "".
pub mod path_or_empty {
    use super::{Deserialize as _, Deserializer, Path, PathBuf, Serialize as _, is_absolute};
    use serde::{Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(value: &Option<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
        value.as_deref().unwrap_or(Path::new("")).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
        let path = PathBuf::deserialize(from)?;
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        is_absolute(&path)
            .then_some(Some(path))
            .ok_or_else(|| D::Error::custom("not an absolute path"))
    }
}
