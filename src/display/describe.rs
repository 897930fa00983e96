//! The status of a display as text, for people: QEMU's `info vfio-display`.

use std::fmt::{self, Write};

use crate::clock::Alarms;
use crate::console::Console;
use crate::device::{Device, Mode};
use crate::exchange::Facts;
use crate::presenter::Screen;

use super::Display;

impl<D: Device, C: Console, T: Alarms> Display<D, C, T> {
    /// Returns the status as a few lines of text.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.describe_to(&mut text);
        text
    }

    fn describe_to(&self, to: &mut String) -> fmt::Result {
        let facts = self.facts();
        self.describe_picture(to)?;
        self.describe_buffers(&facts, to)?;
        self.describe_work(&facts, to)?;
        self.describe_errors(to)
    }

    /// What is shown, and who polls the device.
    fn describe_picture(&self, to: &mut String) -> fmt::Result {
        write!(to, "{} ({} mode): ", self.name, self.mode)?;
        match self.presenter.screen() {
            Screen::Message(text) => writeln!(to, "\"{text}\"")?,
            screen => writeln!(to, "shows {}", screen.name())?,
        }
        if self.has_thread() {
            writeln!(to, "  the device is polled on a thread of its own")?;
        }
        if self.has_failed() {
            writeln!(to, "  it has failed: the device is not polled any more")?;
        }
        if let Some(plane) = self.presenter.plane() {
            let what = if self.mode == Mode::DmaBuf { "dma-buf id" } else { "region" };
            writeln!(to, "  plane: {}, {what} {}", plane.geometry, plane.handle)?;
        }
        if let Some(plane) = self.presenter.pointer() {
            let ((x, y), geometry) = (plane.position, plane.geometry);
            write!(to, "  cursor: {geometry} at {x},{y}, hotspot ")?;
            match plane.hotspot {
                Some((x, y)) => writeln!(to, "{x},{y}")?,
                None => writeln!(to, "not set")?,
            }
        }
        Ok(())
    }

    /// The pool, and what became of its dma-bufs.
    fn describe_buffers(&self, facts: &Facts, to: &mut String) -> fmt::Result {
        let (asked, showed) = (&facts.counters, self.presenter.counters());
        if let Some(pool) = facts.pool {
            writeln!(
                to,
                "  buffers: {} held ({} KiB), {} pinned, {} evicted, {} contract violations",
                pool.buffers,
                pool.bytes / 1024,
                pool.pinned,
                pool.evictions,
                pool.violations
            )?;
            writeln!(
                to,
                "  {} gets, {} lost to a flip in between, {} imports",
                asked.gets, asked.races, showed.imports
            )?;
        }
        if showed.direct > 0 {
            writeln!(to, "  {} frames shown without a copy", showed.direct)?;
        }
        Ok(())
    }

    /// How often something was done, how long it took, and when the guest flips.
    fn describe_work(&self, facts: &Facts, to: &mut String) -> fmt::Result {
        let edid =
            facts.edids_written.map_or("none".to_owned(), |written| format!("{written} written"));
        writeln!(
            to,
            "  {} refreshes, {} queries, {} flips; EDID: {edid}",
            self.refreshes,
            facts.counters.queries,
            self.presenter.counters().flips
        )?;
        let durations = &self.durations;
        writeln!(
            to,
            "  a refresh takes {} us (p99 {}, longest {})",
            durations.percentile(50),
            durations.percentile(99),
            durations.longest()
        )?;
        match facts.pacing {
            Some(Some(period)) => {
                writeln!(to, "  the guest flips every {} us", period.as_micros())?;
            }
            Some(None) => writeln!(to, "  the guest flips without a rhythm, or not at all")?,
            None => (),
        }
        if let Some(signals) = facts.signals {
            writeln!(to, "  the device signalled {signals} changes")?;
        }
        Ok(())
    }

    fn describe_errors(&self, to: &mut String) -> fmt::Result {
        for (kind, count) in &self.presenter.counters().errors {
            writeln!(to, "  errors ({kind}): {count}")?;
        }
        if let Some((last, _)) = self.presenter.last_error() {
            writeln!(to, "  last error: {last}")?;
        }
        Ok(())
    }
}
