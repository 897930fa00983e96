//! Sampled comparison: most of the picture does not change, so it is enough to compare some rows.

use std::io;
use std::ops::Range;
use std::time::Duration;

use super::{BAND_ROWS, Columns, LATEST, Rows, Shown};

/// Number of samples for which a band that changed is compared whole: what changed is likely to
/// change again.
const WARM: u8 = 20;

/// Distance from a row of a sample to the next one: odd, so that all get their turn, and so far
/// that a character need not wait.
const STEP: usize = 5;

/// State from one sample to the next.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    /// The row of each band that is compared next.
    next: usize,
    /// What rounding left of the rows that are due, in rows times nanoseconds.
    due: u128,
    /// For how many more samples each band is compared whole.
    warmth: Vec<u8>,
}

impl Sampler {
    /// Returns how many rows of each band the next sample takes, which comes so long after the last
    /// one: all get their turn within [`LATEST`], whatever the pace.
    pub fn rows_due(&mut self, since: Duration) -> usize {
        // The next one will come as late, and must not be too late.
        let time = LATEST.saturating_sub(since).as_nanos();
        self.due += since.as_nanos() * BAND_ROWS as u128;
        let rows = self.due.checked_div(time).and_then(|rows| usize::try_from(rows).ok());
        let rows = rows.unwrap_or(BAND_ROWS).clamp(1, BAND_ROWS);
        self.due = if rows < BAND_ROWS { self.due.saturating_sub(rows as u128 * time) } else { 0 };
        rows
    }

    /// Updates what [`Comparison::Sampled`](super::Comparison::Sampled) takes, and notes what
    /// changed of each row.
    pub fn update(
        &mut self,
        rows_of_band: usize,
        rows: &mut Rows<'_>,
        shown: &mut Shown<'_>,
        changed: &mut [Option<Columns>],
    ) -> io::Result<()> {
        let mut sample = [false; BAND_ROWS];
        for _ in 0..rows_of_band {
            sample[self.next] = true;
            self.next = (self.next + STEP) % BAND_ROWS;
        }
        let height = changed.len();
        let bands = height.div_ceil(BAND_ROWS);
        self.warmth.resize(bands, 0);

        let mut compared = vec![false; bands];
        for (band, compared) in compared.iter_mut().enumerate() {
            let mut sampled = rows_of(band, height).filter(|y| sample[y % BAND_ROWS]);
            if self.warmth[band] > 0 || rows.differ(&mut sampled, shown)? {
                rows.update_all(rows_of(band, height), shown, changed)?;
                *compared = true;
            }
        }
        // The change may reach further: down, and then up.
        let down = (1..bands).map(|band| (band, band - 1));
        let up = (1..bands).map(|band| (band - 1, band)).rev();
        for (band, beside) in down.chain(up) {
            let reaches = changed[rows_of(beside, height)].iter().any(Option::is_some);
            if reaches && !compared[band] {
                rows.update_all(rows_of(band, height), shown, changed)?;
                compared[band] = true;
            }
        }
        Ok(())
    }

    /// Notes what changed, however it was found.
    pub fn warm(&mut self, changed: &[Option<Columns>]) {
        self.warmth.resize(changed.len().div_ceil(BAND_ROWS), 0);
        for (warmth, rows) in self.warmth.iter_mut().zip(changed.chunks(BAND_ROWS)) {
            let has_changed = rows.iter().any(Option::is_some);
            *warmth = if has_changed { WARM } else { warmth.saturating_sub(1) };
        }
    }
}

fn rows_of(band: usize, height: usize) -> Range<usize> {
    band * BAND_ROWS..((band + 1) * BAND_ROWS).min(height)
}
