//! What a user may choose: the properties and `x-display-options` of a display.

use std::fmt;
use std::str::FromStr;

use crate::pool::Limits;

/// What a user may choose. [`Config::apply`] sets the fields that have a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "they are switches")]
pub struct Config {
    /// Preferred width in pixels; 0: the largest the device supports.
    pub xres: u32,
    /// Preferred height in pixels; 0: the largest the device supports.
    pub yres: u32,
    /// Whether the scanout may be shared with other devices of the VM.
    pub share: bool,
    /// How many dma-bufs to hold: `pool-buffers`, `pool-bytes`.
    pub pool: Limits,
    /// Whether front ends may import dma-bufs; if not, everything is shown as a surface: `import`.
    pub import: bool,
    /// Whether a front end that only reads dma-bufs back gets them even if the CPU can read them:
    /// `read-back`.
    pub read_back: bool,
    /// Whether only a sample of the rows is compared at refreshes in quick succession, and what is
    /// around those that changed: `sample`.
    pub sample: bool,
    /// Whether front ends are shown a region's memory itself while everything in it moves:
    /// `direct`.
    pub direct: bool,
    /// Whether the device is polled when the guest is about to flip, not only when a front end
    /// refreshes: `pacing`.
    pub pacing: bool,
    /// Whether a device that can signals changes, instead: `events`.
    pub events: bool,
    /// Whether the device is polled on a thread of its own, if the host provides one: `thread`.
    pub thread: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            xres: 0,
            yres: 0,
            share: false,
            pool: Limits::default(),
            import: true,
            read_back: false,
            sample: true,
            direct: true,
            pacing: true,
            events: false,
            thread: true,
        }
    }
}

/// Keys for users, with their values in words. The C header documents these.
const KEYS: [(&str, &str); 5] = [
    ("import", SWITCH),
    ("events", SWITCH),
    ("thread", SWITCH),
    ("pool-buffers", "a number from 1 on"),
    ("pool-bytes", "a number of bytes from 1 on, which may end in K, M or G"),
];

/// Keys for tests and benches, which compare what is shown with and without; no stable interface.
const TEST_KEYS: [(&str, &str); 4] =
    [("read-back", SWITCH), ("sample", SWITCH), ("direct", SWITCH), ("pacing", SWITCH)];

const SWITCH: &str = "on or off";

/// Why options are invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionError {
    /// Unknown key.
    Key(String),
    /// Invalid value.
    Value {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// The valid values, in words.
        allowed: &'static str,
    },
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => {
                write!(f, "there is no option \"{key}\" of the display; there are ")?;
                let keys: Vec<_> = KEYS.iter().map(|(key, _)| *key).collect();
                f.write_str(&keys.join(", "))
            }
            Self::Value { key, value, allowed } => {
                write!(f, "option \"{key}\" of the display is {allowed}, not \"{value}\"")
            }
        }
    }
}

impl std::error::Error for OptionError {}

impl Config {
    /// Applies options of the form `key=value`, separated by commas. An empty string changes
    /// nothing.
    ///
    /// On an error, the options before it have been applied.
    pub fn apply(&mut self, options: &str) -> Result<(), OptionError> {
        options.split(',').filter(|option| !option.is_empty()).try_for_each(|option| {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            self.set(key, value)
        })
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), OptionError> {
        let mut known = KEYS.iter().chain(&TEST_KEYS);
        let Some(&(key, allowed)) = known.find(|(known, _)| *known == key) else {
            return Err(OptionError::Key(key.to_owned()));
        };
        let understood = match key {
            "import" => replace(&mut self.import, switch(value)),
            "read-back" => replace(&mut self.read_back, switch(value)),
            "sample" => replace(&mut self.sample, switch(value)),
            "direct" => replace(&mut self.direct, switch(value)),
            "pacing" => replace(&mut self.pacing, switch(value)),
            "events" => replace(&mut self.events, switch(value)),
            "thread" => replace(&mut self.thread, switch(value)),
            "pool-buffers" => replace(&mut self.pool.count, number(value)),
            _ => replace(&mut self.pool.bytes, bytes(value)),
        };
        understood.ok_or_else(|| OptionError::Value { key, value: value.to_owned(), allowed })
    }
}

fn replace<T>(field: &mut T, value: Option<T>) -> Option<()> {
    value.map(|value| *field = value)
}

fn switch(value: &str) -> Option<bool> {
    match value {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

fn number<N: FromStr + PartialOrd + From<u8>>(value: &str) -> Option<N> {
    value.parse().ok().filter(|number| *number >= N::from(1))
}

fn bytes(value: &str) -> Option<u64> {
    let (digits, unit) = match value.char_indices().last()? {
        (at, 'K') => (&value[..at], 1 << 10),
        (at, 'M') => (&value[..at], 1 << 20),
        (at, 'G') => (&value[..at], 1 << 30),
        _ => (value, 1),
    };
    number::<u64>(digits)?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(options: &str) -> Result<Config, String> {
        let mut config = Config::default();
        config.apply(options).map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn nothing_said_is_the_default() {
        assert_eq!(applied(""), Ok(Config::default()));
    }

    #[test]
    fn what_is_said_is_set_and_nothing_else() {
        let pool = Limits { count: 3, bytes: 64 << 20 };
        let expected = Config { pool, sample: false, read_back: true, ..Config::default() };
        let options = "pool-buffers=3,sample=off,read-back=on,pool-bytes=64M";
        assert_eq!(applied(options), Ok(expected));
        let expected = Config { import: false, pacing: false, events: true, ..Config::default() };
        assert_eq!(applied("import=off,events=on,pacing=off"), Ok(expected));
        assert_eq!(applied("direct=off"), Ok(Config { direct: false, ..Config::default() }));
    }

    #[test]
    fn errors_name_the_key_and_what_is_allowed() {
        for (options, says) in [
            ("pacing=maybe", "option \"pacing\" of the display is on or off, not \"maybe\""),
            ("pacing", "option \"pacing\" of the display is on or off, not \"\""),
            (
                "pool-buffers=0",
                "option \"pool-buffers\" of the display is a number from 1 on, not \"0\"",
            ),
            (
                "pool-bytes=18446744073709551615K",
                "option \"pool-bytes\" of the display is a number of bytes from 1 on, which may end in K, M or G, \
                 not \"18446744073709551615K\"",
            ),
            (
                "speed=on",
                "there is no option \"speed\" of the display; there are import, events, thread, pool-buffers, pool-bytes",
            ),
        ] {
            assert_eq!(applied(options), Err(says.to_owned()));
        }
    }
}
