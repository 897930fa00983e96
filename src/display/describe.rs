//! The status of a display: as JSON for programs, whose members QEMU's `qapi/vfio.json` defines
//! (`VfioDisplayStatus`), and as text for people.

use std::fmt::{self, Write};

use serde_json::{Value, json};

use crate::clock::Alarms;
use crate::console::Console;
use crate::damage::Counts;
use crate::device::{Device, Mode};
use crate::format::ModifierName;
use crate::plane::{Geometry, Plane};
use crate::pool::Statistics;
use crate::presenter::Screen;

use super::Display;
use super::durations::Durations;

impl<D: Device, C: Console, T: Alarms> Display<D, C, T> {
    /// Returns the status as a JSON object.
    pub fn status(&self) -> Value {
        let facts = self.facts();
        let (asked, showed) = (&facts.counters, self.presenter.counters());
        let mut status = json!({
            "device": self.name,
            "mode": self.mode.to_string(),
            "shows": self.presenter.screen().name(),
            "edid": self.has_edid(),
            "thread": self.has_thread(),
            "refreshes": self.refreshes,
            "queries": asked.queries,
            "flips": showed.flips,
            "refresh-microseconds": durations_status(&self.durations),
            "errors": list(&showed.errors, |(kind, count)| json!({ "kind": kind, "count": count })),
        });
        let mut add = |name: &str, value: Value| status[name] = value;
        if let Some(plane) = self.presenter.plane() {
            add("plane", plane_status(plane));
        }
        if let Some(plane) = self.presenter.pointer() {
            add("cursor", cursor_status(plane));
        }
        if let Some(period) = facts.pacing {
            let mut pacing = json!({ "looks": asked.polls });
            if let Some(period) = period {
                pacing["period-microseconds"] = json!(u64::try_from(period.as_micros()).ok());
            }
            add("pacing", pacing);
        }
        if let Some(signals) = facts.signals {
            add("events", json!({ "heard": signals }));
        }
        if self.has_failed() {
            add("broken", json!(true));
        }
        match self.presenter.screen() {
            Screen::Message(text) => add("message", json!(text)),
            Screen::Surface(_) => {
                let Counts { copied, compared, sampled } = facts.frames.unwrap_or_default();
                let frames = json!({ "compared": compared, "glanced": sampled, "copied": copied });
                add("frames", frames);
            }
            _ => (),
        }
        if let Some(written) = facts.edids_written {
            add("edids-written", json!(written));
        }
        if let Some(pool) = facts.pool {
            add("gets", json!(asked.gets));
            add("races", json!(asked.races));
            add("imports", json!(showed.imports));
            add("pool", pool_status(&pool));
        } else {
            add("maps", json!(asked.maps));
            add("direct", json!(showed.direct));
        }
        if let Some((last, withheld)) = self.presenter.last_error() {
            add("last-error", json!(last));
            add("errors-withheld", json!(withheld));
        }
        status
    }

    /// Returns the status as a few lines of text.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.describe_to(&mut text);
        text
    }

    fn describe_to(&self, to: &mut String) -> fmt::Result {
        let facts = self.facts();
        let (asked, showed) = (&facts.counters, self.presenter.counters());
        write!(to, "{} ({} mode): ", self.name, self.mode)?;
        match self.presenter.screen() {
            Screen::Message(text) => writeln!(to, "\"{text}\"")?,
            screen => writeln!(to, "shows {}", screen.name())?,
        }
        if self.has_thread() {
            writeln!(to, "  the device is asked on a thread of its own")?;
        }
        if self.has_failed() {
            writeln!(to, "  it has failed: the device is not asked any more")?;
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
        let edid =
            facts.edids_written.map_or("none".to_owned(), |written| format!("{written} written"));
        writeln!(
            to,
            "  {} refreshes, {} queries, {} flips; EDID: {edid}",
            self.refreshes, asked.queries, showed.flips
        )?;
        let durations = &self.durations;
        writeln!(
            to,
            "  a refresh takes {} us (p99 {}, longest {})",
            durations.percentile(50),
            durations.percentile(99),
            durations.longest()
        )?;
        if let Some(period) = facts.pacing {
            match period {
                Some(period) => writeln!(to, "  the guest flips every {} us", period.as_micros())?,
                None => writeln!(to, "  the guest flips without a rhythm, or not at all")?,
            }
        }
        if let Some(signals) = facts.signals {
            writeln!(to, "  the device said {signals} times that something changed")?;
        }
        for (kind, count) in &showed.errors {
            writeln!(to, "  errors ({kind}): {count}")?;
        }
        if let Some((last, _)) = self.presenter.last_error() {
            writeln!(to, "  last error: {last}")?;
        }
        Ok(())
    }
}

fn list<T>(items: impl IntoIterator<Item = T>, status: impl Fn(T) -> Value) -> Value {
    items.into_iter().map(status).collect()
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

fn cursor_status(plane: &Plane) -> Value {
    let mut status = plane_status(plane);
    status["x"] = json!(plane.position.0);
    status["y"] = json!(plane.position.1);
    if let Some((x, y)) = plane.hotspot {
        status["hot-x"] = json!(x);
        status["hot-y"] = json!(y);
    }
    status
}

fn durations_status(durations: &Durations) -> Value {
    json!({
        "median": durations.percentile(50),
        "p99": durations.percentile(99),
        "longest": durations.longest(),
        "counts": list(durations.counts(), |(microseconds, refreshes)| {
            json!({ "microseconds": microseconds, "refreshes": refreshes })
        }),
    })
}

fn pool_status(pool: &Statistics) -> Value {
    json!({
        "buffers": pool.buffers,
        "pinned": pool.pinned,
        "bytes": pool.bytes,
        "look-ups": pool.look_ups,
        "evictions": pool.evictions,
        "duplicates": pool.duplicates,
        "violations": pool.violations,
    })
}
