//! Follows what the steady app server's users get, by its log.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::check::STEADY;
use crate::logs::{Line, Served};

/// The users who got a reminder since it began.
pub(crate) struct Arrivals {
    log: File,
    /// The begin of a line that was not all there.
    rest: String,
    users: BTreeSet<String>,
}

impl Arrivals {
    /// Begins with what comes from now on.
    pub(crate) fn from_now(logs: &Path) -> Self {
        // It may not have begun.
        let path = logs.join(format!("served.{STEADY}.jsonl"));
        let mut log = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        log.seek(SeekFrom::End(0)).unwrap();
        Self {
            log,
            rest: String::new(),
            users: BTreeSet::new(),
        }
    }

    /// Checks that all of these users have got one.
    pub(crate) fn are_everybodys(&mut self, users: &[String]) -> Result<(), String> {
        self.log.read_to_string(&mut self.rest).unwrap();
        while let Some((line, rest)) = self.rest.split_once('\n') {
            if let Ok(Line {
                event: Served::Accepted(reminder),
                ..
            }) = serde_json::from_str(line)
            {
                self.users.insert(reminder.user);
            }
            self.rest = rest.to_owned();
        }
        match users.iter().find(|user| !self.users.contains(*user)) {
            Some(user) => Err(format!("{user} gets nothing")),
            None => Ok(()),
        }
    }
}
