//! What Docker told the plugin and will not tell again, kept in a file.

use std::{
    collections::BTreeMap,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use mesh_types::{Mac, NetworkId, PortConfig};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::warn;

/// The book cannot be kept.
#[derive(Debug, Error)]
#[error("cannot write {}", path.display())]
pub struct BookError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// The pages of the book.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pages {
    /// By Docker's id.
    pub networks: BTreeMap<String, KeptNetwork>,
    /// By Docker's id.
    pub endpoints: BTreeMap<String, KeptEndpoint>,
}

/// A network of Docker's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptNetwork {
    /// The network that it stands for.
    pub network: NetworkId,
    /// Whether its addresses are those that our address plugin gave.
    pub addressed: bool,
}

/// An endpoint of Docker's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptEndpoint {
    /// Docker's network.
    pub network: String,
    /// Those that our address plugin gave; none: the daemon chooses.
    pub addresses: Vec<IpAddr>,
    /// That of its interface, if Docker was told of one.
    pub mac: Option<Mac>,
    /// `docker run -p`.
    pub host_ports: Vec<PortConfig>,
    /// `driver-opt`s of ours, which are as labels.
    pub options: BTreeMap<String, String>,
    /// Where its namespace is or will be, between join and leave.
    pub sandbox: Option<PathBuf>,
    /// Name of its interface there.
    pub interface: String,
    /// Whether all that its last join asked for is done: what a killed daemon left half done, the next one goes on with.
    #[serde(default = "settled")]
    pub settled: bool,
}

/// Books of before tell nothing of it.
fn settled() -> bool {
    true
}

/// See the module.
#[derive(Debug)]
pub struct Book {
    path: PathBuf,
    pages: Mutex<Pages>,
}

impl Book {
    /// Opens it; one that cannot be read is put aside, since Docker and the daemon know enough to go on.
    pub fn open(path: &Path) -> Self {
        let pages = match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                let aside = path.with_extension("broken");
                let moved = fs::rename(path, &aside).is_ok();
                warn!(path = %path.display(), aside = %aside.display(), moved, %error, "Docker's book cannot be read");
                Pages::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Pages::default(),
            Err(error) => {
                warn!(path = %path.display(), %error, "Docker's book cannot be read");
                Pages::default()
            }
        };
        Self { path: path.to_owned(), pages: Mutex::new(pages) }
    }

    /// What it says now.
    pub fn read<T>(&self, look: impl FnOnce(&Pages) -> T) -> T {
        look(&self.lock())
    }

    /// Changes it, on disk too; on an error it is as before.
    pub fn write<T>(&self, change: impl FnOnce(&mut Pages) -> T) -> Result<T, BookError> {
        let mut pages = self.lock();
        let mut new = pages.clone();
        let done = change(&mut new);
        if new != *pages {
            self.save(&new).map_err(|source| BookError { path: self.path.clone(), source })?;
            *pages = new;
        }
        Ok(done)
    }

    fn save(&self, pages: &Pages) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let new = self.path.with_extension("new");
        fs::write(&new, serde_json::to_vec(pages)?)?;
        fs::rename(&new, &self.path)
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker/book.json");
        let book = Book::open(&path);
        let kept = KeptNetwork { network: NetworkId::random(), addressed: true };
        book.write(|pages| pages.networks.insert("n1".to_owned(), kept.clone())).unwrap();
        let again = Book::open(&path);
        assert_eq!(again.read(|pages| pages.networks.get("n1").cloned()), Some(kept));
    }

    #[test]
    fn a_broken_book_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("book.json");
        fs::write(&path, "{").unwrap();
        let book = Book::open(&path);
        assert_eq!(book.read(Pages::clone), Pages::default());
        assert_eq!(fs::read_to_string(path.with_extension("broken")).unwrap(), "{");
        let kept = KeptNetwork { network: NetworkId::random(), addressed: true };
        book.write(|pages| pages.networks.insert("n1".to_owned(), kept)).unwrap();
        assert!(path.exists());
    }
}
