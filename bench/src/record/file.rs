//! Results as JSON. What is read is checked, since people keep such files, edit them and send them around.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};

use super::{Bound, FORMAT, Figure, Record, VERSION};

/// A file beyond this is nobody's results.
const LARGEST: u64 = 32 << 20;
/// Of keys, titles and units, in characters.
const LONGEST: usize = 200;
/// Of one subject.
const MOST_VALUES: usize = 100_000;
/// Beyond it a figure is nonsense in whatever unit.
const HUGE: f64 = 1e15;

/// Why results cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be used.
    #[error("{}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is too large to be results.
    #[error("{}: {size} bytes are too many for results of `cargo xtask bench`", path.display())]
    Size {
        /// Which.
        path: PathBuf,
        /// Of the file.
        size: u64,
    },
    /// What is in it is not what this program writes.
    #[error("{}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Nonsense,
    },
}

/// What is wrong with a text.
#[derive(Debug, thiserror::Error)]
pub enum Nonsense {
    /// Other JSON, or none.
    #[error("these are no results of `cargo xtask bench`")]
    Foreign,
    /// Of another time.
    #[error(
        "results of version {0}; this program reads version {VERSION}: measure anew, or use the program of then"
    )]
    Version(u64),
    /// A field is missing, unknown, or of another kind.
    #[error("damaged: {0}")]
    Field(serde_json::Error),
    /// A field says what cannot be.
    #[error("damaged: {what} is {value}")]
    Value {
        /// Which field.
        what: String,
        /// What it says.
        value: String,
    },
}

#[derive(Deserialize)]
struct Head {
    format: String,
    version: u64,
}

impl Record {
    /// Reads results, and looks whether they can be some.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let file = |source| Error::File { path: path.to_owned(), source };
        let size = fs::metadata(path).map_err(file)?.len();
        if size > LARGEST {
            return Err(Error::Size { path: path.to_owned(), size });
        }
        let text = fs::read(path).map_err(file)?;
        Self::parse(&text).map_err(|source| Error::Content { path: path.to_owned(), source })
    }

    /// Writes them; folders are made, and a file that is there is replaced as a whole.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        write(path, &format!("{text}\n"))
    }

    fn parse(text: &[u8]) -> Result<Self, Nonsense> {
        let head: Head = serde_json::from_slice(text).map_err(|_| Nonsense::Foreign)?;
        if head.format != FORMAT {
            return Err(Nonsense::Foreign);
        }
        if head.version != u64::from(VERSION) {
            return Err(Nonsense::Version(head.version));
        }
        let record: Self = serde_json::from_slice(text).map_err(Nonsense::Field)?;
        record.check()?;
        Ok(record)
    }

    fn check(&self) -> Result<(), Nonsense> {
        if OffsetDateTime::parse(&self.date, &Rfc3339).is_err() {
            return Err(nonsense("date", &self.date));
        }
        let Self { machine, commit, .. } = self;
        for words in
            [commit, &machine.kernel, &machine.architecture, &machine.processor, &machine.congestion_control]
        {
            if words.chars().count() > LONGEST || words.chars().any(char::is_control) {
                return Err(nonsense("the machine or the commit", words));
            }
        }
        amount("the machine's load", self.machine.load)?;
        let mut keys = BTreeSet::new();
        for figure in &self.figures {
            name("a figure's key", &figure.key)?;
            if !keys.insert((figure.suite, &figure.key)) {
                return Err(nonsense("twice there: a figure", &figure.key));
            }
            figure.check()?;
        }
        for target in &self.targets {
            name("a target", &target.what)?;
            name("a target's base", &target.of)?;
            let (Bound::AtLeast(limit) | Bound::AtMost(limit)) = target.bound;
            amount(&target.what, limit)?;
            amount(&target.what, target.measured)?;
        }
        Ok(())
    }
}

impl Figure {
    fn check(&self) -> Result<(), Nonsense> {
        name("a figure's title", &self.title)?;
        name("a unit", &self.unit)?;
        let mut keys = BTreeSet::new();
        for subject in &self.subjects {
            name("a subject's key", &subject.key)?;
            name("a subject's title", &subject.title)?;
            if !keys.insert(&subject.key) {
                return Err(nonsense("twice there: a subject", &subject.key));
            }
            let what = format!("{}, {}", self.key, subject.key);
            let count = subject.values.len();
            if count == 0 || count > MOST_VALUES {
                return Err(nonsense(&format!("{what}: the number of values"), &count.to_string()));
            }
            subject.values.iter().try_for_each(|value| amount(&what, *value))?;
            if let Some(cpu) = &subject.cpu {
                name("a unit", &cpu.unit)?;
                if cpu.values.len() > count {
                    return Err(nonsense(
                        &format!("{what}: the number of times"),
                        &cpu.values.len().to_string(),
                    ));
                }
                cpu.values.iter().try_for_each(|value| amount(&what, *value))?;
            }
        }
        Ok(())
    }
}

fn nonsense(what: &str, value: &str) -> Nonsense {
    // A damaged file is not to fill the terminal.
    let value = value.chars().take(60).flat_map(char::escape_default).collect();
    Nonsense::Value { what: what.to_owned(), value }
}

