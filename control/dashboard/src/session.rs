//! Logins and sessions: pure, the time comes with each question.
//!
//! Tokens, session ids and CSRF words are 256 random bits. Only digests are kept, and looked up by: neither memory nor the time
//! of a comparison tells one.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::RngCore;
use sha2::{Digest, Sha256};

/// Bounds of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long a login may be used.
    pub login: Duration,
    /// A session ends after so long without anybody doing anything; a page that is merely open does nothing.
    pub idle: Duration,
    /// A session ends after so long in any case.
    pub whole: Duration,
    /// Sessions at a time; one more ends the one that was idle longest.
    pub sessions: usize,
    /// Live streams at a time, of all sessions.
    pub streams: usize,
    /// Live streams of one session.
    pub streams_each: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            login: Duration::from_secs(120),
            idle: Duration::from_secs(15 * 60),
            whole: Duration::from_secs(12 * 3600),
            sessions: 64,
            streams: 128,
            streams_each: 16,
        }
    }
}

/// Logins that wait to be used; one more forgets the oldest.
const LOGINS: usize = 32;

type Key = [u8; 32];

/// See the module.
#[derive(Debug)]
pub(crate) struct Sessions {
    limits: Limits,
    logins: Vec<Login>,
    sessions: HashMap<Key, Session>,
}

#[derive(Debug)]
struct Login {
    key: Key,
    made: Instant,
    write: bool,
}

#[derive(Debug)]
struct Session {
    csrf: String,
    write: bool,
    began: Instant,
    used: Instant,
    streams: usize,
}

/// What a session may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Granted {
    /// Whether it may change anything.
    pub write: bool,
    /// What changes have to name, so that no other page can make them.
    pub csrf: String,
}

/// A stream was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Sessions {
    /// None yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, logins: Vec::new(), sessions: HashMap::new() }
    }

    /// The bounds.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Other bounds from now on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// A token for one login.
    pub fn login(&mut self, write: bool, now: Instant) -> String {
        let token = random();
        self.logins.retain(|login| now.saturating_duration_since(login.made) < self.limits.login);
        if self.logins.len() >= LOGINS {
            self.logins.remove(0);
        }
        self.logins.push(Login { key: key(&token), made: now, write });
        token
    }

    /// Changes a token into a session: its id and what it may do. None when the token is wrong, old or used.
    pub fn enter(&mut self, token: &str, now: Instant) -> Option<(String, Granted)> {
        self.logins.retain(|login| now.saturating_duration_since(login.made) < self.limits.login);
        let key_of_token = key(token);
        let at = self.logins.iter().position(|login| login.key == key_of_token)?;
        let write = self.logins.swap_remove(at).write;
        self.end_old(now);
        if self.sessions.len() >= self.limits.sessions {
            let longest = self.sessions.iter().min_by_key(|(_, session)| session.used).map(|(key, _)| *key);
            longest.map(|key| self.sessions.remove(&key));
        }
        let (id, csrf) = (random(), random());
        let session = Session { csrf: csrf.clone(), write, began: now, used: now, streams: 0 };
        self.sessions.insert(key(&id), session);
        Some((id, Granted { write, csrf }))
    }

    /// What a session may do, if there is one; `used` says that somebody did something.
    pub fn look(&mut self, id: &str, used: bool, now: Instant) -> Option<Granted> {
        self.end_old(now);
        let session = self.sessions.get_mut(&key(id))?;
        if used {
            session.used = now;
        }
        Some(Granted { write: session.write, csrf: session.csrf.clone() })
    }

    /// Ends a session.
    pub fn leave(&mut self, id: &str) {
        self.sessions.remove(&key(id));
    }

    /// Takes a place for a stream of a session that is there.
    pub fn open_stream(&mut self, id: &str) -> Result<(), TooMany> {
        let all: usize = self.sessions.values().map(|session| session.streams).sum();
        match self.sessions.get_mut(&key(id)) {
            Some(session) if session.streams < self.limits.streams_each && all < self.limits.streams => {
                session.streams += 1;
                Ok(())
            }
            _ => Err(TooMany),
        }
    }

    /// Gives it back.
    pub fn close_stream(&mut self, id: &str) {
        if let Some(session) = self.sessions.get_mut(&key(id)) {
            session.streams = session.streams.saturating_sub(1);
        }
    }

    fn end_old(&mut self, now: Instant) {
        let Limits { idle, whole, .. } = self.limits;
        self.sessions.retain(|_, session| {
            now.saturating_duration_since(session.used) < idle
                && now.saturating_duration_since(session.began) < whole
        });
    }
}

