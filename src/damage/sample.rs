//! Sampled comparison: most of the picture does not change, so it is enough to compare some rows.

use std::io;
use std::ops::Range;

use super::{BAND_ROWS, Columns, Rows, Shown};

/// Number of samples for which a band that changed is compared whole: what changed is likely to
/// change again.
const WARM: u8 = 20;

/// Distance from one sample's rows to the next one's: odd, so that all get their turn, and so far
/// that a character need not wait.
const STEP: usize = 5;

/// State from one sample to the next.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    /// The first row of the next sample.
    sample: usize,
    /// For how many more samples each band is compared whole.
    warmth: Vec<u8>,
}

impl Sampler {
    /// Updates what [`Comparison::Sampled`](super::Comparison::Sampled) takes, and notes what
    /// changed of each row.
    pub fn update(
        &mut self,
        one_in: usize,
        rows: &mut Rows<'_>,
        shown: &mut Shown<'_>,
        changed: &mut [Option<Columns>],
    ) -> io::Result<()> {
        let one_in = one_in.clamp(1, BAND_ROWS);
        let sample = self.sample % one_in;
        self.sample = (self.sample + STEP) % BAND_ROWS;
        let height = changed.len();
        let bands = height.div_ceil(BAND_ROWS);
        self.warmth.resize(bands, 0);

        let mut compared = vec![false; bands];
        for (band, compared) in compared.iter_mut().enumerate() {
            let rows_of_band = rows_of(band, height);
            if self.warmth[band] > 0
                || rows.differ(rows_of_band.clone().skip(sample).step_by(one_in), shown)?
            {
                rows.update_all(rows_of_band, shown, changed)?;
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
