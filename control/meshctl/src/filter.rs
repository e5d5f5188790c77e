//! `--filter key=value` of lists.

use std::str::FromStr;

/// A condition that what is listed has to meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// The name contains the text.
    Name(String),
    /// The id begins with the text.
    Id(String),
    /// The driver is the text.
    Driver(String),
    /// There is a label with the key, and the value if one is given.
    Label(String, Option<String>),
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((key, value)) = text.split_once('=') else {
            return Err(format!("{text:?} is no filter; write KEY=VALUE, for example name=prod"));
        };
        let value = value.to_owned();
        match key {
            "name" => Ok(Filter::Name(value)),
            "id" => Ok(Filter::Id(value)),
            "driver" => Ok(Filter::Driver(value)),
            "label" => Ok(match value.split_once('=') {
                Some((key, value)) => Filter::Label(key.to_owned(), Some(value.to_owned())),
                None => Filter::Label(value, None),
            }),
            _ => Err(format!("filter {key:?} is not known; there are name, id, driver and label")),
        }
    }
}

impl Filter {
    /// Whether `network` meets it.
    pub fn admits(&self, network: &crate::report::NetworkReport) -> bool {
        match self {
            Filter::Name(text) => network.name.contains(text.as_str()),
            Filter::Id(text) => network.id.starts_with(text.as_str()),
            Filter::Driver(text) => network.driver == text,
            Filter::Label(key, value) => {
                network.labels.get(key).is_some_and(|have| value.as_ref().is_none_or(|wanted| wanted == have))
            }
        }
    }
}
