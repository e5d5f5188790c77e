//! `meshctl top` on a terminal, which tmux is: what is on the screen, keys, other sizes, and that the terminal is as before afterwards.

use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::fake::{Fake, Script};

const SOON: Duration = Duration::from_secs(30);

/// A terminal with a shell that runs meshctl and tells how that ended; it ends when this is dropped.
struct Terminal {
    folder: TempDir,
}

impl Terminal {
    fn start(fake: &Fake, words: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let meshctl = fake.command(words);
        let word = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().unwrap());
        let line: Vec<String> =
            std::iter::once(meshctl.get_program()).chain(meshctl.get_args()).map(word).collect();
        let script = format!(
            "trap : INT; echo what was there; stty -g > before; {}; echo \"ended with $?\"; stty -g > after; sleep 1000\n",
            line.join(" ")
        );
        std::fs::write(folder.path().join("script"), script).unwrap();
        let terminal = Self { folder };
        let size = ["-x", "80", "-y", "24"];
        terminal.tmux(&[&["-f", "/dev/null", "new-session", "-d"][..], &size, &["sh", "script"]].concat());
        terminal
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("tmux")
    }

    fn tmux(&self, words: &[&str]) -> String {
        let mut tmux = Command::new("tmux");
        tmux.current_dir(self.folder.path())
            .env_remove("TMUX")
            .env("LC_ALL", "C.UTF-8")
            .env_remove("NO_COLOR");
        tmux.arg("-S").arg(self.socket()).args(words);
        let done = tmux.output().expect("tmux, of Debian's package of that name");
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    fn resize(&self, columns: &str, rows: &str) {
        self.tmux(&["resize-window", "-x", columns, "-y", rows]);
    }

    /// What stands on the screen, once that is so.
    fn shows(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + SOON;
        loop {
            let screen = self.tmux(&["capture-pane", "-p"]);
            if is_so(&screen) {
                return screen;
            }
            assert!(Instant::now() < until, "{what} does not come:\n{screen}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether the terminal's other screen is shown, and a cursor.
    fn flags(&self) -> String {
        self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]).trim().to_owned()
    }

    /// Waits until meshctl has ended so, and looks at what it leaves: the screen that was there, a cursor, and the terminal's modes.
    fn is_left_clean(&self, code: &str) -> String {
        let ended = format!("ended with {code}\n");
        let screen = self.shows("its end", |screen| screen.contains(&ended));
        assert!(screen.starts_with("what was there\n") && !screen.contains("meshctl top:"), "{screen}");
        assert_eq!(self.flags(), "0 1", "{screen}");
        let modes = |name: &str| std::fs::read_to_string(self.folder.path().join(name)).unwrap();
        self.shows("the terminal's modes", |_| !modes("after").is_empty());
        assert_eq!(modes("before"), modes("after"));
        screen
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux").arg("-S").arg(self.socket()).arg("kill-server").output();
    }
}

fn rows_of(screen: &str) -> impl Iterator<Item = &str> {
    screen.lines().filter(|line| !line.is_empty())
}

#[test]
fn lists_keys_and_sizes() {
    let fake = Fake::start(Script::default());
    let terminal = Terminal::start(&fake, &["top"]);
    let screen = terminal.shows("the list of services", |screen| screen.contains("web  "));
    assert!(screen.starts_with("meshctl top: n1, nodes: 2 alive, 1 down\n"), "{screen}");
    assert!(screen.contains("\nservices by traffic   [q] quit  [s] sort  [tab] next list\n"), "{screen}");
    assert!(rows_of(&screen).all(|line| line.len() <= 80) && screen.contains("DROPS/S"), "{screen}");
    assert_eq!(terminal.flags(), "1 0");
    // Rates come with the second look.
    terminal.shows("rates", |screen| screen.contains("5.0k"));

    terminal.press("Tab");
    terminal.shows("tasks", |screen| screen.contains("\ntasks by traffic ") && screen.contains("web.2"));
    terminal.press("s");
    terminal.shows("another order", |screen| {
        screen.contains("\ntasks by ") && !screen.contains("\ntasks by traffic ")
    });

    // What does not fit is left out, and nothing of a wider picture stays.
    terminal.resize("40", "10");
    let narrow = terminal.shows("the narrow list", |screen| {
        screen.contains("web.2") && !screen.contains("DROPS/S") && screen.starts_with("meshctl top: n1")
    });
    assert!(narrow.lines().count() <= 10 && rows_of(&narrow).all(|line| line.len() <= 40), "{narrow}");
    terminal.resize("20", "3");
    terminal.shows("hardly anything", |screen| screen.starts_with("meshctl top: n1, nod\n"));
    terminal.resize("120", "30");
    terminal.shows("the wide list", |screen| screen.contains("DROPS/S") && screen.contains("web.2"));
    terminal.resize("80", "24");

    terminal.press("q");
    terminal.is_left_clean("0");
}

#[test]
fn ctrl_c_and_a_daemon_that_goes() {
    let fake = Fake::start(Script::default());
    let terminal = Terminal::start(&fake, &["top"]);
    terminal.shows("the list", |screen| screen.contains("meshctl top: n1"));
    terminal.press("C-c");
    terminal.is_left_clean("0");
    drop(terminal);

    let terminal = Terminal::start(&fake, &["top"]);
    terminal.shows("the list", |screen| screen.contains("meshctl top: n1"));
    drop(fake);
    // `EX_UNAVAILABLE`.
    let screen = terminal.is_left_clean("69");
    assert!(screen.contains("cannot look at the node"), "{screen}");
}
