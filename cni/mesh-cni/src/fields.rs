//! Fields of a JSON object, read so that an error names the field and what it holds.

use std::{fmt::Display, str::FromStr};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::CniError;

/// An object, and what its fields are called in errors.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    object: Option<&'a Map<String, Value>>,
    path: &'static str,
}

impl<'a> Fields<'a> {
    /// Of the configuration itself.
    pub fn of(config: &'a Value) -> Result<Self, CniError> {
        match config.as_object() {
            Some(object) => Ok(Self { object: Some(object), path: "" }),
            None => Err(CniError::config("the configuration is not a JSON object")),
        }
    }

    /// Of the object in the field `key`, without any if there is none; `path` is what it is called.
    pub fn object(&self, key: &'static str, path: &'static str) -> Result<Self, CniError> {
        match self.value(key) {
            None => Ok(Self { object: None, path }),
            Some(Value::Object(object)) => Ok(Self { object: Some(object), path }),
            Some(other) => Err(self.wrong(key, other, "an object")),
        }
    }

    /// The field as it is; null stands for none.
    pub fn value(&self, key: &str) -> Option<&'a Value> {
        self.object?.get(key).filter(|value| !value.is_null())
    }

    /// The object itself.
    pub fn whole(&self) -> Option<Value> {
        self.object.map(|object| Value::Object(object.clone()))
    }

    /// The field `key`, which is `wanted`.
    pub fn get<T: DeserializeOwned>(&self, key: &str, wanted: &str) -> Result<Option<T>, CniError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        T::deserialize(value).map(Some).map_err(|_| self.wrong(key, value, wanted))
    }

    /// A text that means a `T`; an empty one stands for none.
    pub fn parsed<T: FromStr<Err: Display>>(&self, key: &str) -> Result<Option<T>, CniError> {
        let text = self.get::<String>(key, "a text")?.filter(|text| !text.is_empty());
        text.map(|text| self.parse(key, &text)).transpose()
    }

    /// A list of texts that mean a `T` each.
    pub fn list<T: FromStr<Err: Display>>(&self, key: &str) -> Result<Vec<T>, CniError> {
        let texts: Vec<String> = self.get(key, "a list of texts")?.unwrap_or_default();
        texts.iter().map(|text| self.parse(key, text)).collect()
    }

    /// What `text`, of the field `key`, means.
    pub fn parse<T: FromStr<Err: Display>>(&self, key: &str, text: &str) -> Result<T, CniError> {
        text.parse().map_err(|error: T::Err| CniError::config(format!("{}: {error}", self.name(key))))
    }

    /// The error of a field that holds what it must not.
    pub fn wrong(&self, key: &str, value: &Value, wanted: &str) -> CniError {
        CniError::config(format!("{} is {value}, which is not {wanted}", self.name(key)))
    }

    fn name(&self, key: &str) -> String {
        match self.path {
            "" => format!("{key:?}"),
            path => format!("\"{path}.{key}\""),
        }
    }
}
