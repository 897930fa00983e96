//! What commands are made of: words, numbers, sizes and places.

use std::str::FromStr;

/// A command's words: plain ones, and options of the form `name=value`.
#[derive(Debug)]
pub struct Words<'a> {
    plain: Vec<&'a str>,
    options: Vec<(&'a str, &'a str)>,
}

impl<'a> Words<'a> {
    pub fn parse(words: &[&'a str]) -> Self {
        let (mut plain, mut options) = (Vec::new(), Vec::new());
        for word in words {
            match word.split_once('=') {
                Some(option) => options.push(option),
                None => plain.push(*word),
            }
        }
        Self { plain, options }
    }

    /// The value of an option, which must be asked for only once.
    pub fn option<T>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        let Some(at) = self.options.iter().position(|(n, _)| *n == name) else { return Ok(None) };
        let (_, value) = self.options.remove(at);
        parse(value).map(Some).map_err(|e| format!("{name}: {e}"))
    }

    /// Whether a word without value is there.
    pub fn flag(&mut self, name: &str) -> bool {
        let at = self.plain.iter().position(|word| *word == name);
        at.map(|at| self.plain.remove(at)).is_some()
    }

    /// The next plain word.
    pub fn next(&mut self, what: &str) -> Result<&'a str, String> {
        if self.plain.is_empty() {
            return Err(format!("{what} is missing"));
        }
        Ok(self.plain.remove(0))
    }

    /// Nothing may be left.
    pub fn end(&self) -> Result<(), String> {
        match (self.plain.first(), self.options.first()) {
            (Some(word), _) => Err(format!("'{word}' is one word too many")),
            (None, Some((name, _))) => Err(format!("no option '{name}'")),
            (None, None) => Ok(()),
        }
    }
}

/// A number in decimal or, after 0x, hexadecimal.
pub fn number(text: &str) -> Result<u64, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| format!("'{text}' is not a number"))
}

/// A number of 32 bits.
pub fn number32(text: &str) -> Result<u32, String> {
    u32::try_from(number(text)?).map_err(|_| format!("'{text}' is more than {}", u32::MAX))
}

/// `WxH`
pub fn size(text: &str) -> Result<(u32, u32), String> {
    let wrong = || format!("'{text}' is not WIDTHxHEIGHT");
    let (width, height) = text.split_once('x').ok_or_else(wrong)?;
    Ok((number32(width).map_err(|_| wrong())?, number32(height).map_err(|_| wrong())?))
}

/// `X,Y`
pub fn point<T: FromStr>(text: &str) -> Result<(T, T), String> {
    let wrong = || format!("'{text}' is not X,Y");
    let (x, y) = text.split_once(',').ok_or_else(wrong)?;
    Ok((x.parse().map_err(|_| wrong())?, y.parse().map_err(|_| wrong())?))
}

/// `on` or `off`, and nothing else.
pub fn on_or_off(words: &mut Words<'_>) -> Result<bool, String> {
    let on = match words.next("on or off")? {
        "on" => true,
        "off" => false,
        word => return Err(format!("'{word}': on or off")),
    };
    words.end()?;
    Ok(on)
}
