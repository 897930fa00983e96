//! The cursor plane: when to ask for it, and what changed of it.

use crate::plane::Plane;
use crate::pool::Key;

/// While the device answers "no cursor", it is asked at one refresh of this many: drivers without a cursor plane
/// and drivers whose cursor is off answer alike.
pub const ABSENT_INTERVAL: u32 = 16;

/// What is known of the cursor plane.
#[derive(Debug, Default)]
pub struct Cursor {
    presence: Presence,
    /// What the console shows.
    pub shown: Option<Shown>,
}

#[derive(Debug, Default)]
enum Presence {
    /// To be asked for at the next refresh.
    #[default]
    Unknown,
    /// The device never showed a cursor, and refused the question: asked again only after a reset or a mode set.
    Unsupported,
    /// Off, for so many refreshes more.
    Absent(u32),
    /// Seen: asked for at each refresh.
    Present,
}

/// A cursor on the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its buffer.
    pub key: Key,
    /// What the device said of it.
    pub plane: Plane,
    /// Its pixels, where the console shows them itself rather than a front end the buffer.
    pub pixels: Option<Vec<u8>>,
}

impl Cursor {
    /// Whether to ask the device at this refresh.
    pub fn is_due(&mut self) -> bool {
        match &mut self.presence {
            Presence::Unknown | Presence::Present => true,
            Presence::Unsupported => false,
            Presence::Absent(refreshes) => {
                *refreshes = refreshes.saturating_sub(1);
                *refreshes == 0
            }
        }
    }

    /// The device showed a cursor.
    pub fn seen(&mut self) {
        self.presence = Presence::Present;
    }

    /// The device has a cursor plane, and it is off.
    pub fn absent(&mut self) {
        if !matches!(self.presence, Presence::Present) {
            self.pause();
        }
    }

    /// The device refused the question. One that had a cursor has a cursor plane, whatever ails it now.
    pub fn refused(&mut self) {
        match self.presence {
            Presence::Present => self.pause(),
            _ => self.presence = Presence::Unsupported,
        }
    }

    /// Asking is not worth it for a while.
    pub fn pause(&mut self) {
        self.presence = Presence::Absent(ABSENT_INTERVAL);
    }

    /// A reset or a mode set: what is known may not hold any more.
    pub fn forget(&mut self) {
        self.presence = Presence::Unknown;
    }
}
