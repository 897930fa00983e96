//! Messages to the user, rate-limited: each once, not once per refresh.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use crate::console::{Console, Severity};

/// A message is not repeated for this long.
const SILENCE: Duration = Duration::from_secs(30);

/// Maximum number of different messages in that time: a device whose invalid answers all differ
/// must not fill the log either.
const BUDGET: usize = 8;

/// Logs errors to the console's log.
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
    /// Creates a reporter for messages about this device.
    pub fn new(device: &str) -> Self {
        Self { device: device.to_owned(), said: HashMap::new(), withheld: 0, last: None }
    }

    /// Logs a message, unless it, or too many others, were logged just now.
    pub fn say(
        &mut self,
        console: &impl Console,
        now: Duration,
        severity: Severity,
        what: &impl fmt::Display,
    ) {
        self.say_of(&what.to_string(), console, now, severity, what);
    }

    /// Like [`Reporter::say`], for one of several texts with the same meaning (`topic`).
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

    /// Returns the last error.
    pub fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// Returns how many messages were withheld because there were too many.
    pub fn withheld(&self) -> u64 {
        self.withheld
    }
}
