//! What a display shows, holds and did: as JSON for programs, and in words for people.

use std::fmt::{self, Write};

use serde_json::{Value, json};

use crate::clock::Clock;
use crate::console::Console;
use crate::damage::Counts;
use crate::device::Device;
use crate::format::ModifierName;
use crate::plane::{Geometry, Plane};

use super::{Display, Mode, Planes, Screen};

impl<D: Device, C: Console, T: Clock> Display<D, C, T> {
    /// All that a program may want to know, as a JSON object.
    pub fn status(&self) -> Value {
        let counters = &self.counters;
        let mut status = json!({
            "device": self.device.name(),
            "mode": self.mode().to_string(),
            "shows": self.screen.name(),
            "edid": self.has_edid(),
            "refreshes": counters.refreshes,
            "queries": counters.queries,
            "flips": counters.flips,
            "refresh-microseconds": {
                "median": counters.durations.percentile(50.0),
                "p99": counters.durations.percentile(99.0),
                "longest": counters.durations.longest(),
                "counts": counters.durations.counts().collect::<Vec<_>>(),
            },
            "errors": counters.errors,
        });
        let mut add = |name: &str, value: Value| status[name] = value;
        if let Some(plane) = &self.plane {
            add("plane", plane_status(plane));
        }
        if let Some(shown) = &self.cursor.shown {
            let mut cursor = plane_status(&shown.plane);
            cursor["position"] = json!([shown.plane.position.0, shown.plane.position.1]);
            cursor["hotspot"] = json!(shown.plane.hotspot.map(|(x, y)| [x, y]));
            add("cursor", cursor);
        }
        if let Some(pacer) = &self.pacer {
            let period = pacer.period().map(|period| u64::try_from(period.as_micros()).ok());
            add("pacing", json!({ "period-microseconds": period, "looks": counters.looks }));
        }
        if let Some(events) = &self.events {
            add("events", json!({ "heard": events.heard() }));
        }
        match &self.screen {
            Screen::Message(text) => add("message", json!(text)),
            Screen::Surface(surface, _) => {
                let Counts { copied, compared, glanced } = surface.counts();
                let frames = json!({ "compared": compared, "glanced": glanced, "copied": copied });
                add("frames", frames);
            }
            _ => (),
        }
        if let Some(edid) = &self.edid {
            add("edids-written", json!(edid.written()));
        }
        match &self.planes {
            Planes::DmaBuf(planes) => {
                let pool = planes.pool.statistics();
                add("gets", json!(counters.gets));
                add("races", json!(counters.races));
                add("imports", json!(counters.imports));
                add(
                    "pool",
                    json!({
                        "buffers": pool.buffers,
                        "pinned": pool.pinned,
                        "bytes": pool.bytes,
                        "look-ups": pool.look_ups,
                        "evictions": pool.evictions,
                        "duplicates": pool.duplicates,
                        "violations": pool.violations,
                    }),
                );
            }
            Planes::Region(_) => {
                add("maps", json!(counters.maps));
                add("direct", json!(counters.direct));
            }
        }
        if let Some(last) = self.reporter.last() {
            add("last-error", json!(last));
            add("errors-withheld", json!(self.reporter.withheld()));
        }
        status
    }

    /// The same in a few lines of text.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.describe_to(&mut text);
        text
    }

    fn describe_to(&self, to: &mut String) -> fmt::Result {
        write!(to, "{} ({} mode): ", self.device.name(), self.mode())?;
        match &self.screen {
            Screen::Message(text) => writeln!(to, "\"{text}\"")?,
            screen => writeln!(to, "shows {}", screen.name())?,
        }
        if let Some(plane) = &self.plane {
            let what = if self.mode() == Mode::DmaBuf { "dma-buf id" } else { "region" };
            writeln!(to, "  plane: {}, {what} {}", plane.geometry, plane.handle)?;
        }
        if let Some(shown) = &self.cursor.shown {
            let ((x, y), geometry) = (shown.plane.position, shown.plane.geometry);
            write!(to, "  cursor: {geometry} at {x},{y}, hotspot ")?;
            match shown.plane.hotspot {
                Some((x, y)) => writeln!(to, "{x},{y}")?,
                None => writeln!(to, "not set")?,
            }
        }
        let counters = &self.counters;
        if let Planes::DmaBuf(planes) = &self.planes {
            let pool = planes.pool.statistics();
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
                counters.gets, counters.races, counters.imports
            )?;
        }
        if counters.direct > 0 {
            writeln!(to, "  {} frames shown without a copy", counters.direct)?;
        }
        let edid =
            self.edid.as_ref().map_or("none".to_owned(), |e| format!("{} written", e.written()));
        writeln!(
            to,
            "  {} refreshes, {} queries, {} flips; EDID: {edid}",
            counters.refreshes, counters.queries, counters.flips
        )?;
        let durations = &counters.durations;
        writeln!(
            to,
            "  a refresh takes {} us (p99 {}, longest {})",
            durations.percentile(50.0),
            durations.percentile(99.0),
            durations.longest()
        )?;
        if let Some(pacer) = &self.pacer {
            match pacer.period() {
                Some(period) => writeln!(to, "  the guest flips every {} us", period.as_micros())?,
                None => writeln!(to, "  the guest flips without a rhythm, or not at all")?,
            }
        }
        if let Some(events) = &self.events {
            writeln!(to, "  the device said {} times that something changed", events.heard())?;
        }
        for (kind, count) in &counters.errors {
            writeln!(to, "  errors ({kind}): {count}")?;
        }
        if let Some(last) = self.reporter.last() {
            writeln!(to, "  last error: {last}")?;
        }
        Ok(())
    }

    fn mode(&self) -> Mode {
        match self.planes {
            Planes::DmaBuf(_) => Mode::DmaBuf,
            Planes::Region(_) => Mode::Region,
        }
    }
}

fn plane_status(plane: &Plane) -> Value {
    let Geometry { format, width, height, stride, .. } = plane.geometry;
    json!({
        "width": width,
        "height": height,
        "stride": stride,
        "fourcc": format.fourcc.to_string(),
        "modifier": ModifierName(format.modifier).to_string(),
        "handle": plane.handle,
    })
}