/// Whether both are the same, in a time that does not tell where they differ.
pub(crate) fn same(a: &str, b: &str) -> bool {
    key(a) == key(b)
}

fn key(text: &str) -> Key {
    Sha256::digest(text.as_bytes()).into()
}

fn random() -> String {
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn sessions() -> (Sessions, Instant) {
        let limits = Limits { sessions: 3, streams: 4, streams_each: 3, ..Limits::default() };
        (Sessions::new(limits), Instant::now())
    }

    #[test]
    fn a_login_is_used_once_and_soon() {
        let (mut all, now) = sessions();
        let token = all.login(false, now);
        assert!(all.enter("", now).is_none() && all.enter(&token[1..], now).is_none());
        let (id, granted) = all.enter(&token, now).unwrap();
        assert!(!granted.write);
        assert!(all.enter(&token, now).is_none(), "used before");
        assert_eq!(all.look(&id, false, now), Some(granted));
        assert_eq!(all.look(&token, false, now), None, "a token is no session");
        let late = all.login(true, now);
        assert!(all.enter(&late, now + all.limits.login).is_none());
        let write = all.login(true, now);
        assert!(all.enter(&write, now + all.limits.login - SECOND).unwrap().1.write);
    }

    #[test]
    fn a_session_ends_when_it_is_idle_and_after_a_day_s_work() {
        let (mut all, mut now) = sessions();
        let token = all.login(false, now);
        let (id, _) = all.enter(&token, now).unwrap();
        let begun = now;
        while now - begun < all.limits.whole - all.limits.idle {
            now += all.limits.idle - SECOND;
            assert!(all.look(&id, false, now).is_some());
            assert!(all.look(&id, true, now).is_some());
        }
        assert!(all.look(&id, false, now + all.limits.idle).is_none(), "looking on is no use");
        let token = all.login(false, now);
        let (id, _) = all.enter(&token, now).unwrap();
        all.leave(&id);
        assert!(all.look(&id, true, now).is_none());
        assert!(all.sessions.is_empty());
        let token = all.login(false, now);
        let (id, _) = all.enter(&token, now).unwrap();
        all.set_limits(Limits { idle: 2 * SECOND, ..all.limits() });
        assert!(all.look(&id, false, now + SECOND).is_some());
        assert!(all.look(&id, true, now + 2 * SECOND).is_none(), "by the bounds of now");
    }

    #[test]
    fn sessions_streams_and_logins_are_bounded() {
        let (mut all, now) = sessions();
        let ids: Vec<String> = (0u32..5)
            .map(|n| {
                let token = all.login(false, now + SECOND * n);
                all.enter(&token, now + SECOND * n).unwrap().0
            })
            .collect();
        let there: Vec<bool> = ids.iter().map(|id| all.look(id, false, now + SECOND * 5).is_some()).collect();
        assert_eq!(there, [false, false, true, true, true], "those that were idle longest went");
        let opened: Vec<bool> = (0..4).map(|_| all.open_stream(&ids[2]).is_ok()).collect();
        assert_eq!(opened, [true, true, true, false]);
        assert_eq!((all.open_stream(&ids[3]), all.open_stream(&ids[4])), (Ok(()), Err(TooMany)));
        assert_eq!(all.open_stream(&ids[0]), Err(TooMany), "of a session that has ended");
        all.close_stream(&ids[2]);
        assert_eq!(all.open_stream(&ids[4]), Ok(()));
        let first = all.login(false, now);
        for _ in 0..LOGINS {
            all.login(false, now);
        }
        assert!(all.logins.len() <= LOGINS && all.enter(&first, now).is_none());
    }
}