fn name(what: &str, text: &str) -> Result<(), Nonsense> {
    let good = !text.is_empty() && text.chars().count() <= LONGEST && !text.chars().any(char::is_control);
    if good { Ok(()) } else { Err(nonsense(what, text)) }
}

fn amount(what: &str, value: f64) -> Result<(), Nonsense> {
    if (0.0..HUGE).contains(&value) { Ok(()) } else { Err(nonsense(what, &value.to_string())) }
}

/// Writes a file beside its place first, so that nobody finds half of it.
pub fn write(path: &Path, text: &str) -> Result<(), Error> {
    let file = |source| Error::File { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(file)?;
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = fs::write(&beside, text).and_then(|()| fs::rename(&beside, path));
    written.map_err(|source| {
        let _ = fs::remove_file(&beside);
        file(source)
    })
}

/// This moment, to the second.
pub fn now() -> anyhow::Result<String> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Ok(OffsetDateTime::from_unix_timestamp(since.as_secs().try_into()?)?.format(&Rfc3339)?)
}

/// A date as part of a file's name: `2026-11-21T23-59-01`.
pub fn file_name(date: &str) -> Option<String> {
    let date = OffsetDateTime::parse(date, &Rfc3339).ok()?;
    date.format(format_description!("[year]-[month]-[day]T[hour]-[minute]-[second]")).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::record::{Better, Machine, Suite, Target, Who};

    fn record() -> Record {
        let mut record = Record::begin("abc1234".to_owned(), true).unwrap();
        let figure = Figure::new(Suite::Mesh, "rate", "rate", "1/s", Better::Higher).beside("straight");
        let figure = record.figure(figure);
        figure.add(Who::ours("here", "task here"), 12.5, Some(("us", 3.25)));
        figure.add(Who::peer("straight", "straight"), 0.1 + 0.2, None);
        let (what, of) = ("rate".to_owned(), "straight".to_owned());
        record.targets.push(Target { what, of, bound: Bound::AtMost(2.0), measured: 1.5 });
        record.note("mind this");
        record
    }

    #[test]
    fn what_is_written_is_read() {
        let record = record();
        let path = std::env::temp_dir().join(format!("mesh-bench-{}/a/b.json", std::process::id()));
        record.write(&path).unwrap();
        let read = Record::read(&path);
        fs::remove_dir_all(path.ancestors().nth(2).unwrap()).unwrap();
        assert_eq!(read.unwrap(), record);
        let error = format!("{:#}", anyhow::Error::from(Record::read(&path).unwrap_err()));
        assert!(error.contains("b.json: No such file"), "{error}");
    }

    #[test]
    fn nonsense_is_refused_and_named() {
        let good = serde_json::to_value(record()).unwrap();
        let with = |change: &dyn Fn(&mut Value)| {
            let mut value = good.clone();
            change(&mut value);
            Record::parse(value.to_string().as_bytes()).unwrap_err().to_string()
        };
        let values = |value: &mut Value, to: Value| value["figures"][0]["subjects"][0]["values"] = to;
        type Change<'a> = &'a dyn Fn(&mut Value);
        let cases: [(Change<'_>, &str); 14] = [
            (&|v| v["format"] = json!("other"), "no results"),
            (&|v| *v = json!([1, 2]), "no results"),
            (&|v| v["version"] = json!(7), "version 7"),
            (&|v| v["extra"] = json!(1), "extra"),
            (&|v| v["date"] = json!("yesterday"), "date is yesterday"),
            (&|v| v["machine"]["kernel"] = json!("6.1\u{1b}[2J"), "is 6.1\\u{1b}[2J"),
            (&|v| values(v, json!([])), "number of values is 0"),
            (&|v| values(v, json!([-1.0])), "rate, here is -1"),
            (&|v| values(v, json!([1e300])), "rate, here is 1"),
            (&|v| values(v, json!([null])), "damaged"),
            (&|v| v["figures"][0]["subjects"][1]["key"] = json!("here"), "twice"),
            (&|v| v["figures"][0]["suite"] = json!("other"), "unknown variant"),
            (&|v| v["figures"][0]["subjects"][0]["cpu"]["values"] = json!([1, 2]), "number of times is 2"),
            (&|v| v["targets"][0]["bound"] = json!({"at-most": -2}), "rate is -2"),
        ];
        for (change, wanted) in cases {
            let said = with(change);
            assert!(said.contains(wanted), "{said:?} does not say {wanted:?}");
        }
        assert!(matches!(Record::parse(b"\xff\x00"), Err(Nonsense::Foreign)));
        assert!(matches!(Record::parse(b""), Err(Nonsense::Foreign)));
    }

    #[test]
    fn dates_become_names_of_files() {
        assert_eq!(file_name("2026-11-21T23:59:01Z").unwrap(), "2026-11-21T23-59-01");
        assert!(file_name(&now().unwrap()).is_some());
        assert!(file_name("../../etc").is_none());
        assert!(Machine::this().unwrap().load >= 0.0);
    }
}
