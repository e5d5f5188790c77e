//! The options for a task, read, and as they were given, to be given again later.

use clap::{ArgMatches, Args, Command, FromArgMatches, parser::ValueSource};

use crate::{failure::Failure, task_options::TaskOptions};

/// See the module.
#[derive(Debug, Clone)]
pub struct Given {
    task: TaskOptions,
    /// `--network=prod`.
    pub words: Vec<String>,
}

impl Given {
    /// What cannot be seen of one option alone.
    pub fn check(&self) -> Result<(), Failure> {
        self.task.check()
    }

    /// What was given with an option, such as `--network=`.
    pub fn values(&self, option: &str) -> impl Iterator<Item = &str> {
        self.words.iter().filter_map(move |word| word.strip_prefix(option))
    }

    /// Whether the task belongs to a service.
    pub fn has_service(&self) -> bool {
        self.task.has_service()
    }
}

impl Args for Given {
    fn augment_args(command: Command) -> Command {
        TaskOptions::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        TaskOptions::augment_args_for_update(command)
    }
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut words = Vec::new();
        for option in TaskOptions::augment_args(Command::new("task")).get_arguments() {
            let id = option.get_id().as_str();
            if matches.value_source(id) != Some(ValueSource::CommandLine) {
                continue;
            }
            let (Some(long), Some(values)) = (option.get_long(), matches.get_raw(id)) else { continue };
            words.extend(values.map(|value| format!("--{long}={}", value.to_string_lossy())));
        }
        Ok(Self { task: TaskOptions::from_arg_matches(matches)?, words })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
