//! Messages to the user: each thing once, not once per refresh.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use crate::console::{Console, Severity};

/// What was said is not said again for this long.
const SILENCE: Duration = Duration::from_secs(30);

/// Different messages at most in that time: a device that lies differently each time must not fill the log either.
const BUDGET: usize = 8;

/// Says what goes wrong, to the console's log.
#[derive(Debug)]
pub struct Reporter {
    device: String,
    said: HashMap<String, Said>,
    withheld: u64,
    last: Option<String>,
}

#[derive(Debug)]
struct Said {
    when: Duration,
    repeated: u64,
}

impl Reporter {
    /// For messages about this device.
    pub fn new(device: &str) -> Self {
        Self { device: device.to_owned(), said: HashMap::new(), withheld: 0, last: None }
    }

    /// Says it, unless it, or too much else, was said just now.
    pub fn say(
        &mut self,
        console: &impl Console,
        now: Duration,
        severity: Severity,
        what: &impl fmt::Display,
    ) {
        self.say_of(&what.to_string(), console, now, severity, what);
    }

    /// As [`Reporter::say`], for one of many texts that mean the same.
    pub fn say_of(
        &mut self,
        topic: &str,
        console: &impl Console,
        now: Duration,
        severity: Severity,
        what: &impl fmt::Display,
    ) {
        let text = what.to_string();
        self.last = Some(text.clone());
        let repeated = match self.said.get_mut(topic) {
            Some(said) if now < said.when + SILENCE => {
                said.repeated += 1;
                return;
            }
            Some(said) => said.repeated,
            None => {
                self.said.retain(|_, said| now < said.when + SILENCE);
                if self.said.len() >= BUDGET {
                    self.withheld += 1;
                    return;
                }
                0
            }
        };
        let device = &self.device;
        if repeated == 0 {
            console.log(severity, format_args!("{device}: {text}"));
        } else {
            console.log(severity, format_args!("{device}: {text} ({repeated} more times since)"));
        }
        self.said.insert(topic.to_owned(), Said { when: now, repeated: 0 });
    }

    /// The last thing that went wrong.
    pub fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// Messages that were not said because too many others were.
    pub fn withheld(&self) -> u64 {
        self.withheld
    }
}
