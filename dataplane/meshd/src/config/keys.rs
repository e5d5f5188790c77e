//! Which keys there are, by what the types themselves tell serde.

use std::fmt::{self, Display};

use serde::{
    Deserializer,
    de::{DeserializeOwned, Visitor},
    forward_to_deserialize_any,
};

use super::{
    Config, ConntrackConfig, DashboardConfig, DockerConfig, LimitsConfig, MetricsConfig, TracesConfig,
};

/// How much a wrong key has to be like a right one for that to be suggested; 1 is the same.
const ALIKE: f64 = 0.8;

/// The keys of a section; of the file's top for none. No such section: none.
pub fn of(section: Option<&str>) -> Option<&'static [&'static str]> {
    match section {
        None => Some(fields::<Config>()),
        Some("limits") => Some(fields::<LimitsConfig>()),
        Some("conntrack") => Some(fields::<ConntrackConfig>()),
        Some("metrics") => Some(fields::<MetricsConfig>()),
        Some("dashboard") => Some(fields::<DashboardConfig>()),
        Some("docker") => Some(fields::<DockerConfig>()),
        Some("traces") => Some(fields::<TracesConfig>()),
        Some(_) => None,
    }
}

/// What somebody may have meant who wrote `key` in `section`: a key there, or one elsewhere, as `section.key`.
pub fn meant(section: Option<&str>, key: &str) -> Option<String> {
    let here = of(section).unwrap_or_default().iter().map(|name| (*name, (*name).to_owned()));
    let top = of(None).unwrap_or_default();
    let sections = top.iter().filter_map(|name| Some((*name, of(Some(name))?)));
    let nested =
        sections.flat_map(|(name, keys)| keys.iter().map(move |key| (*key, format!("{name}.{key}"))));
    let upper = top.iter().map(|name| (*name, (*name).to_owned()));
    let like = |name: &str| strsim::jaro_winkler(&key.replace('-', "_").to_lowercase(), name);
    let best = |candidates: &mut dyn Iterator<Item = (&'static str, String)>| {
        let scored = candidates.map(|(name, shown)| (like(name), shown));
        scored.filter(|(score, _)| *score >= ALIKE).max_by(|a, b| a.0.total_cmp(&b.0))
    };
    let (near, far) = (best(&mut { here }), best(&mut nested.chain(upper)));
    // Another section's key has to be just that one.
    far.filter(|(score, _)| *score >= 1.0)
        .filter(|_| near.as_ref().is_none_or(|(score, _)| *score < 1.0))
        .or(near)
        .map(|(_, shown)| shown)
}

/// The names of a struct's fields as its `Deserialize` has them.
fn fields<T: DeserializeOwned>() -> &'static [&'static str] {
    match T::deserialize(Asked) {
        Err(Told(fields)) => fields,
        Ok(_) => &[],
    }
}

/// Answers every struct's wish to be read with its own fields.
struct Asked;

/// See [`Asked`].
#[derive(Debug)]
struct Told(&'static [&'static str]);

impl Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::error::Error for Told {}

impl serde::de::Error for Told {
    fn custom<T: Display>(_: T) -> Self {
        Self(&[])
    }
}

impl<'de> Deserializer<'de> for Asked {
    type Error = Told;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Told> {
        Err(Told(&[]))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Told> {
        Err(Told(fields))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
