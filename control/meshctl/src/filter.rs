//! `--filter key=value` of lists.

use std::collections::BTreeMap;

/// What the keys of a list's filters are, and which values each takes; none: any text.
pub type Keys = &'static [(&'static str, &'static [&'static str])];

/// For keys that are so or not.
pub const YES_NO: &[&str] = &["true", "false"];

/// A condition that what is listed has to meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    key: &'static str,
    value: String,
}

/// What filters can be about.
pub trait Filtered {
    /// Its id.
    fn id(&self) -> &str;
    /// Its name.
    fn name(&self) -> &str;
    /// Its labels; none of what has none.
    fn labels(&self) -> Option<&BTreeMap<String, String>> {
        None
    }
    /// Whether one of its values for another key is `value`.
    fn is(&self, key: &str, value: &str) -> bool;
}

impl Filter {
    /// Reads `key=value` with one of `keys`.
    pub fn parse(text: &str, keys: Keys) -> Result<Self, String> {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?} is no filter; write KEY=VALUE, for example name=prod"))?;
        let Some((key, values)) = keys.iter().find(|(known, _)| *known == key) else {
            let known: Vec<_> = keys.iter().map(|(key, _)| *key).collect();
            return Err(format!("filter {key:?} is not known; there are {}", known.join(", ")));
        };
        if !values.is_empty() && !values.contains(&value) {
            return Err(format!("{key} is one of {}, not {value:?}", values.join(", ")));
        }
        Ok(Self { key, value: value.to_owned() })
    }

    fn admits(&self, one: &impl Filtered) -> bool {
        match self.key {
            "name" => one.name().contains(&self.value),
            "id" => one.id().starts_with(&self.value),
            "label" => one.labels().is_some_and(|labels| match self.value.split_once('=') {
                Some((key, value)) => labels.get(key).is_some_and(|have| have == value),
                None => labels.contains_key(&self.value),
            }),
            key => one.is(key, &self.value),
        }
    }
}

/// Whether `one` meets the filters: of those with one key one has to hold, of labels each, of all keys each.
pub fn admitted(filters: &[Filter], one: &impl Filtered) -> bool {
    filters.iter().all(|filter| match filter.key {
        "label" => filter.admits(one),
        key => filters.iter().any(|other| other.key == key && other.admits(one)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing(BTreeMap<String, String>);

    impl Filtered for Thing {
        fn id(&self) -> &str {
            "1abc"
        }

        fn name(&self) -> &str {
            "prod"
        }

        fn labels(&self) -> Option<&BTreeMap<String, String>> {
            Some(&self.0)
        }

        fn is(&self, key: &str, value: &str) -> bool {
            (key, value) == ("role", "worker")
        }
    }

    const KEYS: Keys = &[("id", &[]), ("name", &[]), ("label", &[]), ("role", &["worker", "manager"])];

    fn admits(filters: &[&str]) -> bool {
        let filters: Vec<_> = filters.iter().map(|text| Filter::parse(text, KEYS).unwrap()).collect();
        admitted(
            &filters,
            &Thing([("a".to_owned(), "b=c".to_owned()), ("d".to_owned(), String::new())].into()),
        )
    }

    #[test]
    fn keys_hold_all_and_values_of_one_key_are_alternatives() {
        for yes in [&[][..], &["name=ro"], &["id=1a"], &["label=a"], &["label=a=b=c"], &["role=worker"]] {
            assert!(admits(yes), "{yes:?}");
        }
        assert!(admits(&["name=x", "name=pro"]) && admits(&["label=a", "label=d="]));
        for no in [&["name=x"][..], &["id=a"], &["label=b"], &["label=a=b"], &["name=pro", "id=2"]] {
            assert!(!admits(no), "{no:?}");
        }
        assert!(!admits(&["label=a", "label=x"]) && !admits(&["role=manager"]));
    }

    #[test]
    fn wrong_ones_say_what_there_is() {
        for (text, told) in
            [("name", "KEY=VALUE"), ("scope=x", "id, name, label, role"), ("role=x", "worker, manager")]
        {
            let error = Filter::parse(text, KEYS).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
