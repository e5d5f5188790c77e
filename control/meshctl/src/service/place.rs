//! A service's place on a network, and its further names, as arguments.

use std::str::FromStr;

use mesh_api::v1::{AliasChange, ServiceAttachment};
use mesh_types::Name;

/// `prod`, or `name=prod,alias=www,alias=shop`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    network: String,
    aliases: Vec<Name>,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut place = Self { network: String::new(), aliases: Vec::new() };
        if !text.contains('=') {
            place.network = text.to_owned();
        } else {
            for field in text.split(',') {
                match field.split_once('=') {
                    Some(("name", name)) if place.network.is_empty() => place.network = name.to_owned(),
                    Some(("alias", alias)) => {
                        place.aliases.push(Name::new(alias).map_err(|e| e.to_string())?)
                    }
                    _ => return Err(format!("{field:?} is not name=NETWORK, once, or alias=NAME")),
                }
            }
        }
        match place.network.as_str() {
            "" => Err("no network is named; write NETWORK or name=NETWORK,alias=NAME".to_owned()),
            _ => Ok(place),
        }
    }
}

impl Place {
    /// For a request.
    pub fn wire(places: Vec<Self>) -> Vec<ServiceAttachment> {
        let names = |aliases: Vec<Name>| aliases.into_iter().map(String::from).collect();
        let place = |place: Self| ServiceAttachment { network: place.network, aliases: names(place.aliases) };
        places.into_iter().map(place).collect()
    }
}

/// `www` on each of a service's networks, or `prod:www` on one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    network: String,
    alias: Name,
}

impl FromStr for Alias {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (network, alias) = match text.split_once(':') {
            Some(("", _)) => return Err(format!("{text:?} is not NAME or NETWORK:NAME")),
            Some((network, alias)) => (network.to_owned(), alias),
            None => (String::new(), text),
        };
        // One that is removed may be of a version that took more; the manager looks at those that are added.
        Ok(Self { network, alias: Name::known(alias).map_err(|e| e.to_string())? })
    }
}

impl Alias {
    /// For a request.
    pub fn wire(aliases: Vec<Self>) -> Vec<AliasChange> {
        let change = |alias: Self| AliasChange { network: alias.network, alias: alias.alias.into() };
        aliases.into_iter().map(change).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let place = |text: &str| text.parse::<Place>();
        assert_eq!(place("prod").unwrap(), Place { network: "prod".into(), aliases: vec![] });
        let both = place("alias=www,name=prod,alias=shop").unwrap();
        assert_eq!((both.network.as_str(), both.aliases.len()), ("prod", 2));
        for bad in [
            "",
            "alias=www",
            "name=",
            "name=a,name=b",
            "name=a,x=y",
            "name=a,alias=a b",
            "name=a,alias=a..b",
            "name=a,",
        ] {
            assert!(place(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn aliases() {
        let alias = |text: &str| text.parse::<Alias>();
        assert_eq!(alias("www").unwrap().network, "");
        assert_eq!(alias("prod:www").unwrap().network, "prod");
        assert_eq!(alias("a..b").unwrap().alias.as_str(), "a..b", "it may be there, and be removed");
        for bad in ["", ":www", "prod:", "a b", "a:b:c"] {
            assert!(alias(bad).is_err(), "{bad}");
        }
    }
}
